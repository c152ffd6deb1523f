"""A model with new tokens: the old rows stay byte for byte, the new ones are made from them.

New tokens take rows of the tables that no token has yet, and only then make them longer. Rows that are left for
padding get the mean of the trained ones, so that no logit of theirs stands out.
"""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from decone.data.corpora import read_text
from decone.files.foreign import plain
from decone.files.new_folder import vacant_folder
from decone.files.safetensors import DTYPES
from decone.models.find_tables import find_tables
from decone.repair.vocabulary.configured import resized
from decone.repair.vocabulary.divergence import KINDS, divergence
from decone.repair.vocabulary.grown_rows import new_tokens, norms
from decone.repair.vocabulary.growth import Growth, plan_growth
from decone.repair.vocabulary.history import IDS, NAME, content, read_history, step
from decone.repair.vocabulary.initialisations import Initialisation, Made, Wanted, find, trained_mean
from decone.repair.vocabulary.layout import Resized
from decone.repair.vocabulary.new_tokens import Match
from decone.repair.vocabulary.resize import Result, resize
from decone.repair.vocabulary.result import GROWN, Divergence, Grown, TableFacts, Written

Progress = Callable[[str, int, int], None]


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
        vacant_folder(out, model.folder)
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
            "written": written(out, result, link),
        }
    )


def written(out: Path, result: Result, link: bool) -> Written:
    """The files of a new folder, for the report."""
    return Written(
        folder=str(out),
        rewritten=result.rewritten,
        copied=[] if link else result.taken,
        linked=result.taken if link else [],
        bytes_saved=result.removed,
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
