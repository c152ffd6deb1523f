"""A document as GitHub-flavoured markdown; foreign strings are escaped, so that no reader obeys them."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from decone.document.blocks import (
    SYMBOLS,
    Card,
    Chips,
    Code,
    ContentBlock,
    Document,
    Facts,
    Folded,
    Grid,
    GridCell,
    KeyNumbers,
    Media,
    Note,
    Passage,
    Phrase,
    Samples,
    Styled,
    Swatch,
    Title,
    Token,
    Verdict,
    Words,
    commands,
    spans,
    visible_blocks,
)
from decone.files.foreign import markdown_code, markdown_text, token_label

STRONG = ("strong", "mark", "good", "bad")


def render(document: Document) -> str:
    r"""The document as markdown, ending in a newline.

    Example:
        >>> from decone.document.blocks import Note, Section, Title
        >>> print(render(Document(Title("<m>"), (Section("notes", "Notes", (Note("a | b"),)),))), end="")
        ## \<m\>
        <BLANKLINE>
        ### Notes
        <BLANKLINE>
        a \| b
    """
    paragraphs = list(_title(document.title))
    for section in document.visible_sections(Media.MARKDOWN):
        if section.heading and section.heading_media & Media.MARKDOWN:
            paragraphs.append(f"### {markdown_text(section.heading)}")
        paragraphs += _blocks(section.blocks)
    return "\n\n".join(paragraphs) + "\n"


def text(phrase: Phrase) -> str:
    """A phrase as inline markdown."""
    return "".join(map(_span, spans(phrase)))


def _span(span: object) -> str:
    match span:
        case Code():
            return markdown_code(span.text, 400)
        case Token():
            return markdown_code(token_label(span.text, span.limit))
        case Styled(emphasis="mono"):
            return markdown_code(span.text)
        case Styled():
            return (
                f"**{markdown_text(span.text)}**" if span.emphasis in STRONG and span.text else markdown_text(span.text)
            )
        case Swatch():
            return markdown_code(span.text) if span.mono else markdown_text(span.text)
    return markdown_text(span)


def _title(title: Title) -> Iterator[str]:
    tally = f" {text(title.tally)}" if title.tally else ""
    if title.card:
        yield f"## {markdown_text(title.card)}"
        sign = f"{SYMBOLS[title.severity]} " if title.severity else ""
        yield f"**{sign}{markdown_text(title.text)}**{tally}"
        return
    yield f"## {markdown_text(title.text)}"
    lines = [markdown_code(title.subject) if title.subject else "", text(title.about), tally.strip()]
    if any(lines):
        yield " ".join(line for line in lines if line)


def _blocks(blocks: Sequence[ContentBlock]) -> Iterator[str]:
    for verdicts, members in groupby(visible_blocks(blocks, Media.MARKDOWN), lambda block: isinstance(block, Verdict)):
        paragraphs = [paragraph for block in members for paragraph in _block(block)]
        if verdicts:
            yield "\n".join(paragraphs)
        else:
            yield from paragraphs


def _block(block: ContentBlock) -> Iterator[str]:
    match block:
        case Note():
            yield f"> {text(block.text)}" if block.kind == "notice" else text(block.text)
        case Verdict():
            yield _verdict(block)
        case Chips():
            yield "\n".join(f"- {text(phrase)}" for phrase, _ in block.items)
        case Facts(inline=True):
            yield " · ".join(f"{markdown_text(name)} **{text(value)}**" for name, value in block.pairs)
        case Facts():
            yield "\n".join(f"- {markdown_text(name)}: {text(value)}" for name, value in block.pairs)
        case KeyNumbers():
            rows = [[markdown_text(key.name), _values(key.values), markdown_text(key.hint)] for key in block.numbers]
            yield table(["Measure", "Value", "How to read it"], [":--", "--:", ":--"], rows)
        case Grid():
            yield from _grid(block)
        case Passage():
            yield f"{_heading(block.heading)} {markdown_text(block.reading)}".strip()
            yield "> " + "\\\n> ".join(markdown_text(line) for line in block.text.split("\n"))
        case Samples():
            yield "\n".join(f"- {markdown_text(prompt)} **{markdown_text(answer)}**" for prompt, answer in block.pairs)
        case Words():
            yield " ".join(markdown_code(token_label(token)) for token in block.tokens) + (" …" if block.more else "")
        case Folded() | Card():
            yield _heading(block.summary if isinstance(block, Folded) else block.heading)
            yield from _blocks(block.blocks)
        case _:
            raise TypeError(f"markdown cannot draw {type(block).__name__}")


def _heading(phrase: Phrase) -> str:
    """A phrase in bold, unless one of its spans is already."""
    line = text(phrase)
    return line if any(isinstance(span, Styled) for span in spans(phrase)) else f"**{line}**"


def _verdict(verdict: Verdict) -> str:
    line = f"- {SYMBOLS[verdict.severity]} **{verdict.severity}** {markdown_text(verdict.title, 200)}"
    line += f": {markdown_text(verdict.meaning)}" if verdict.meaning else ""
    if verdict.remedy and verdict.severity != "good":
        line += f" *What to do:* {text(commands(verdict.remedy[:2000]))}"
    return line


def _values(values: Sequence[tuple[str, str]]) -> str:
    return " / ".join(markdown_text(value) + (f" ({markdown_text(owner)})" if owner else "") for owner, value in values)


def _grid(block: Grid) -> Iterator[str]:
    columns = [column for _, column in block.visible_columns(Media.MARKDOWN)]
    if block.caption:
        yield _heading(block.caption)
    rules = ["--:" if column.align == "right" else ":--" for column in columns]
    rows = list(block.visible_rows(Media.MARKDOWN))
    yield table(
        [text(column.heading) for column in columns], rules, [list(map(_cell, row)) for row in rows[: block.brief]]
    )
    remaining = len(rows) - len(rows[: block.brief])
    if remaining:
        yield f"and {remaining:,} more"


def _cell(cell: GridCell) -> str:
    return "<br>".join(map(text, (cell.phrase, *cell.below)))


def table(headings: Sequence[str], rules: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are markdown already."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [headings, rules, *rows])
