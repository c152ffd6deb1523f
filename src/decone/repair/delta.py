"""Deltas: the rows that a repair changes, old and new, in one small safetensors file that says where it belongs.

Tensors "N.ids" [M], "N.old" and "N.new" [M, H] hold table N; the metadata holds a `DeltaFacts`. Old and new rows have
the bytes of the table itself, so that applying and undoing move bytes and compute nothing. A table may be stored in
several tensors with the same bytes; a delta changes them all. An output bias is a table of width 1.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import ValidationError
from torch import Tensor

from decone import __version__
from decone.files.atomic import atomic_file, require_vacant, reserve
from decone.files.foreign import plain
from decone.files.safetensors import DTYPES, NUMBER_BYTES, FileTable, StoredTensor, open_weights, read_header
from decone.models.tables import ModelTables, Table, blocks, same_table
from decone.repair.methods.base import TableChoice
from decone.repair.result import DELTA, DeltaFacts, Role, TableDelta
from decone.training.machine import provenance

INPUTS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "shared.weight")  # of models with both
SUFFIX = ".safetensors"
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_KEY = "decone.delta"
_UNKNOWN = "0" * 64  # until the digest is computed


@dataclass(frozen=True)
class RepairTarget:
    """A table to repair.

    Attributes:
        role: of the table in the model; "input" where it is both, "bias" for what is added to the logits.
        table: its rows; without those that only one of two tables has.
        full_table: all rows that the file holds.
        names: its tensor, and then others with the same bytes: tied tables that are stored twice stay tied.
    """

    role: Role
    table: Table
    full_table: Table
    names: tuple[str, ...]


def repair_targets(model_tables: ModelTables, table: TableChoice = "input") -> list[RepairTarget]:
    """Finds the tensors that hold the tables of a model.

    Args:
        model_tables: the model.
        table: of two; a model with one, tied or without an output, has it repaired in any case but "output" without an
            output.

    Raises:
        ValueError: the model has no output table although one is to be repaired, or the tables are not in a file.
    """
    if table != "input" and model_tables.head is None and not model_tables.tied:
        raise ValueError(f"{model_tables.name} has no output table; repair its input table: --table input")
    selection: list[tuple[Role, object]] = []
    if table != "output" or model_tables.head is None:
        selection.append(("input", model_tables.embedding))
    if table != "input" and model_tables.head is not None:
        selection.append(("output", model_tables.head))
    targets: list[RepairTarget] = []
    for role, rows in selection:
        if not isinstance(rows, FileTable):
            raise ValueError(f"the {role} table of {model_tables.name} is not in a file; save the model first")
        targets.append(_target(role, rows, model_path(model_tables)))
    return targets


def separate_inputs(model_tables: ModelTables, target: RepairTarget) -> list[str]:
    """Names of input tables that are not the one to repair: T5Gemma's encoder and decoder have one each."""
    if model_tables.kind != "seq2seq":
        return []
    names = open_weights(model_path(model_tables)).tensors
    return [name for name in names if name.endswith(INPUTS) and name not in target.names]


def model_path(model_tables: ModelTables) -> Path:
    """The folder of a model whose tables were found, or its file where it is one."""
    path = Path(model_tables.name)
    if path.exists():
        return path
    # A name at a hub: its files lie flat in one folder.
    assert isinstance(model_tables.embedding, FileTable)
    return model_tables.embedding.file.parent


def _target(role: Role, table: FileTable, path: Path) -> RepairTarget:
    weights = open_weights(path)
    full_table = weights.table(table.name)
    entry = weights.tensors[table.name]
    twins = [
        name
        for name, candidate in weights.tensors.items()
        if name != table.name and (candidate.shape, candidate.dtype) == (entry.shape, entry.dtype)
        if same_table(full_table, weights.table(name))
    ]
    return RepairTarget(role, table, full_table, (table.name, *twins))


@dataclass(frozen=True)
class RowDelta:
    """New rows of a table.

    Attributes:
        target: the table.
        ids: of the rows, strictly rising, [M].
        rows: the new ones in the dtype of the table, [M, H]; read a block at a time.
    """

    target: RepairTarget
    ids: Int64[Tensor, " M"]
    rows: Table


@dataclass(frozen=True)
class StoredRows:
    """Rows of one table in a delta."""

    facts: TableDelta
    ids: Int64[Tensor, " M"]
    old: StoredTensor
    new: StoredTensor


@dataclass(frozen=True)
class Delta:
    """A delta that was opened: its description, and the position of its rows in the file."""

    path: Path
    facts: DeltaFacts
    tables: list[StoredRows]


def require_vacant_delta(path: Path, model_tables: ModelTables) -> None:
    """Refuses a path where a delta cannot be written.

    Raises:
        ValueError: the name does not end in .safetensors, or as `require_vacant`.
    """
    if path.suffix != SUFFIX:
        raise ValueError(f"--out {plain(path)} must end in {SUFFIX}; a delta is one such file")
    require_vacant(path, model_path(model_tables))


def write_delta(
    path: Path,
    model_tables: ModelTables,
    method: str,
    settings: dict[str, Any],
    changes: Sequence[RowDelta],
    results: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> DeltaFacts:
    """Writes a delta beside and renames it; tables are read once, a block at a time.

    Args:
        path: of the new file.
        model_tables: the model, which stays as it is.
        method: that made the rows.
        settings: it was called with; numbers, strings, lists and None.
        changes: one per table.
        results: of the method.
        notes: for a user of the delta.

    Raises:
        ValueError: the path is not vacant, ids are not rising rows of their table, new rows cannot be made or do not
            fit, or the file cannot be written; nothing is left behind.
    """
    require_vacant_delta(path, model_tables)
    name = Path(model_tables.name).resolve().name if Path(model_tables.name).exists() else model_tables.name
    facts = DeltaFacts(
        schema=DELTA,
        method=method,
        settings=settings,
        found=results or {},
        model=name,
        tables=[_description(change) for change in changes],
        notes=list(notes),
        decone=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        provenance=provenance(),
    )
    with reserve(path, model_path(model_tables)), atomic_file(path) as beside, beside.open("xb") as file:
        _write(file, facts, changes)
    return facts


def read_delta(path: str | Path) -> Delta:
    """Opens a delta; of its tensors only the ids are read.

    Raises:
        ValueError: it is missing, truncated, damaged, or not a delta; or ids are out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file {plain(path)}; name the delta that a repair wrote with --out")
    metadata, tensors = read_header(path)
    foreign = f"{path} is no delta of decone"
    if _KEY not in metadata:
        raise ValueError(f"{foreign}; name the file that a repair wrote with --out")
    try:
        facts = DeltaFacts.model_validate_json(metadata[_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            f"{foreign} that this version can read ({plain(first['loc'])}: {plain(first['msg'])}); make it again"
        ) from None
    return Delta(path, facts, [_stored_rows(path, number, table, tensors) for number, table in enumerate(facts.tables)])


def patch_table(
    file: BinaryIO, span: StoredTensor, delta: Delta, rows: StoredRows, backwards: bool, step: int = 1 << 24
) -> Iterator[bytes]:
    """Yields the bytes of a table with its rows replaced, about `step` bytes at a time.

    Args:
        file: that holds the table.
        span: of the table in it.
        delta: with the rows.
        rows: of this table.
        backwards: puts the old rows in.
        step: bytes at once.
    """
    height, ids = max(1, step // span.row_bytes), rows.ids.numpy()
    source = rows.old if backwards else rows.new
    with delta.path.open("rb") as stored:
        for start in range(0, span.shape[0], height):
            stop = min(start + height, span.shape[0])
            block = np.frombuffer(
                bytearray(_exactly(file, span.begin + start * span.row_bytes, (stop - start) * span.row_bytes)),
                dtype=np.uint8,
            ).reshape(stop - start, span.row_bytes)
            low, high = np.searchsorted(ids, (start, stop))
            new = _exactly(stored, source.begin + int(low) * span.row_bytes, int(high - low) * span.row_bytes)
            block[ids[low:high] - start] = np.frombuffer(new, dtype=np.uint8).reshape(-1, span.row_bytes)
            yield block.tobytes()


def tensor_digest(path: Path, span: StoredTensor, step: int = 1 << 24) -> str:
    """SHA-256 of a tensor's bytes in a file."""
    digest = sha256()
    with path.open("rb") as file:
        for begin in range(span.begin, span.end, step):
            digest.update(_exactly(file, begin, min(step, span.end - begin)))
    return digest.hexdigest()


def _description(change: RowDelta) -> TableDelta:
    table, ids = change.target.full_table, change.ids
    V, H = table.shape
    if not len(ids) or int(ids[0]) < 0 or int(ids[-1]) >= V or bool((ids.diff() <= 0).any()):
        raise ValueError(f"ids must be rising rows of {plain(table.name)}, from 0 to {V - 1}, and at least one")
    if change.rows.shape != (len(ids), H) or change.rows.dtype != table.dtype:
        raise ValueError(f"new rows {list(change.rows.shape)} do not fit {len(ids)} of {plain(table.name)} {[V, H]}")
    return TableDelta(
        role=change.target.role,
        tensors=list(change.target.names),
        shape=(V, H),
        dtype=NAMES[table.dtype],
        changed=len(ids),
        before=_UNKNOWN,
        after=_UNKNOWN,
    )


def _header(facts: DeltaFacts) -> tuple[bytes, list[dict[str, int]]]:
    """The header of the file, and the begin of each table's tensors behind it."""
    entries: dict[str, Any] = {_KEY: None}
    starts: list[dict[str, int]] = [{} for _ in facts.tables]
    end = 0

    def add(number: int, name: str, dtype: str, shape: list[int]) -> None:
        nonlocal end
        starts[number][name], size = end, NUMBER_BYTES[dtype] * int(np.prod(shape))
        entries[f"{number}.{name}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size

    # Wide numbers first: then every tensor begins at a multiple of its own.
    for number, table in enumerate(facts.tables):
        add(number, "ids", "I64", [table.changed])
    for number, table in sorted(enumerate(facts.tables), key=lambda pair: -NUMBER_BYTES[pair[1].dtype]):
        for name in ("old", "new"):
            add(number, name, table.dtype, [table.changed, table.shape[1]])
    del entries[_KEY]
    content = json.dumps({"__metadata__": {_KEY: facts.model_dump_json(by_alias=True)}, **entries}).encode()
    return content + b" " * (-len(content) % 8), starts


def _write(file: BinaryIO, facts: DeltaFacts, changes: Sequence[RowDelta]) -> None:
    header, starts = _header(facts)
    origin = 8 + len(header)
    for change, table, start in zip(changes, facts.tables, starts, strict=True):
        file.seek(origin + start["ids"])
        file.write(change.ids.numpy().astype("<i8").tobytes())
        before, after, done = sha256(), sha256(), 0
        row = NUMBER_BYTES[table.dtype] * table.shape[1]
        for first, block in blocks(change.target.full_table):
            inner = change.ids[done:]
            inner = inner[inner < first + len(block)]
            old, new = block[inner - first], change.rows.read(done, done + len(inner))
            before.update(_bytes(block))
            for name, rows in (("old", old), ("new", new)):
                file.seek(origin + start[name] + done * row)
                file.write(_bytes(rows))
            block = block.clone()
            block[inner - first] = new
            after.update(_bytes(block))
            done += len(inner)
        table.before, table.after = before.hexdigest(), after.hexdigest()
    final, _ = _header(facts)  # as long as before: a digest has always 64 signs
    file.seek(0)
    file.write(len(final).to_bytes(8, "little") + final)


def _bytes(rows: Float[Tensor, "n H"]) -> bytes:
    return rows.contiguous().view(torch.uint8).numpy().tobytes()


def _stored_rows(path: Path, number: int, table: TableDelta, tensors: dict[str, StoredTensor]) -> StoredRows:
    damaged = f"{path} is damaged"
    V, H = table.shape
    M = table.changed
    expected = {"ids": ((M,), "I64"), "old": ((M, H), table.dtype), "new": ((M, H), table.dtype)}
    for name, (shape, dtype) in expected.items():
        span = tensors.get(f"{number}.{name}")
        if span is None or (span.shape, span.dtype) != (shape, dtype) or dtype not in NUMBER_BYTES:
            raise ValueError(f"{damaged} (its {name} rows are not as it says); make it again")
    with path.open("rb") as file:
        content = _exactly(file, tensors[f"{number}.ids"].begin, 8 * M)
    ids = torch.from_numpy(np.frombuffer(content, dtype="<i8").astype(np.int64))
    if not M or int(ids[0]) < 0 or int(ids[-1]) >= V or bool((ids.diff() <= 0).any()):
        raise ValueError(f"{damaged} (its ids are not rising rows from 0 to {V - 1}); make it again")
    return StoredRows(table, ids, tensors[f"{number}.old"], tensors[f"{number}.new"])


def _exactly(file: BinaryIO, begin: int, size: int) -> bytes:
    file.seek(begin)
    content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{plain(file.name)} became shorter while it was read; start again")
    return content
