"""Grown and trimmed vocabularies in a terminal. Every foreign string is a `Text`, its signs made visible."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from decone.repair.vocabulary_result import Divergence, Grown, NewToken, Norms, TableFacts, Written
from decone.report.scan_strings import plain, shown

SIGNS, NEAR = 20, 3  # of a token; neighbours shown
LISTED = 8  # files


def grown(found: Grown) -> RenderableType:
    """What growing did to a model."""
    chosen = ", ".join(f"{key} {plain(value, 60)}" for key, value in found.settings.items() if value not in (None, []))
    pieces: list[RenderableType] = [
        Text.assemble((plain(found.model, 200), "bold"), "  ", (chosen, "dim")),
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


def _norms(norms: Sequence[Norms]) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text("lengths of rows", style="bold underline"), overflow="fold")
    columns = ("mean", "0.05", "0.5", "0.95")
    for heading in ("mean", "5%", "50%", "95%"):
        grid.add_column(heading, justify="right", no_wrap=True, header_style="dim")
    for part in norms:
        for name, values in (("old", part.old), ("new", part.new)):
            label = f"{name}, {', '.join(plain(tensor, 60) for tensor in part.tensors)}"
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
        cut = Text(" ".join(shown(piece, SIGNS) for piece in token.pieces[:LISTED]))
        near = Text(" ".join(shown(other.token, SIGNS) for other in token.neighbours[:NEAR]))
        grid.add_row(Text(shown(token.token, SIGNS)), str(token.id), f"{token.norm:.4g}", cut, near)
    return grid


def _divergence(found: Divergence) -> Text:
    change = "bit for bit the same" if found.largest_change == 0 else f"changed by up to {found.largest_change:.3g}"
    return Text(
        f"outputs on {plain(found.text, 60)}, {found.positions:,} predictions: logits of old tokens {change}; KL over "
        f"them {found.kl_mean:.3g} nats, at most {found.kl_max:.3g}; new tokens get {found.mass_mean:.3g} of the "
        f"probability, at most {found.mass_max:.3g}"
    )


def _ended(tables: Sequence[TableFacts], notes: Sequence[str], files: Written | None) -> list[RenderableType]:
    """Tensors, notes and files, as every report ends."""
    pieces: list[RenderableType] = [Text()] if tables else []
    for table in tables:
        tensors = ", ".join(plain(name, 100) for name in table.tensors)
        pieces.append(Text(f"{tensors} {table.dtype} {table.shape_before} → {table.shape_after}", style="dim"))
    pieces += [Text(plain(note), style="dim") for note in notes]
    if files is None:
        return [*pieces, Text(), Text("a dry run: nothing was written")]
    pieces += [Text(), Text(plain(files.folder, 200), style="bold")]
    for verb, names in (("written", files.rewritten), ("copied", files.copied), ("linked", files.linked)):
        if names:
            more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
            pieces.append(Text(f"{verb}: {', '.join(plain(name, 100) for name in names[:LISTED])}{more}"))
    return pieces
