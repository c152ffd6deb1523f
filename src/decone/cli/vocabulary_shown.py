"""Grown and trimmed vocabularies in a terminal. Every foreign string is a `Text`, its signs made visible."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from decone.files.foreign import join_names, terminal_text, token_label
from decone.repair.vocabulary.result import (
    Divergence,
    GrowthReport,
    NewToken,
    ResizedTable,
    RowNorms,
    TrimReport,
    WrittenFiles,
)

SIGNS, NEAR = 20, 3  # of a token; neighbours shown
LISTED = 8  # files


def grown(found: GrowthReport) -> RenderableType:
    """What growing did to a model."""
    pieces: list[RenderableType] = [
        _head(found.model, found.settings),
        Text(
            f"{found.added:,} new tokens, {found.in_padding:,} of them in rows that were free; tokens "
            f"{found.tokens_before:,} → {found.tokens_after:,}, rows {found.rows_before:,} → {found.rows_after:,}"
        ),
        Text(),
        _norms(found.norms),
    ]
    if found.tokens:
        pieces += [Text(), _tokens(found.tokens)]
    if found.divergence is not None:
        pieces += [Text(), _divergence(found.divergence)]
    return Group(*pieces, *_ended(found.tables, found.notes, found.written))


def trimmed(found: TrimReport) -> RenderableType:
    """What trimming did to a model."""
    share = 1 - found.rows_after / found.rows_before
    reasons = ", ".join(f"{reason} {number:,}" for reason, number in found.retained.items() if number)
    pieces: list[RenderableType] = [
        _head(found.model, found.settings),
        Text(
            f"tokens {found.tokens_before:,} → {found.tokens_after:,}, rows {found.rows_before:,} → "
            f"{found.rows_after:,}: {share:.0%} less, {found.bytes_of_rows:,} bytes"
        ),
        Text(f"stay: {reasons}"),
        Text(f"{found.checked:,} tokens of text are cut as before"),
    ]
    if found.dropped:
        pieces.append(
            Text("go, among others: " + " ".join(token_label(token, SIGNS) for token in found.dropped), style="dim")
        )
    return Group(*pieces, *_ended(found.tables, found.notes, found.written))


def _head(model: str, settings: Mapping[str, Any]) -> Text:
    chosen = ((key, value) for key, value in settings.items() if value not in (None, [], False))
    said = ", ".join(
        f"{key} {join_names(value) if isinstance(value, list) else terminal_text(value, 60)}" for key, value in chosen
    )
    return Text.assemble((terminal_text(model, 200), "bold"), "  ", (said, "dim"))


def _norms(norms: Sequence[RowNorms]) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text("lengths of rows", style="bold underline"), overflow="fold")
    columns = ("mean", "0.05", "0.5", "0.95")
    for heading in ("mean", "5%", "50%", "95%"):
        grid.add_column(heading, justify="right", no_wrap=True, header_style="dim")
    for part in norms:
        for name, values in (("old", part.old), ("new", part.new)):
            label = f"{name}, {', '.join(terminal_text(tensor, 60) for tensor in part.tensors)}"
            grid.add_row(Text(label), *(f"{values[key]:.4g}" for key in columns))
    return grid


def _tokens(tokens: Sequence[NewToken]) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text("new token", style="bold underline"), no_wrap=True)
    for heading in ("id", "length"):
        grid.add_column(heading, justify="right", no_wrap=True, header_style="dim")
    for heading in ("pieces before", "nearest tokens"):
        grid.add_column(heading, overflow="fold", header_style="dim")
    for token in tokens:
        cut = Text(" ".join(token_label(piece, SIGNS) for piece in token.pieces[:LISTED]))
        near = Text(" ".join(token_label(other.token, SIGNS) for other in token.neighbours[:NEAR]))
        grid.add_row(Text(token_label(token.token, SIGNS)), str(token.id), f"{token.norm:.4g}", cut, near)
    return grid


def _divergence(found: Divergence) -> Text:
    change = "bit for bit the same" if found.largest_change == 0 else f"changed by up to {found.largest_change:.3g}"
    return Text(
        f"outputs on {terminal_text(found.text, 60)}, {found.positions:,} predictions: logits of old tokens {change}; "
        f"KL over them {found.kl_mean:.3g} nats, at most {found.kl_max:.3g}; new tokens get {found.mass_mean:.3g} "
        f"of the probability, at most {found.mass_max:.3g}"
    )


def _ended(tables: Sequence[ResizedTable], notes: Sequence[str], files: WrittenFiles | None) -> list[RenderableType]:
    """Tensors, notes and files, as every report ends."""
    pieces: list[RenderableType] = [Text()] if tables else []
    for table in tables:
        tensors = ", ".join(terminal_text(name, 100) for name in table.tensors)
        pieces.append(Text(f"{tensors} {table.dtype} {table.shape_before} → {table.shape_after}", style="dim"))
    pieces += [Text(terminal_text(note), style="dim") for note in notes]
    if files is None:
        return [*pieces, Text(), Text("a dry run: nothing was written")]
    pieces += [Text(), Text(terminal_text(files.folder, 200), style="bold")]
    for verb, names in (("written", files.rewritten), ("copied", files.copied), ("linked", files.linked)):
        if names:
            more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
            pieces.append(Text(f"{verb}: {', '.join(terminal_text(name, 100) for name in names[:LISTED])}{more}"))
    return pieces
