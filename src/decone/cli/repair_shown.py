"""Repairs in a terminal. Every foreign string is a `Text`, whose markup rich does not read, its signs made visible."""

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from decone.document.numbers import DASH
from decone.files.foreign import terminal_text, token_label
from decone.repair.result import Compared, DeltaFacts, Geometry, Report, TableReport, Written

SIGNS, NEAR = 20, 3  # of a token; neighbours shown
LISTED = 8  # files
HELD = ("held_out", "frozen")  # scores of rows that were not learned from, and those of the model before training
SCORES = {"tokens": "tokens", "r2": "R2 against the mean row", "cosine": "cosine with the row"}
SCORES |= {"norm_ratio": "length of the row", "nearest": "own row nearest", "top10": "own row among 10 nearest"}
SCORES |= {"median_rank": "median rank of the own row", "unrelated": "rows unrelated to definitions"}
NAMES = {"isotropy": "I(W)", "isotropy_plus_minus": "I(W), both signs", "mean_cosine": "mean cosine"}
NAMES |= {"mean_direction": "mean direction", "effective_rank": "effective rank"}


def report(found: Report) -> RenderableType:
    """What a repair does to the tables of a model."""
    head = Text.assemble(
        (terminal_text(found.model, 200), "bold"), f"  {found.method}  ", (_pairs(found.settings), "dim")
    )
    pieces: list[RenderableType] = [head]
    for table in found.tables:
        pieces += [Text(), *_table(table, found.found.get(table.role, {}))]
    pieces += [Text(), *_notes(found.notes)] if found.notes else []
    last = (
        "a dry run: nothing was written"
        if found.delta is None
        else f"{terminal_text(found.delta)}, {found.bytes:,} bytes"
    )
    return Group(*pieces, Text(), Text(last))


def facts(found: DeltaFacts, path: Path) -> RenderableType:
    """What a delta says of itself."""
    pieces: list[RenderableType] = [
        Text.assemble(
            (terminal_text(path, 200), "bold"),
            f"  {terminal_text(found.method, 60)} for ",
            (terminal_text(found.model, 200), "bold"),
        ),
        Text(_pairs(found.settings), style="dim"),
    ]
    for table in found.tables:
        names = ", ".join(terminal_text(name, 100) for name in table.tensors)
        pieces.append(
            Text(
                f"{table.changed:,} of {table.shape[0]:,} rows × {table.shape[1]} {terminal_text(table.dtype)}: {names}"
            )
        )
        pieces.append(Text(f"  before {table.before}\n  after  {table.after}", style="dim"))
    for role, values in found.found.items():
        pieces.append(
            Text(
                f"{terminal_text(role, 60)}: {_pairs(values) if isinstance(values, dict) else terminal_text(values)}",
                style="dim",
            )
        )
    return Group(
        *pieces,
        *_notes(found.notes),
        Text(f"decone {terminal_text(found.decone, 40)}, {terminal_text(found.date, 40)}", style="dim"),
    )


def written(found: Written) -> RenderableType:
    """Which files a checkpoint was made of."""
    pieces: list[RenderableType] = [Text(terminal_text(found.folder, 200), style="bold")]
    for verb, names in (("rewritten", found.rewritten), ("copied", found.copied), ("linked", found.linked)):
        if names:
            more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
            pieces.append(Text(f"{verb}: {', '.join(terminal_text(name, 100) for name in names[:LISTED])}{more}"))
    return Group(*pieces, *_notes(found.notes))


def _table(table: TableReport, found: dict[str, Any]) -> list[RenderableType]:
    size = f"{table.changed:,} of {table.shape[0]:,} rows × {table.shape[1]} {table.dtype} change"
    pieces: list[RenderableType] = [
        Text.assemble((", ".join(terminal_text(name, 100) for name in table.tensors), "bold"), f"  {size}"),
        Text(_pairs({key: value for key, value in found.items() if key not in HELD}), style="dim"),
    ]
    if HELD[0] in found:
        pieces += [Text(), _held_out({key: found[key] for key in HELD if key in found})]
    for name, compared in table.groups.items():
        pieces += [Text(), _geometry(f"{name} {compared.before.rows:,}", compared)]
        ratio = DASH if compared.norm_ratio is None else f"{compared.norm_ratio:.3f}"
        pieces.append(
            Text(
                f"cosine of a row with its old one {compared.cosine:.3f}, length {ratio} of the old; control: the "
                "original rows at the repaired lengths, for I(W) rises by mere shrinkage",
                style="dim",
            )
        )
    return [*pieces, Text(), _tokens(table)] if table.tokens else pieces


def _geometry(name: str, compared: Compared) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text(name, style="bold underline"), min_width=20)
    for heading in ("before", "after", "control"):
        grid.add_column(heading, justify="right", no_wrap=True, header_style="dim")
    columns = (compared.before, compared.after, compared.control)
    for key, heading in NAMES.items():
        grid.add_row(heading, *(_number(getattr(column, key)) for column in columns))
    for key in compared.before.norms:
        heading = "mean norm" if key == "mean" else f"norm, {float(key):.0%} of rows"
        if key in ("mean", "0.05", "0.5", "0.95"):
            grid.add_row(heading, *(_number(_norm(column, key)) for column in columns))
    return grid


def _held_out(found: dict[str, Any]) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text("rows that were not learned from", style="bold underline"), min_width=20)
    for key in found:
        grid.add_column(key.replace("_", " "), justify="right", no_wrap=True, header_style="dim")
    for key, heading in SCORES.items():
        grid.add_row(heading, *(_score(scores.get(key)) for scores in found.values()))
    return grid


def _score(value: Any) -> str:
    if isinstance(value, list):
        mean, low, high = value
        return f"{mean:.3f} ({low:.3f} to {high:.3f})"
    return f"{value:,}" if isinstance(value, int) else DASH if value is None else f"{value:.3f}"


def _norm(column: Geometry, key: str) -> float:
    return column.norms[key]


def _tokens(table: TableReport) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text("token", style="bold underline"), no_wrap=True)
    for heading in ("id", "norm", "after", "cosine"):
        grid.add_column(heading, justify="right", no_wrap=True, header_style="dim")
    for heading in ("neighbours before", "after"):
        grid.add_column(heading, overflow="fold", header_style="dim")
    for token in table.tokens:
        near = (token.neighbours_before, token.neighbours_after)
        lists = [Text(" ".join(token_label(other.token, SIGNS) for other in part[:NEAR])) for part in near]
        numbers = (str(token.id), f"{token.norm_before:.3f}", f"{token.norm_after:.3f}", f"{token.cosine:.3f}")
        grid.add_row(Text(token_label(token.token, SIGNS)), *numbers, *lists)
    return grid


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def _pairs(values: dict[str, Any]) -> str:
    def said(value: Any) -> str:
        if isinstance(value, list):
            return " ".join(said(part) for part in value)
        return f"{value:.4g}" if isinstance(value, float) else terminal_text(value, 200)

    return ", ".join(f"{terminal_text(key, 60)} {said(value)}" for key, value in values.items() if value is not None)


def _notes(notes: list[str]) -> list[RenderableType]:
    return [Text(terminal_text(note), style="dim") for note in notes]
