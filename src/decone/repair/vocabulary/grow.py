"""A model with new tokens: the old rows stay byte for byte, the new ones are made from them.

New tokens take rows of the tables that no token has yet, and only then make them longer. Rows that are left for
padding get the mean of the trained ones, so that no logit of theirs stands out.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from decone.data.corpora import read_text
from decone.files.atomic import require_vacant
from decone.files.foreign import join_names, plain
from decone.files.safetensors import DTYPES
from decone.metrics.norms import row_norms
from decone.metrics.row_change import nearest_rows
from decone.models.find_tables import find_tables
from decone.models.tables import ModelTables, Table, blocks
from decone.repair.measure import NEIGHBOURS, QUANTILES, SHOWN
from decone.repair.result import Neighbour
from decone.repair.surfaces import surfaces
from decone.repair.vocabulary.check import KINDS, divergence
from decone.repair.vocabulary.config_ids import language, resized
from decone.repair.vocabulary.initialisations import Initialisation, Made, Wanted, find, trained_mean
from decone.repair.vocabulary.result import (
    GROWN,
    IDS,
    NAME,
    Divergence,
    Grown,
    NewToken,
    Norms,
    TableFacts,
    content,
    read_history,
    step,
)
from decone.repair.vocabulary.tensors import Vocabulary, vocabulary
from decone.repair.vocabulary.tokenizer import Match, encoded, grown_files, opened, read_parts, sort_out, unknown_ids
from decone.repair.vocabulary.write import Layout, Resized, file_list, resize

Progress = Callable[[str, int, int], None]


_UNTRAINED = ("special", "unused", "padding")  # kinds of surfaces


@dataclass(frozen=True)
class Growth:
    """What is to be added to a model, before anything is written.

    Attributes:
        model: the source.
        tokens: new ones.
        ids: where they go.
        pieces: ids that the old tokenizer cuts each of them into, without unknown ones.
        cut: the same pieces as strings, unknown ones too.
        ordinary: rows of old tokens that are neither special nor kept free by name, [V].
        layout: of the new tables.
        vocabulary: the old one, ids by token.
        files: of the tokenizer, by name.
        notes: what a user must know.
    """

    model: Vocabulary
    tokens: list[str]
    ids: list[int]
    pieces: list[list[int]]
    cut: list[list[str]]
    ordinary: Bool[Tensor, " V"]
    layout: Layout
    vocabulary: dict[str, int]
    files: dict[str, bytes]
    notes: list[str]

    @property
    def in_padding(self) -> int:
        """New tokens in rows that the tables have already."""
        return sum(index < self.model.rows for index in self.ids)

    def trained(self, table: Table) -> Bool[Tensor, " V"]:
        """Rows of a table that new ones can be made from: of ordinary tokens, finite, and not zero."""
        usable = [torch.isfinite(block).all(1) & block.any(1) for _, block in blocks(table)]
        return self.ordinary & torch.cat(usable)


def plan_growth(
    model_tables: ModelTables,
    tokens: Iterable[str],
    multiple: int | None = None,
    match: Match = "word",
    leave: Collection[str] = (),
) -> Growth:
    """Finds ids for new tokens: rows that no token has first, then rows behind the table.

    Args:
        model_tables: the model.
        tokens: to add.
        multiple: the number of rows becomes one of it.
        match: as in `new_tokens.grown_files`.
        leave: as in `by_token.vocabulary`.

    Raises:
        ValueError: the model's vocabulary cannot be changed, or no token is new, or the tokenizer cannot take one.
    """
    if multiple is not None and multiple < 1:
        raise ValueError(f"--multiple {multiple}; take at least 1, e.g. 64")
    model = vocabulary(model_tables, leave)
    _require_room(model)
    parts = read_parts(model.folder)
    tokenizer = opened(parts, model.folder)
    unknown = unknown_ids(parts, tokenizer)
    new = sort_out(tokens, tokenizer, unknown)
    files, ids = grown_files(model.folder, parts, new.tokens, match)
    rows = max(model.rows, max(ids) + 1)
    rows = rows if multiple is None else -(-rows // multiple) * multiple
    origin = torch.full((rows,), -1)
    origin[: model.rows] = torch.arange(model.rows)
    origin[torch.tensor(ids)] = -1
    cut = encoded(tokenizer, new.tokens)
    pieces = [[index for index in each.ids if index not in unknown] for each in cut]
    notes = new.notes()
    if lost := [token for token, known in zip(new.tokens, pieces, strict=True) if not known]:
        notes.append(f"the old tokenizer knows no piece of {join_names(lost)}; they start from the mean of all rows")
    kinds = [surface.kind for surface in surfaces(tokenizer, model.rows, model_tables.special)]
    ordinary = torch.tensor([kind not in _UNTRAINED for kind in kinds])
    return Growth(
        model=model,
        tokens=new.tokens,
        ids=ids,
        pieces=pieces,
        cut=[each.tokens for each in cut],
        ordinary=ordinary,
        layout=Layout(origin),
        vocabulary=tokenizer.get_vocab(with_added_tokens=True),
        files=files,
        notes=notes,
    )


def _require_room(model: Vocabulary) -> None:
    """Refuses models to which the highest id means something."""
    name, family = model.model_tables.name, model.model_tables.family
    if family == "whisper":
        raise ValueError(f"{name} takes every id behind its first timestamp for a time, so no token can be added there")
    if family.startswith("clip") and any(part.get("eos_token_id") == 2 for part in language(model.config)):
        raise ValueError(
            f"{name} reads a text off where its highest id stands, for its eos_token_id is 2; correct it to the id of "
            "the token that ends a text"
        )


def norms(growth: Growth, parts: list[Resized]) -> list[Norms]:
    """Lengths of the trained rows and of the new ones, of every table."""
    found = []
    for part in parts:
        if part.tensor.role == "bias":
            continue
        table = growth.model.table(part.tensor)
        trained = growth.trained(table)
        chosen = [block[trained[start : start + len(block)]] for start, block in blocks(table)]
        old = torch.cat([row_norms(rows) for rows in chosen if len(rows)])
        new = row_norms(part.made[_places(growth)])
        found.append(
            Norms(role=part.tensor.role, tensors=list(part.tensor.names), old=_quantiles(old), new=_quantiles(new))
        )
    return found


def new_tokens(growth: Growth, part: Resized, shown: int) -> list[NewToken]:
    """The first new tokens one by one.

    Args:
        growth: the tokens.
        part: their rows in the input table.
        shown: how many.
    """
    count = min(shown, len(growth.tokens))
    if not count:
        return []
    table, rows = growth.model.table(part.tensor), part.made[_places(growth)][:count]
    near = nearest_rows(torch.full((count,), -1), rows, blocks(table), growth.trained(table), NEIGHBOURS)
    tokens = {index: token for token, index in growth.vocabulary.items()}
    return [
        NewToken(
            id=growth.ids[place],
            token=growth.tokens[place][:SHOWN],
            pieces=[piece[:SHOWN] for piece in growth.cut[place]],
            norm=length,
            neighbours=[Neighbour(id=row, token=tokens[row][:SHOWN]) for row in near[place].tolist() if row >= 0],
        )
        for place, length in enumerate(row_norms(rows).tolist())
    ]


def _places(growth: Growth) -> Tensor:
    """Where the rows of the new tokens stand among those that are made."""
    return torch.searchsorted(growth.layout.made, torch.tensor(growth.ids))


def _quantiles(lengths: Float64[Tensor, " n"]) -> dict[str, float]:
    shares = np.quantile(lengths.numpy(), QUANTILES).tolist()
    return {"mean": float(lengths.mean()), **dict(zip(map(str, QUANTILES), shares, strict=True))}


def grow(
    name: str,
    tokens: Iterable[str],
    out: Path | None = None,
    *,
    init: str | Initialisation = "pieces",
    neighbours: int = 10,
    multiple: int | None = None,
    match: Match = "word",
    seed: int = 0,
    text: Path | None = None,
    leave: Collection[str] = (),
    embedding: str | None = None,
    head: str | None = None,
    link: bool = False,
    shown: int = 10,
    progress: Progress | None = None,
) -> Grown:
    """Adds tokens to a model, as a new folder.

    Args:
        name: folder of transformers, or its name at a hub; it is never changed.
        tokens: as they stand in text; those the tokenizer has already are left out.
        out: the new folder; None only tells what would be done.
        init: how rows are made, a name of `INITIALISATIONS` or a function.
        neighbours: K, for "neighbours".
        multiple: the number of rows becomes one of it.
        match: whether tokens are found inside longer words too.
        seed: of draws.
        text: UTF-8 file on which the outputs before and after are compared.
        leave: tensors as long as the vocabulary that have nothing to do with it.
        embedding: name of the input table's tensor, where it cannot be told.
        head: likewise of the output table.
        link: other files are not copied but linked.
        shown: new tokens that are told of one by one.
        progress: called with a stage, steps done and all steps.

    Returns:
        What was done, or would be.

    Raises:
        ValueError: the model's vocabulary cannot be changed, no token is new, or the new folder cannot be written;
            nothing is left behind.
    """
    tell = progress or (lambda stage, done, total: None)
    make = find(init) if isinstance(init, str) else init
    if text is not None:
        if out is None:
            raise ValueError("--text compares the new model with the old, so it must be written: leave out --dry-run")
        read_text(text)
    tell("tables", 0, 1)
    model_tables = find_tables(name, embedding, head)
    growth = plan_growth(model_tables, tokens, multiple, match, leave)
    model, notes = growth.model, [*model_tables.notes, *growth.notes]
    if out is not None:
        require_vacant(out, model.folder)
    past = read_history(model.folder)
    config = resized(model.config, model.rows, growth.layout.rows)
    tell("new rows", 0, 1)
    parts = _parts(growth, make, neighbours, seed)
    settings: dict[str, Any] = {"init": init if isinstance(init, str) else getattr(init, "__name__", "given")}
    settings |= {"neighbours": neighbours if init == "neighbours" else None, "multiple": multiple, "match": match}
    settings |= {"seed": seed if init == "sample" else None, "leave": sorted(leave)}
    before = len(growth.vocabulary)
    report = Grown(
        schema=GROWN,
        model=name,
        settings=settings,
        added=len(growth.tokens),
        in_padding=growth.in_padding,
        tokens_before=before,
        tokens_after=before + len(growth.tokens),
        rows_before=model.rows,
        rows_after=growth.layout.rows,
        norms=norms(growth, parts),
        tables=[],
        tokens=new_tokens(growth, parts[0], shown),
        notes=notes,
        written=None,
    )
    if out is None:
        return report
    compared: list[Divergence] = []
    kind = model_tables.kind
    if text is not None and kind not in KINDS:
        notes.append("the model has no outputs, so none were compared; only its input table grew")

    def check(folder: Path) -> None:
        again = find_tables(str(folder), embedding, head)
        found = [None if again.tokenizer is None else again.tokenizer.token_to_id(token) for token in growth.tokens]
        if again.embedding.shape[0] != growth.layout.rows or again.tied != model_tables.tied or found != growth.ids:
            raise ValueError(f"{plain(out)} does not come back as it was written; please report this model")
        if text is not None and kind in KINDS:
            tell("outputs", 0, 1)
            old = torch.tensor(sorted(growth.vocabulary.values()))
            compared.append(divergence(model.folder, folder, kind, text, old, torch.tensor(growth.ids)))

    def history(tables: list[TableFacts], said: list[str]) -> dict[str, bytes]:
        sizes = (report.tokens_before, report.tokens_after), (report.rows_before, report.rows_after)
        return {NAME: content([*past, step("grow", model_tables, settings, *sizes, tables, [*notes, *said])])}

    tell("writing", 0, 1)
    edited = {"config.json": config, **growth.files, NAME: b"", IDS: None}
    result = resize(model, growth.layout, parts, out, edited, check, history, link)
    return report.model_copy(
        update={
            "tables": result.tables,
            "divergence": next(iter(compared), None),
            "notes": [*notes, *result.notes],
            "written": file_list(out, result, link),
        }
    )


def _parts(growth: Growth, make: Initialisation, neighbours: int, seed: int) -> list[Resized]:
    """New rows and biases of every tensor, the input table first."""
    parts, made = list[Resized](), list[Made]()
    for tensor in growth.model.tensors:
        if tensor.role == "bias":
            continue
        table = growth.model.table(tensor)
        wanted = Wanted(growth.tokens, growth.pieces, table, growth.trained(table), neighbours, seed)
        made.append(make(wanted))
        rows = _placed(growth, made[-1].rows, trained_mean(wanted)).to(table.dtype)
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"new rows of {plain(table.name)} are not finite in {table.dtype}; take another --init")
        parts.append(Resized(tensor, rows))
    outputs = [place for place, part in enumerate(parts) if part.tensor.role == "output"]
    sources = made[outputs[0] if outputs else 0].sources
    for tensor in growth.model.tensors:
        if tensor.role == "bias":
            bias = growth.model.weights.vector(tensor.names[0]).double()
            own = torch.stack([bias[ids].mean() for ids in sources])[:, None]
            filled = _placed(growth, own, bias[growth.ordinary].mean()[None])
            parts.append(Resized(tensor, filled.to(DTYPES[tensor.dtype])))
    return parts


def _placed(growth: Growth, rows: Float[Tensor, "M H"], padding: Float[Tensor, " H"]) -> Float[Tensor, "K H"]:
    """The rows in the order of their ids, and one row for every place of padding that is new."""
    places = growth.layout.made
    found = padding.expand(len(places), -1).clone()
    found[torch.searchsorted(places, torch.tensor(growth.ids))] = rows
    return found
