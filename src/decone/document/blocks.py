"""Blocks that documents are built of: raw strings and raw numbers, never markup.

A view builds a `Document` once; `document.html`, `document.terminal` and `document.markdown` draw it. Strings may come
from strangers: renderers make control characters visible, cut what is long and escape what their medium would obey.
"""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Flag
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel

from decone.document.numbers import significant
from decone.files.foreign import LABEL, code_spans

Severity = Literal["good", "note", "warning", "serious"]
Emphasis = Literal["strong", "dim", "mono", "mark", "good", "bad"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note", "good")  # the worst first
SYMBOLS: dict[Severity, str] = {"serious": "✗", "warning": "!", "note": "i", "good": "✓"}


class Media(Flag):
    """Renderers that draw a block; fragments for notebooks draw what pages draw, without figures."""

    PAGE = 1
    TERMINAL = 2
    MARKDOWN = 4
    TEXT = TERMINAL | MARKDOWN
    SCREEN = PAGE | TERMINAL
    FILE = PAGE | MARKDOWN
    ALL = PAGE | TERMINAL | MARKDOWN


@dataclass(frozen=True)
class Code:
    """A name or a command in a sentence."""

    text: str

    @property
    def command(self) -> bool:
        """True for a command of decone, which a page offers to copy."""
        return self.text.startswith("decone ")


@dataclass(frozen=True)
class Token:
    """A token of a vocabulary: its spaces are drawn, and it never turns its neighbours around.

    Attributes:
        text: the token's string, foreign.
        limit: characters shown; a terminal shows at most 24.
        code_points: a page adds those of its few foreign characters, for which a reader may have no font.
    """

    text: str
    limit: int = LABEL
    code_points: bool = False


@dataclass(frozen=True)
class Styled:
    """Text with emphasis; good and bad stand for themselves, so never only colour may tell them apart."""

    text: str
    emphasis: Emphasis


@dataclass(frozen=True)
class Swatch:
    """A name with a dot in the colour that figures draw it in.

    Attributes:
        text: the name.
        colour: a light colour of `document.figures`, which a page exchanges on a dark ground.
        hollow: a ring instead of a dot.
        mono: the name in a fixed-width font, with line breaks allowed after its signs.
    """

    text: str
    colour: str
    hollow: bool = False
    mono: bool = False


Inline = str | Code | Token | Styled | Swatch
Phrase = Inline | tuple[Inline, ...]


def spans(phrase: Phrase) -> tuple[Inline, ...]:
    """The inline elements of a phrase."""
    return phrase if isinstance(phrase, tuple) else (phrase,)


def joined(items: Sequence[Phrase], separator: str) -> Phrase:
    """Several phrases as one, with a separator between them.

    Example:
        >>> joined(["a", ("b", "c")], ", ")
        ('a', ', ', 'b', 'c')
    """
    return tuple(span for index, item in enumerate(items) for span in ((separator,) if index else ()) + spans(item))


def commands(text: str) -> Phrase:
    """A sentence whose names in backticks, or else whose commands of decone, are code.

    Example:
        >>> commands("run `decone scan MODEL`, or not")
        ('run ', Code(text='decone scan MODEL'), ', or not')
    """
    return tuple(Code(span) if code else span for span, code in code_spans(text))


def dotted_pairs(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as dotted keys with their values as text, for `Facts`.

    Example:
        >>> list(dotted_pairs({"model": {"width": 64}, "commit": None}))
        [('model.width', '64'), ('commit', 'not known')]
    """
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from dotted_pairs(value, f"{dotted}.")
        elif value is None:
            yield dotted, "not known"
        else:
            yield dotted, value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


@dataclass(frozen=True)
class GridCell:
    """A cell of a grid.

    Attributes:
        content: a phrase; or a count; or another number, which `format` turns into text; None is a dash.
        value: the number a reader sorts by; that of the content by default.
        format: text of a number that is no count.
        below: smaller lines under the content.
        bar: share in [0, 1] that a page draws as a bar beside the content.
    """

    content: Phrase | float | int | None
    value: float | int | None = None
    format: Callable[[float | int], str] = significant
    below: Sequence[Phrase] = ()
    bar: float | int | None = None

    @property
    def phrase(self) -> Phrase:
        """The content as text."""
        if self.content is None:
            return "—"
        if isinstance(self.content, int):
            return f"{self.content:,}"
        return self.format(self.content) if isinstance(self.content, float) else self.content

    @property
    def number(self) -> float | int | None:
        """The number the cell is sorted by, None for text."""
        if self.value is None and isinstance(self.content, int | float):
            return self.content
        return self.value


CellContent = GridCell | Phrase | float | int | None


@dataclass(frozen=True)
class GridColumn:
    """A column of a grid.

    Attributes:
        heading: raw text or swatches.
        align: numbers stand right, text left; by default the first column is text and others are numbers.
        media: renderers that draw the column.
        tooltip: meaning of the column, for those who point at its heading on a page.
        wrap: long content breaks into lines of a readable width; by default a terminal folds text where it must.
    """

    heading: Phrase
    align: Literal["left", "right"] | None = None
    media: Media = Media.ALL
    tooltip: str = ""
    wrap: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ContentBlock:
    """Base of all blocks: the renderers that draw them."""

    media: Media = Media.ALL


@dataclass(frozen=True)
class Note(ContentBlock):
    """A paragraph.

    Attributes:
        text: raw.
        kind: "text"; "hint", smaller, on how to read something; "notice", which a reader must not miss.
    """

    text: Phrase
    kind: Literal["text", "hint", "notice"] = "text"


@dataclass(frozen=True)
class Verdict(ContentBlock):
    """A judgement with what it means, what to do and what it rests on; good ones are drawn in short.

    Attributes:
        severity: how bad it is.
        title: in a few words.
        meaning: in a sentence.
        remedy: what to do; commands and names in backticks are drawn as code.
        evidence: names and values, folded on a page.
        source: where the threshold comes from.
    """

    severity: Severity
    title: str
    meaning: str
    remedy: str = ""
    evidence: Sequence[tuple[str, Phrase]] = ()
    source: str = ""


@dataclass(frozen=True)
class Chips(ContentBlock):
    """Short claims in a row, a line each in a terminal; good and bad ones bear a sign there."""

    items: Sequence[tuple[Phrase, Literal["good", "bad", ""]]]
    label: str = ""  # for those who hear the page


@dataclass(frozen=True)
class Facts(ContentBlock):
    """Names and values; `inline` draws them in one line."""

    pairs: Sequence[tuple[str, Phrase]]
    inline: bool = False


@dataclass(frozen=True)
class KeyNumber:
    """A large number: its name, its values with what each belongs to (or ""), and what a good value is."""

    name: str
    values: Sequence[tuple[str, str]]
    hint: str = ""


@dataclass(frozen=True)
class KeyNumbers(ContentBlock):
    """The few numbers that say most."""

    numbers: Sequence[KeyNumber]


@dataclass(frozen=True)
class Grid(ContentBlock):
    """A table; the first cell of a row names it.

    Attributes:
        columns: headings, or columns.
        rows: cells, or bare phrases and numbers.
        caption: above the table; a terminal writes it over the first column.
        quiet: a page does not show the caption, where the heading of the section says the same.
        search: what one may search for, e.g. "a token or an id": the page's table can be searched, sorted and paged.
        page: rows on a page of a table that can be searched.
        brief: rows in a terminal and in markdown, None for all.
    """

    columns: Sequence[GridColumn | Phrase]
    rows: Sequence[Sequence[CellContent]]
    caption: Phrase = ""
    quiet: bool = False
    search: str = ""
    page: int = 25
    brief: int | None = None

    def visible_columns(self, media: Media) -> list[tuple[int, GridColumn]]:
        """Columns that a renderer draws, with their indices in a row; their alignment is decided."""
        columns = []
        for index, item in enumerate(self.columns):
            column = item if isinstance(item, GridColumn) else GridColumn(item)
            align = column.align or ("right" if index else "left")
            if media & column.media:
                columns.append((index, replace(column, align=align)))
        return columns

    def visible_rows(self, media: Media) -> Iterator[list[GridCell]]:
        """Cells of the columns that a renderer draws, row by row."""
        indices = [index for index, _ in self.visible_columns(media)]
        for row in self.rows:
            cells = [item if isinstance(item, GridCell) else GridCell(item) for item in row]
            yield [cells[index] for index in indices]


@dataclass(frozen=True)
class Figure(ContentBlock):
    """A plot with its heading and a sentence on how to read it; pages alone draw it.

    Attributes:
        heading: a question, or what is drawn.
        reading: how to read it.
        draw: makes the plotly figure, whose texts its maker has escaped (`document.figures.label`).
        wide: over both columns of the page.
    """

    heading: Phrase
    reading: str
    draw: Callable[[], Any]
    wide: bool = False
    media: Media = field(default=Media.PAGE, kw_only=True)


@dataclass(frozen=True)
class Passage(ContentBlock):
    """A text that keeps its line breaks, with its heading and where it comes from; stands among figures."""

    heading: Phrase
    reading: str
    text: str


@dataclass(frozen=True)
class Samples(ContentBlock):
    """Prompts and their continuations."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Words(ContentBlock):
    """Tokens in a row; `more` says that there are others."""

    tokens: Sequence[str]
    more: bool = False


@dataclass(frozen=True)
class Folded(ContentBlock):
    """Blocks that a page shows on demand."""

    summary: Phrase
    blocks: Sequence[ContentBlock]
    opened: bool = False


@dataclass(frozen=True)
class Card(ContentBlock):
    """Blocks that belong together, under a heading; narrow ones stand side by side."""

    heading: Phrase
    blocks: Sequence[ContentBlock]
    narrow: bool = False


@dataclass(frozen=True)
class Section:
    """A section of a document.

    Attributes:
        name: its anchor on a page, ASCII.
        heading: raw; a terminal draws none, nor markdown where `heading_media` leaves it out.
        blocks: in order.
        lede: one sentence under the heading, on a page.
        switches: group of traces and name, for buttons before this section that switch traces in all figures after it.
        media: renderers that draw the section.
        heading_media: renderers that draw heading and lede.
    """

    name: str
    heading: str
    blocks: Sequence[ContentBlock]
    lede: str = ""
    switches: Sequence[tuple[str, Swatch]] = ()
    media: Media = Media.ALL
    heading_media: Media = Media.FILE


@dataclass(frozen=True)
class Title:
    """The head of a document.

    Attributes:
        text: the headline, raw.
        kicker: what kind of document it is, in small letters above.
        subject: name of what it is about, e.g. of a model.
        about: one line on the subject.
        severity: of the worst verdict, where the headline is one.
        tally: how much more there is to say, in short.
        card: heading in markdown where it is not the headline.
    """

    text: str
    kicker: str = ""
    subject: str = ""
    about: Phrase = ""
    severity: Severity | None = None
    tally: Phrase = ""
    card: str = ""


@dataclass(frozen=True)
class Document:
    """A whole document.

    Attributes:
        title: its head.
        sections: in order.
        window: title of the browser's window; the headline by default.
    """

    title: Title
    sections: Sequence[Section]
    window: str = ""

    def visible_sections(self, media: Media) -> list[Section]:
        """Sections that a renderer draws; in text, only those with blocks it draws."""
        return [
            section
            for section in self.sections
            if media & section.media and (media & Media.PAGE or any(media & block.media for block in section.blocks))
        ]


def visible_blocks(blocks: Sequence[ContentBlock], media: Media) -> list[ContentBlock]:
    """Blocks that a renderer draws."""
    return [block for block in blocks if media & block.media]


def arranged(blocks: Sequence[ContentBlock]) -> list[tuple[str, list[ContentBlock]]]:
    """Neighbouring blocks that stand side by side ("figures", "verdicts", "cards"), and all others alone ("")."""
    return [
        run
        for kind, members in groupby(blocks, _arrangement)
        for run in ([(kind, list(members))] if kind else [("", [block]) for block in members])
    ]


def _arrangement(block: ContentBlock) -> str:
    match block:
        case Figure() | Passage():
            return "figures"
        case Verdict(severity="good"):
            return "verdicts"
        case Card(narrow=True):
            return "cards"
    return ""


class DocumentModel(BaseModel):
    """A result that is also a document; a notebook draws it by itself.

    Example:
        >>> from decone.document.blocks import Facts, Section, Title
        >>> class Greeting(DocumentModel):
        ...     name: str
        ...     score: float
        ...
        ...     def to_document(self) -> Document:
        ...         return Document(Title(self.name), (Section("facts", "", (Facts((("score", f"{self.score}"),)),)),))
        >>> Greeting(name="<b>", score=float("nan")).to_dict()
        {'name': '<b>', 'score': None}
        >>> "&lt;b&gt;" in Greeting(name="<b>", score=1.0)._repr_html_()
        True
    """

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values, by its published names; NaN and infinity become None."""
        content: dict[str, Any] = json.loads(self.model_dump_json(by_alias=True))
        return content

    @abstractmethod
    def to_document(self) -> Document:
        """The result as blocks, which a page, a terminal and markdown draw."""

    def _repr_html_(self) -> str:
        from decone.document import html

        return html.fragment(self.to_document())
