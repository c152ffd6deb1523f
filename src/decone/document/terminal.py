"""A document in a terminal: made for 80 columns, complete without colour. Every string is a `Text`, never markup."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

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
    Severity,
    Styled,
    Swatch,
    Title,
    Token,
    Verdict,
    Words,
    arranged,
    spans,
    visible_blocks,
)
from decone.document.blocks import commands as with_code
from decone.files.foreign import terminal_text, token_label

STYLES: dict[Severity, str] = {"serious": "bold red", "warning": "yellow", "note": "blue", "good": "green"}
EMPHASES = {"strong": "bold", "dim": "dim", "mono": "", "mark": "bold", "good": "green", "bad": "red"}
CHIPS = {"good": ("✓ ", "green"), "bad": ("✗ ", "bold red"), "": ("", "")}
TOKEN = 24  # characters of a token
NAME = 200  # characters of a name
WIDE = 8  # columns beyond which a table stands closer


def render(document: Document) -> RenderableType:
    r"""The document for a rich console.

    Example:
        >>> from decone.document.blocks import Note, Section, Title
        >>> from rich.console import Console
        >>> console = Console(width=80)
        >>> with console.capture() as capture:
        ...     console.print(render(Document(Title("[b]x"), (Section("notes", "", (Note("a"),)),))))
        >>> capture.get()
        '[b]x\n\na\n'
    """
    elements: list[RenderableType] = [_title(document.title)]
    for section in document.visible_sections(Media.TERMINAL):
        elements += [Text(), *_blocks(section.blocks)]
    return Group(*elements)


def text(phrase: Phrase, style: str = "") -> Text:
    """A phrase as text, whose markup rich does not read."""
    line = Text(style=style)
    for span in spans(phrase):
        match span:
            case str():
                line.append(terminal_text(span))
            case Code():
                line.append(terminal_text(span.text, 400), style="bold")
            case Token():
                line.append(token_label(span.text, min(span.limit, TOKEN)))
            case Styled():
                line.append(terminal_text(span.text), style=EMPHASES[span.emphasis])
            case Swatch():
                line.append(terminal_text(span.text, NAME))
    return line


def _title(title: Title) -> Text:
    head = Text(terminal_text(title.subject or title.text, NAME), style="bold")
    if title.about:
        head = Text.assemble(head, "  ", text(title.about, "dim"))
    if title.subject:
        sign = f"{SYMBOLS[title.severity]} " if title.severity else ""
        style = STYLES[title.severity] if title.severity else "bold"
        head = Text.assemble(head, "\n", (f"{sign}{terminal_text(title.text)}", style))
    return Text.assemble(head, "  ", text(title.tally, "dim")) if title.tally else head


def _blocks(blocks: Sequence[ContentBlock]) -> Iterator[RenderableType]:
    """Blocks with an empty line between those that have several lines."""
    previous = ""
    for arrangement, members in arranged(visible_blocks(blocks, Media.TERMINAL)):
        elements: list[RenderableType] = (
            [_good(members)] if arrangement == "verdicts" else [line for block in members for line in _block(block)]
        )
        kind = "line" if isinstance(members[0], Note | Chips) or _is_line(members[0]) else "block"
        if previous and (previous == "block" or kind == "block") and not _follows(members[0]):
            yield Text()
        yield from elements
        previous = kind


def _is_line(block: ContentBlock) -> bool:
    return isinstance(block, Facts) and block.inline


def _follows(block: ContentBlock) -> bool:
    """True for a line about the block before it."""
    return _is_line(block) or (isinstance(block, Note) and block.kind == "hint")


def _block(block: ContentBlock) -> Iterator[RenderableType]:
    match block:
        case Note():
            yield text(block.text, "" if block.kind == "text" else "dim")
        case Verdict():
            yield from _verdict(block)
        case Chips():
            for phrase, tone in block.items:
                sign, style = CHIPS[tone]
                yield Text.assemble((sign, style), text(phrase))
        case Facts(inline=True):
            yield _inline_facts(block)
        case Facts():
            yield _pairs([(name, text(value)) for name, value in block.pairs])
        case KeyNumbers():
            yield _key_numbers(block)
        case Grid():
            yield _grid(block)
        case Passage():
            yield Text.assemble(text(block.heading, "bold"), f"  {terminal_text(block.reading)}")
            yield Padding(Text("\n".join(map(terminal_text, block.text.split("\n")))), (0, 0, 0, 2), expand=False)
        case Samples():
            for prompt, continuation in block.pairs:
                yield Text.assemble((terminal_text(prompt), "dim"), " ", terminal_text(continuation))
        case Words():
            yield Text(" ".join(token_label(token, TOKEN) for token in block.tokens) + (" …" if block.more else ""))
        case Folded():
            yield text(block.summary, "bold underline")
            yield from _blocks(block.blocks)
        case Card():
            yield text(block.heading, "bold")
            yield Padding(Group(*_blocks(block.blocks)), (0, 0, 0, 2), expand=False)
        case _:
            raise TypeError(f"a terminal cannot draw {type(block).__name__}")


def _verdict(verdict: Verdict) -> Iterator[RenderableType]:
    style = STYLES[verdict.severity]
    yield Text(f"{SYMBOLS[verdict.severity]} {verdict.severity}: {terminal_text(verdict.title, 120)}", style=style)
    yield Padding(Text(terminal_text(verdict.meaning)), (0, 0, 0, 2), expand=False)
    if verdict.remedy:
        remedy = Text.assemble(("→ ", style), text(with_code(verdict.remedy[:2000])))
        yield Padding(remedy, (0, 0, 0, 2), expand=False)


def _good(verdicts: Sequence[ContentBlock]) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    for verdict in verdicts:
        if isinstance(verdict, Verdict):
            title = (f"{terminal_text(verdict.title, 120)}. ", STYLES["good"])
            grid.add_row(
                Text(SYMBOLS["good"], style=STYLES["good"]),
                Text.assemble(title, (terminal_text(verdict.meaning), "dim")),
            )
    return grid


def _inline_facts(facts: Facts) -> Text:
    line = Text(style="dim")
    for index, (name, value) in enumerate(facts.pairs):
        line.append(f"{' · ' if index else ''}{terminal_text(name)} ")
        line.append_text(text(value))
    return line


def _pairs(pairs: Sequence[tuple[str, Text]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(terminal_text(name, 60), style="dim"), value)
    return grid


def _key_numbers(block: KeyNumbers) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for wrap in (False, False, True):
        grid.add_column(no_wrap=not wrap)
    for key in block.numbers:
        values = " / ".join(f"{value} {owner}".strip() for owner, value in key.values)
        grid.add_row(
            Text(terminal_text(key.name)), Text(terminal_text(values)), Text(terminal_text(key.hint), style="dim")
        )
    return grid


def _grid(block: Grid) -> Table:
    columns = block.visible_columns(Media.TERMINAL)
    grid = Table(box=None, pad_edge=False, padding=(0, 2 if len(columns) <= WIDE else 1, 0, 0))
    for index, (_, column) in enumerate(columns):
        heading = text(block.caption or column.heading if index == 0 else column.heading)
        wrap = column.align == "left" if column.wrap is None else column.wrap
        grid.add_column(
            heading,
            justify=column.align or "left",
            no_wrap=not wrap,
            overflow="fold",
            min_width=10 if index == 0 else None,
            max_width=40 if index == 0 and wrap else None,
            header_style="bold underline" if index == 0 else "dim",
        )
    rows = list(block.visible_rows(Media.TERMINAL))
    for cells in rows[: block.brief]:
        grid.add_row(*map(_cell, cells))
    remaining = len(rows) - len(rows[: block.brief])
    if remaining:
        grid.add_row(Text(f"and {remaining:,} more", style="dim"))
    return grid


def _cell(cell: GridCell) -> Text:
    return Text("\n").join([text(cell.phrase), *(text(line, "dim") for line in cell.below)])
