"""A checkpoint with another number of tokens: old rows in a new order, byte for byte, and new rows between them.

Only the safetensors files that hold a tensor with an entry per token are written anew, a block of rows at a time, read
back and compared; all other files are copied or linked.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from decone.files.atomic import new_folder
from decone.files.folder import EXCLUDED, copy_file, list_files
from decone.files.foreign import plain
from decone.files.safetensors import INDEX, NUMBER_BYTES, StoredTensor, copy_range, open_weights, read_header
from decone.repair.delta import tensor_digest
from decone.repair.vocabulary.result import (
    HISTORY_FILE,
    ResizedTable,
    VocabularyReport,
    VocabularyStep,
    WrittenFiles,
    extend_history,
)
from decone.repair.vocabulary.tensors import VocabModel, VocabTensor

STEP = 1 << 24  # bytes copied at once

Report = TypeVar("Report", bound=VocabularyReport)


@dataclass(frozen=True)
class RowLayout:
    """Order of the rows of a resized tensor.

    Attributes:
        origin: old row of every new one, strictly rising, and -1 for rows that are new, [N].
    """

    origin: Int64[Tensor, " N"]

    @property
    def rows(self) -> int:
        """N, the length of the new tables."""
        return len(self.origin)

    @property
    def fresh(self) -> Int64[Tensor, " M"]:
        """Indices of the new rows."""
        return (self.origin < 0).nonzero().squeeze(1)


@dataclass(frozen=True)
class ResizedTensor:
    """A tensor and the values of its new rows.

    Attributes:
        tensor: the table or bias.
        fresh: one row per new row of the layout, in the dtype of the tensor; a bias has width 1.
    """

    tensor: VocabTensor
    fresh: Float[Tensor, "M H"]

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return self.tensor.width * NUMBER_BYTES[self.tensor.dtype]

    @property
    def content(self) -> UInt8[np.ndarray, "n B"]:
        """The new rows as bytes."""
        return self.fresh.contiguous().view(torch.uint8).numpy().reshape(len(self.fresh), self.width)


def write_model(
    model: VocabModel,
    layout: RowLayout,
    tensors: Sequence[ResizedTensor],
    out: Path,
    edited: Mapping[str, bytes | None],
    report: Report,
    history: Sequence[VocabularyStep],
    check: Callable[[Path], None],
    link: bool = False,
) -> Report:
    """Writes a model with resized tensors into a folder beside `out`, reads it back, and renames it.

    Args:
        model: the source, which stays as it is.
        layout: order of the new rows.
        tensors: every tensor of the model that has an entry per token.
        out: the new folder.
        edited: new content of other files by name; None leaves a file out.
        report: report of the change so far; a step of decone.json comes from it.
        history: earlier steps.
        check: called with the folder before it is renamed; an exception stops everything.
        link: other files are not copied but linked.

    Returns:
        The report with tables and files.

    Raises:
        ValueError: as `new_folder`; or the disk does not give back what was written.
    """
    files = list_files(model.folder)
    edited = {**edited, HISTORY_FILE: b""}
    folders = [name for name in EXCLUDED if (model.folder / name).exists()]
    notes = [f"left out: {', '.join(folders)}"] if folders else []
    by_file: dict[Path, dict[str, ResizedTensor]] = {}
    for resized in tensors:
        for name in resized.tensor.names:
            by_file.setdefault(model.weights.tensors[name].file, {})[name] = resized
    digests: dict[str, str] = {}
    rewritten, unchanged = set[str](), list[str]()
    with new_folder(out, model.folder) as folder:
        for name, path in files.items():
            if name in edited:
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path in by_file:
                digests |= _rewrite(path, target, by_file[path], layout)
                rewritten.add(name)
            elif name == INDEX:
                target.write_bytes(_index(path, model, tensors, layout))
                rewritten.add(name)
            else:
                copy_file(path, target, link)
                unchanged.append(name)
        tables = [_resized_table(model, resized, layout, digests) for resized in tensors]
        report = report.model_copy(update={"tables": tables, "notes": [*report.notes, *notes]})
        edited[HISTORY_FILE] = extend_history(history, report)
        for name, content in edited.items():
            if content is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
                rewritten.add(name)
        open_weights(folder)
        check(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    written = WrittenFiles(
        folder=str(out),
        rewritten=sorted(rewritten),
        copied=[] if link else unchanged,
        linked=unchanged if link else [],
        bytes_saved=sum(path.stat().st_size for path in files.values()) - size,
    )
    return report.model_copy(update={"written": written})


def blocks_of_rows(layout: RowLayout, height: int) -> Iterator[tuple[slice, slice]]:
    """Splits the new rows into blocks of at most `height` whose old rows span no more than that either.

    Returns:
        Slice of new rows, and slice of old rows that theirs come from.

    Example:
        >>> blocks = blocks_of_rows(RowLayout(torch.tensor([0, 1, 50, -1])), height=10)
        >>> [(new.start, new.stop, old.start, old.stop) for new, old in blocks]
        [(0, 2, 0, 2), (2, 4, 50, 51)]
    """
    origin = layout.origin.numpy()
    rising = np.maximum.accumulate(origin)
    start = 0
    while start < len(origin):
        old = origin[start : start + height]
        old = old[old >= 0]
        stop = min(start + height, len(origin))
        if len(old):
            stop = min(stop, int(np.searchsorted(rising, old[0] + height)))
            old = old[old <= rising[stop - 1]]
            yield slice(start, stop), slice(int(old[0]), int(old[-1]) + 1)
        else:
            yield slice(start, stop), slice(0, 0)
        start = stop


def write_rows(
    old: BinaryIO, begin: int, new: BinaryIO, resized: ResizedTensor, layout: RowLayout, step: int = STEP
) -> str:
    """Writes the rows of a resized tensor, old ones copied from another file.

    Args:
        old: file with the old rows.
        begin: offset of their first byte in it.
        new: file to write to, at its present position.
        resized: the tensor.
        layout: order of its rows.
        step: bytes in memory at once.

    Returns:
        SHA-256 of the bytes written.

    Raises:
        ValueError: the old file ends before.
    """
    digest = sha256()
    for _, block in _resized_blocks(old, begin, resized, layout, step):
        content = block.tobytes()
        digest.update(content)
        new.write(content)
    return digest.hexdigest()


def same_rows(
    old: BinaryIO,
    begin: int,
    new: BinaryIO,
    new_begin: int,
    resized: ResizedTensor,
    layout: RowLayout,
    step: int = STEP,
) -> bool:
    """Compares the rows of a written tensor with the old rows and the new values, byte for byte.

    Args:
        old: file with the old rows.
        begin: offset of their first byte in it.
        new: file that was written.
        new_begin: offset of the first byte of the tensor in it.
        resized: the tensor.
        layout: order of its rows.
        step: bytes in memory at once.
    """
    return all(
        np.array_equal(_read_rows(new, new_begin, resized.width, rows), block)
        for rows, block in _resized_blocks(old, begin, resized, layout, step)
    )


def _resized_blocks(
    old: BinaryIO, begin: int, resized: ResizedTensor, layout: RowLayout, step: int
) -> Iterator[tuple[slice, UInt8[np.ndarray, "n B"]]]:
    """Yields the rows of a resized tensor as bytes, a block at a time."""
    content, done = resized.content, 0
    for rows, source in blocks_of_rows(layout, max(1, step // resized.width)):
        origin = layout.origin[rows].numpy()
        fresh = origin < 0
        count = int(fresh.sum())
        block = np.empty((len(origin), resized.width), dtype=np.uint8)
        block[~fresh] = _read_rows(old, begin, resized.width, source)[origin[~fresh] - source.start]
        block[fresh] = content[done : done + count]
        done += count
        yield rows, block


def _read_rows(file: BinaryIO, begin: int, width: int, rows: slice) -> UInt8[np.ndarray, "n B"]:
    size = (rows.stop - rows.start) * width
    file.seek(begin + rows.start * width)
    content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{plain(file.name)} became shorter while it was read; start again")
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, width)


def _resized_table(
    model: VocabModel, resized: ResizedTensor, layout: RowLayout, digests: Mapping[str, str]
) -> ResizedTable:
    tensor = resized.tensor
    file = model.weights.tensors[tensor.names[0]].file
    return ResizedTable(
        role=tensor.role,
        tensors=list(tensor.names),
        dtype=tensor.dtype,
        shape_before=list(tensor.shape),
        shape_after=tensor.resized(layout.rows),
        before=tensor_digest(file, read_header(file)[1][tensor.names[0]]),
        after=digests[tensor.names[0]],
    )


def _rewrite(source: Path, target: Path, tensors: Mapping[str, ResizedTensor], layout: RowLayout) -> dict[str, str]:
    """Writes a safetensors file with some tensors resized, reads it back, and returns the SHA-256 of each of them."""
    metadata, old_tensors = read_header(source)
    # Wide numbers first, as the library has it: then every tensor begins at a multiple of its width.
    order = sorted(old_tensors, key=lambda name: (-_item_size(old_tensors[name]), old_tensors[name].begin))
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name in order:
        stored, begin = old_tensors[name], end
        resized = tensors.get(name)
        end += stored.end - stored.begin if resized is None else layout.rows * resized.width
        shape = list(stored.shape) if resized is None else resized.tensor.resized(layout.rows)
        entries[name] = {"dtype": stored.dtype, "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    digests: dict[str, str] = {}
    with source.open("rb") as old:
        with target.open("xb") as new:
            new.write(len(header).to_bytes(8, "little") + header)
            for name in order:
                begin = old_tensors[name].begin
                if name in tensors:
                    digests[name] = write_rows(old, begin, new, tensors[name], layout, STEP)
                else:
                    copy_range(old, new, begin, old_tensors[name].end, STEP)
        new_tensors = read_header(target)[1]
        with target.open("rb") as back:
            for name, resized in tensors.items():
                if not same_rows(old, old_tensors[name].begin, back, new_tensors[name].begin, resized, layout, STEP):
                    raise ValueError(f"{plain(name)} did not come back from the disk as it was written; start again")
    return digests


def _item_size(stored: StoredTensor) -> float:
    """Bytes of one number."""
    return (stored.end - stored.begin) / max(1, prod(stored.shape))


def _index(path: Path, model: VocabModel, tensors: Sequence[ResizedTensor], layout: RowLayout) -> bytes:
    """The index with the new sizes; tensors stay in their files."""
    content = json.loads(path.read_bytes())
    metadata, more = content.get("metadata"), layout.rows - model.rows
    numbers = sum(more * resized.tensor.width * len(resized.tensor.names) for resized in tensors)
    size = sum(more * resized.width * len(resized.tensor.names) for resized in tensors)
    for key, change in (("total_size", size), ("total_parameters", numbers)):
        if isinstance(metadata, dict) and isinstance(metadata.get(key), int):
            metadata[key] += change
    return (json.dumps(content, indent=2) + "\n").encode()
