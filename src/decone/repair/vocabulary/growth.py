"""What growing a model would do: which ids its new tokens get, and how long its tables become."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from decone.files.foreign import join_names
from decone.models.tables import ModelTables, Table, blocks
from decone.repair.surfaces import surfaces
from decone.repair.vocabulary.by_token import Vocabulary, vocabulary
from decone.repair.vocabulary.configured import language
from decone.repair.vocabulary.layout import Layout
from decone.repair.vocabulary.new_tokens import Match, grown_files, sort_out
from decone.repair.vocabulary.tokenizer_parts import encoded, opened, read_parts, unknown_ids

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
