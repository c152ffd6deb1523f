"""A comparison as GitHub-flavoured markdown: means with intervals, published numbers, every seed."""

import re
from collections.abc import Iterable, Sequence

from decone.files.foreign import visible
from decone.report.format import DASH, LANGUAGES, NOT_RUN, clear, estimate, language, number, percent, seeds, verdict
from decone.studies.table import ALIGNED, Row, Table


def render(table: Table) -> str:
    """Draws a table as markdown, ending in a newline.

    Example:
        >>> from decone.studies.table import build
        >>> print(render(build("Demo", {"mle": {}}, "best")).splitlines()[0])
        ## Demo
    """
    blocks = [f"## {_escape(table.title)}"]
    for name in dict.fromkeys(row.language for row in table.rows):
        lines = [line for row in table.rows if row.language == name for line in _lines(table, row)]
        spoken = language(name)
        blocks += [
            f"### {_escape(spoken[:1].upper() + spoken[1:])}",
            _grid(["Method", "Seeds", *(measure.heading for measure in table.measures)], lines, left=1),
        ]
    if table.alignment:
        blocks += [
            "### Alignment",
            _grid(["Method", "Runs aligned", "95 % interval", "Every seed"], _shares(table), left=4),
        ]
    every = _seeds(table)
    if every:
        blocks += ["### Every seed", _grid(_seed_headings(table), every, left=1)]
    blocks.append(_legend(table))
    blocks += [_escape(note) for note in table.notes]
    return "\n\n".join(blocks) + "\n"


def _lines(table: Table, row: Row) -> Iterable[list[str]]:
    cells = [(measure, row.cells[measure.key]) for measure in table.measures]
    values = [estimate(cell.mean, measure.digits) for measure, cell in cells]
    yield [f"**{_escape(row.label)}**", seeds(cell.mean.count for _, cell in cells), *values]
    if any(cell.published is not None for _, cell in cells):
        yield [
            "paper",
            "",
            *(DASH if cell.published is None else number(cell.published, m.digits) for m, cell in cells),
        ]
    elif table.absent:
        yield [f"paper: {table.absent}", "", *(DASH for _ in cells)]
    changes, compared = [], list[int]()
    for measure, cell in cells:
        if cell.difference is None or measure.key not in table.main:
            changes.append("")
            continue
        compared.append(cell.difference.count)
        word = verdict(measure, cell.difference)
        mark = f" **{word}**" if clear(cell.difference) else f" {word}"
        changes.append(estimate(cell.difference, measure.digits, signed=True) + mark)
    if compared:
        yield ["change", seeds(compared), *changes]


def _shares(table: Table) -> Iterable[list[str]]:
    for label in table.labels:
        found = table.alignment.get(label)
        if found is None:
            yield [_escape(label), NOT_RUN, DASH, DASH]
            continue
        aligned = sum(share > ALIGNED for share in found.seeds.values())
        every = ", ".join(f"{seed}: {percent(share)}" for seed, share in found.seeds.items())
        interval = f"{percent(found.share.low)} to {percent(found.share.high)}"
        yield [_escape(label), f"{aligned} of {len(found.seeds)}", interval, every]


def _main(table: Table) -> list[tuple[str, str, str, int]]:
    """Language, key, heading and digits of every column of the table of seeds."""
    languages = dict.fromkeys(row.language for row in table.rows)
    measures = [measure for measure in table.measures if measure.key in table.main]
    # One group that is no language, as of the development sets of tasks, need not be told from another.
    alone = len(languages) == 1 and not languages.keys() & LANGUAGES.keys()
    called = {name: "" if alone else f"{visible(name)} " for name in languages}
    return [(name, m.key, f"{called[name]}{m.heading}", m.digits) for name in languages for m in measures]


def _seed_headings(table: Table) -> list[str]:
    shares = ["Alignment"] if table.alignment else []
    return ["Method", "Seed", *(_escape(heading) for _, _, heading, _ in _main(table)), *shares]


def _seeds(table: Table) -> list[list[str]]:
    rows = {(row.label, row.language): row for row in table.rows}
    lines = []
    for label in table.labels:
        mine = [row for (owner, _), row in rows.items() if owner == label]
        shares = table.alignment[label].seeds if label in table.alignment else {}
        for seed in sorted({seed for row in mine for cell in row.cells.values() for seed in cell.seeds}):
            numbers = []
            for name, key, _, digits in _main(table):
                row = rows.get((label, name))
                value = row.cells[key].seeds.get(seed) if row else None
                numbers.append(DASH if value is None else number(value, digits))
            if table.alignment:
                numbers.append(percent(shares[seed]) if seed in shares else DASH)
            lines.append([_escape(label), str(seed), *numbers])
    return lines


def _legend(table: Table) -> str:
    said = ["± is half a 95 % interval over seeds."]
    if any(row.cells[key].difference for row in table.rows for key in table.main):
        said.append(f"Changes are paired by seed against {_escape(table.labels[0])}.")
    if table.alignment:
        said.append(
            "Alignment is the share of low-resource rows whose nearest high-resource row is their own translation; "
            f"a run counts as aligned above {percent(ALIGNED)}."
        )
    return " ".join(said)


def _grid(headings: Sequence[str], lines: Iterable[Sequence[str]], left: int) -> str:
    rule = [":--"] * left + ["--:"] * (len(headings) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in [headings, rule, *lines])


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~#&])", r"\\\1", visible(text))
