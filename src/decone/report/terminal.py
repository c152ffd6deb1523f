"""A comparison in a terminal, readable at 100 columns: one block per language, then alignment."""

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from decone.files.foreign import visible
from decone.report.format import DASH, clear, half, language, number, percent, seeds, verdict
from decone.studies.table import ALIGNED, Row, Table

STYLES = {"better": "green", "worse": "red"}


def render(table: Table) -> RenderableType:
    """Draws a table for a rich console.

    Below a method's means stand, each on its own line: half-widths of the 95 % intervals, the published numbers, and
    for the main measures the paired change against the first method, with a star where its interval excludes 0.

    Example:
        >>> from decone.studies.table import build
        >>> from rich.console import Console
        >>> console = Console(width=100)
        >>> with console.capture() as shown:
        ...     console.print(render(build("Demo", {"mle": {}}, "best")))
        >>> "not run" in shown.get()
        True
    """
    parts: list[RenderableType] = [Text(visible(table.title), style="bold")]
    for name in dict.fromkeys(row.language for row in table.rows):
        parts += [Text(), _block(table, name)]
    if table.alignment:
        parts += [Text(), _alignment(table)]
    parts += [Text(), Text(_legend(table), style="dim")]
    parts += [Text(visible(note), style="dim") for note in table.notes]
    return Group(*parts)


def _block(table: Table, name: str) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column(Text(_capital(language(name)), style="bold underline"), overflow="fold", min_width=20)
    grid.add_column("n", justify="right", no_wrap=True, header_style="dim")
    for measure in table.measures:
        grid.add_column(measure.heading, justify="right", no_wrap=True, header_style="dim")
    for row in table.rows:
        if row.language == name:
            for cells in _lines(table, row):
                grid.add_row(*cells)
    return grid


def _lines(table: Table, row: Row) -> list[list[Text]]:
    cells = [(measure, row.cells[measure.key]) for measure in table.measures]
    runs = [cell.mean.count for _, cell in cells]
    values = [Text(number(cell.mean.mean, measure.digits), style="bold") for measure, cell in cells]
    lines = [[Text(visible(row.label), style="bold"), Text(seeds(runs), style="dim"), *values]]
    dim = "dim"
    if max(runs) > 1:
        lines.append(_line("  ± 95 %", [Text(half(cell.mean, measure.digits), style=dim) for measure, cell in cells]))
    if any(cell.published is not None for _, cell in cells):
        numbers = [DASH if cell.published is None else number(cell.published, m.digits) for m, cell in cells]
        lines.append(_line("  paper", [Text(text, style=dim) for text in numbers]))
    elif table.absent:
        lines.append(_line(f"  paper: {table.absent}", [Text(DASH, style=dim) for _ in cells]))
    changes, reaches, compared = [], [], list[int]()
    for measure, cell in cells:
        difference = cell.difference if measure.key in table.main else None
        if difference is None:
            changes.append(Text())
            reaches.append(Text())
            continue
        compared.append(difference.count)
        star = "*" if clear(difference) else " "
        style = STYLES.get(verdict(measure, difference), "")
        changes.append(Text(number(difference.mean, measure.digits, signed=True) + star, style=style))
        reaches.append(Text(half(difference, measure.digits) + " ", style=dim))
    if compared:
        lines.append(_line("  change", changes, seeds(compared)))
    if compared and max(compared) > 1:
        lines.append(_line("  ± 95 %", reaches))
    return lines


def _line(heading: str, cells: list[Text], runs: str = "") -> list[Text]:
    return [Text(heading, style="dim"), Text(runs, style="dim"), *cells]


def _alignment(table: Table) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text("Alignment", style="bold underline"), overflow="fold", max_width=36)
    grid.add_column("runs aligned", no_wrap=True, header_style="dim")
    grid.add_column("every seed's share", overflow="fold", header_style="dim")
    for label in table.labels:
        found = table.alignment.get(label)
        if found is None:
            grid.add_row(Text(visible(label), style="bold"), Text(DASH), Text())
            continue
        aligned = sum(share > ALIGNED for share in found.seeds.values())
        interval = f"[{percent(found.share.low)}, {percent(found.share.high)}]"
        every = "  ".join(f"{seed}:\N{NO-BREAK SPACE}{100 * share:.0f}%" for seed, share in found.seeds.items())
        grid.add_row(Text(visible(label), style="bold"), Text(f"{aligned}/{len(found.seeds)}  {interval}"), Text(every))
    return grid


def _legend(table: Table) -> str:
    said = ["n seeds; ± is half a 95 % interval over seeds."]
    if any(row.cells[key].difference for row in table.rows for key in table.main):
        said.append(
            f"change: mean difference to {visible(table.labels[0])}, paired by seed; * its interval excludes 0."
        )
    if table.alignment:
        said.append(
            "Alignment: share of low-resource rows whose nearest high-resource row is their own translation; "
            f"a run counts as aligned above {percent(ALIGNED)}."
        )
    return " ".join(said)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
