"""Rows from definitions for tokens that a model does not have yet: what `decone grow --init definitions` calls."""

from collections.abc import Sequence

import torch

from decone.data.lexicons import Lexicon, Sense
from decone.models.tables import ModelTables
from decone.repair.alignment import align
from decone.repair.definitions.body import Progress
from decone.repair.definitions.lengths import scaled
from decone.repair.definitions.recipe import Recipe
from decone.repair.definitions.reconstructor import Reconstructor
from decone.repair.entries import Choices, Entry
from decone.repair.surfaces import Surface, kind_of
from decone.repair.vocabulary.initialisations import Initialisation, NewRows, RowRequest, pieces

NAMED = 5  # tokens in a message


def from_definitions(
    model_tables: ModelTables,
    lexicon: Lexicon,
    recipe: Recipe | None = None,
    choices: Choices | None = None,
    device: str = "auto",
    mask: str | None = None,
    progress: Progress | None = None,
) -> Initialisation:
    """A way to make rows for new tokens: learned from the defined tokens of a table, applied to theirs.

    Args:
        model_tables: the model, an encoder or an encoder with a decoder.
        lexicon: defines old tokens, to learn from, and every new one.
        recipe: settings; everything that is defined is learned from. A scale of "row" has no old row to go by.
        choices: how old tokens are matched.
        device: by name.
        mask: the token that stands for what is asked; without it the usual one.
        progress: told how far it is.

    Returns:
        A function for `grow`; it raises ValueError where a new token has no definition, or `Reconstructor` does.
    """
    settings = recipe or Recipe()

    def definitions(request: RowRequest) -> NewRows:
        if settings.scale == "row" or settings.blend < 1:
            raise ValueError("a new token has no old row to go by; leave scale=row and blend out")
        if model_tables.tokenizer is None:
            raise ValueError(f"{model_tables.name} has no tokenizer to align a lexicon with")
        entries = _entries(request.surfaces, lexicon, model_tables)
        alignment = align(model_tables.tokenizer, lexicon, request.table.shape[0], model_tables.special, choices)
        reconstructor = Reconstructor(model_tables, request.table, alignment, settings, device, mask, progress)
        told = reconstructor.learn(torch.ones(len(reconstructor.ids), dtype=torch.bool))
        rows, known = reconstructor.define(told, entries)
        if not bool(known.all()):
            _refuse([surface for surface, there in zip(request.surfaces, known.tolist(), strict=True) if not there])
        made, _ = scaled(rows, rows, reconstructor.rows, settings.scale)
        return NewRows(made, pieces(request).sources)

    return definitions


def _entries(surfaces: Sequence[str], lexicon: Lexicon, model_tables: ModelTables) -> list[Entry]:
    """New tokens with their senses, each under a number of its own that no row has."""
    normalizer = None if model_tables.tokenizer is None else model_tables.tokenizer.normalizer

    def key(text: str) -> str:
        return (text if normalizer is None else normalizer.normalize_str(text)).replace("▁", " ").strip()

    wanted = {key(surface): list[Sense]() for surface in surfaces}
    for sense in lexicon:
        if (found := wanted.get(key(sense.word))) is not None:
            found.append(sense)
    missing = [surface for surface in surfaces if not wanted[key(surface)]]
    if missing:
        _refuse(missing)
    return [
        Entry(-1 - place, Surface(surface, surface, kind_of(surface)), "exact", tuple(wanted[key(surface)]))
        for place, surface in enumerate(surfaces)
    ]


def _refuse(missing: Sequence[str]) -> None:
    some = ", ".join(repr(surface[:40]) for surface in missing[:NAMED])
    raise ValueError(
        f"{len(missing):,} new tokens have no definition in the lexicon: {some}; add lines word<TAB>definition to a "
        "lexicon of your own and name it too, or leave them out"
    )
