"""Tensors of a checkpoint that have a row, or a number, for every token: those that a new vocabulary changes."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decone.files.folder import inside, list_files, read_object
from decone.files.foreign import join_names, plain, quoted
from decone.files.safetensors import FileTable, Weights, open_weights
from decone.models.families import FAMILIES, family_of
from decone.models.tables import ModelTables
from decone.models.tokenizer_files import MAKE
from decone.repair.delta import model_path, repair_targets
from decone.repair.result import Role

_INPUTS = tuple({name for family in FAMILIES.values() for name in family.embedding})
_OUTPUTS = tuple({name for family in FAMILIES.values() for name in family.head})
_BIASES = tuple({name for family in FAMILIES.values() for name in family.bias})
_SECOND_TABLE = "embed_tokens_per_layer.weight"  # a second input table of another length


@dataclass(frozen=True)
class VocabTensor:
    """A table or bias, and all tensors with the same bytes, as tied tables that are stored twice.

    Attributes:
        role: use that the model makes of it; "input" where it is both input and output.
        names: names of the tensors, the one that is read first.
        shape: [V, H] of a table, [V] or [1, V] of a bias.
        dtype: in the words of the header, "F32" and the like.
    """

    role: Role
    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def width(self) -> int:
        """Numbers per token."""
        return self.shape[1] if self.role != "bias" else 1

    def resized(self, rows: int) -> list[int]:
        """The shape with another number of tokens."""
        return [*self.shape[:-1], rows] if self.role == "bias" else [rows, *self.shape[1:]]


@dataclass(frozen=True)
class VocabModel:
    """A model whose vocabulary can be changed.

    Attributes:
        model_tables: tables and tokenizer of the model.
        folder: folder of its files.
        config: its config.json.
        weights: its tensors, unread.
        rows: V, of every table.
        tensors: all that have V rows or numbers; the input table first.
    """

    model_tables: ModelTables
    folder: Path
    config: dict[str, Any]
    weights: Weights
    rows: int
    tensors: list[VocabTensor]

    def table(self, tensor: VocabTensor) -> FileTable:
        """The rows of a table."""
        return self.weights.table(tensor.names[0])


def open_vocab_model(model_tables: ModelTables, leave: Collection[str] = ()) -> VocabModel:
    """Finds everything in a checkpoint that has an entry per token.

    Args:
        model_tables: tables and tokenizer of the model.
        leave: names of tensors that are as long as the vocabulary by chance, and of files without tokens.

    Raises:
        ValueError: it is no folder of transformers with a tokenizer.json, its tables differ in length, it has several
            vocabularies, or a tensor is as long as the vocabulary and is neither a table nor a bias of its family.
    """
    name, folder = model_tables.name, model_path(model_tables)
    config = read_object(folder, "config.json") if folder.is_dir() else None
    if config is None:
        raise ValueError(f"{name} is no folder of transformers (config.json); a vocabulary is changed in such a folder")
    if isinstance(config.get("encoder"), dict) and isinstance(config.get("decoder"), dict):
        raise ValueError(f"{name} joins two models, each with its own vocabulary; change them one by one, then join")
    separate = config.get("share_encoder_decoder_embeddings") is False
    if family_of(model_tables.family).two_vocabularies or separate:
        raise ValueError(f"{name} has one vocabulary for the source and another for the target; that is not supported")
    if not inside(folder, "tokenizer.json").is_file():
        raise ValueError(f"{name} has no tokenizer.json, and without it its vocabulary cannot be changed; {MAKE}")
    if model_tables.tokenizer is None:
        raise ValueError(f"the vocabulary of {name} cannot be changed: {'; '.join(model_tables.notes)}")
    weights = open_weights(folder)
    tensors = _tables(model_tables, weights)
    rows = tensors[0].shape[0]
    for table in tensors:
        if table.shape[0] != rows:
            raise ValueError(
                f"{plain(table.names[0])} has {table.shape[0]:,} rows and {plain(tensors[0].names[0])} {rows:,}: rows "
                "that only one of them has stand for something else than tokens; that is not supported"
            )
    highest = max(model_tables.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= rows:
        raise ValueError(
            f"the tokenizer of {name} gives the id {highest:,} but its tables have {rows:,} rows; save the model again "
            "after resize_token_embeddings"
        )
    tensors += bias_tensors(weights, rows, {name for table in tensors for name in table.names})
    recognised = {name for tensor in tensors for name in tensor.names} | {*leave} - list_files(folder).keys()
    _refuse_unrecognised(weights, rows, recognised, name)
    return VocabModel(model_tables, folder, config, weights, rows, tensors)


def _tables(model_tables: ModelTables, weights: Weights) -> list[VocabTensor]:
    which = repair_targets(model_tables, "both" if model_tables.head is not None or model_tables.tied else "input")
    tables = [_vocab_tensor(target.role, target.names, weights) for target in which]
    names = {name for table in tables for name in table.names}
    for name, entry in weights.tensors.items():
        if name in names or len(entry.shape) != 2 or entry.shape[0] != tables[0].shape[0]:
            continue
        if _ends(name, _INPUTS):  # of an encoder and a decoder that are not tied
            tables.append(_vocab_tensor("input", (name,), weights))
        elif _ends(name, _OUTPUTS):
            tables.append(_vocab_tensor("output", (name,), weights))
    return tables


def bias_tensors(weights: Weights, rows: int, tables: set[str]) -> list[VocabTensor]:
    """Finds what a checkpoint adds to its logits, beside tables of these names."""
    endings = (
        *_BIASES,
        *(name.removesuffix("weight") + "bias" for name in (*_OUTPUTS, *tables) if name[-6:] == "weight"),
    )
    names = [
        name for name, entry in weights.tensors.items() if entry.shape in ((rows,), (1, rows)) and _ends(name, endings)
    ]
    for name in names:
        weights.vector(name)  # refuses what is no floating point
    return [_vocab_tensor("bias", (name,), weights) for name in names]


def _vocab_tensor(role: Role, names: tuple[str, ...], weights: Weights) -> VocabTensor:
    entry = weights.tensors[names[0]]
    if role != "bias":
        weights.table(names[0])  # refuses what is no floating point
    return VocabTensor(role, names, entry.shape, entry.dtype)


def _ends(name: str, patterns: Collection[str]) -> bool:
    return any(name == pattern or name.endswith(f".{pattern}") for pattern in patterns)


def _refuse_unrecognised(weights: Weights, rows: int, names: set[str], model: str) -> None:
    """Refuses tensors that have the vocabulary's length but are neither a table nor a bias, nor named to be left."""
    shapes = weights.shapes
    if absent := sorted(names - shapes.keys()):
        raise ValueError(f"{model} has no tensor or file {quoted(absent[0])}; give --leave the name of one it has")
    if second := [name for name in shapes if _ends(name, (_SECOND_TABLE,)) and name not in names]:
        raise ValueError(f"{model} has a second table of tokens, {plain(second[0])}; such models are not supported")
    unrecognised = [name for name, shape in shapes.items() if rows in shape and name not in names]
    if unrecognised:
        raise ValueError(
            f"{model} holds what is as long as its vocabulary ({rows:,}) but no table or bias that is known: "
            f"{join_names(unrecognised)}; a quantised model is changed before it is quantised, and a tensor that has "
            f"nothing to do with tokens is passed over with --leave {plain(unrecognised[0])}"
        )
