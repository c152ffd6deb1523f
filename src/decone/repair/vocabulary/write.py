"""The rows of a resized tensor: which old one stands where, written and read back a few at a time."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from decone.files.atomic import new_folder
from decone.files.folder import EXCLUDED, copy_file, list_files
from decone.files.foreign import join_names, plain
from decone.files.safetensors import INDEX, NUMBER_BYTES, StoredTensor, copy_range, open_weights, read_header
from decone.repair.delta import digest
from decone.repair.vocabulary.result import TableFacts, Written
from decone.repair.vocabulary.tensors import ByToken, Vocabulary


@dataclass(frozen=True)
class Layout:
    """Which old row stands in each new one.

    Attributes:
        origin: the old row of every new one, -1 for one that is made; the others strictly rising, [N].
    """

    origin: Int64[Tensor, " N"]

    @property
    def rows(self) -> int:
        """N, of the new tables."""
        return len(self.origin)

    @property
    def made(self) -> Int64[Tensor, " M"]:
        """The new rows that are made."""
        return (self.origin < 0).nonzero().squeeze(1)


@dataclass(frozen=True)
class Resized:
    """A tensor and what goes into those of its rows that are made.

    Attributes:
        tensor: the table or bias.
        made: one row per made row of the layout, in the dtype of the tensor; a bias has width 1.
    """

    tensor: ByToken
    made: Float[Tensor, "M H"]

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return self.tensor.width * NUMBER_BYTES[self.tensor.dtype]

    @property
    def content(self) -> UInt8[np.ndarray, "n B"]:
        """The made rows as bytes."""
        return self.made.contiguous().view(torch.uint8).numpy().reshape(len(self.made), self.width)


def pieces(layout: Layout, height: int) -> Iterator[tuple[slice, slice]]:
    """The new rows some at a time, such that the old ones they come from span no more than `height` either.

    Returns:
        New rows, and the old rows among which theirs are.

    Example:
        >>> found = pieces(Layout(torch.tensor([0, 1, 50, -1])), height=10)
        >>> [(new.start, new.stop, old.start, old.stop) for new, old in found]
        [(0, 2, 0, 2), (2, 4, 50, 51)]
    """
    origin = layout.origin.numpy()
    rising = np.maximum.accumulate(origin)
    start = 0
    while start < len(origin):
        known = origin[start : start + height]
        known = known[known >= 0]
        stop = min(start + height, len(origin))
        if len(known):
            stop = min(stop, int(np.searchsorted(rising, known[0] + height)))
            known = known[known <= rising[stop - 1]]
            yield slice(start, stop), slice(int(known[0]), int(known[-1]) + 1)
        else:
            yield slice(start, stop), slice(0, 0)
        start = stop


def write_rows(old: BinaryIO, begin: int, new: BinaryIO, part: Resized, layout: Layout, step: int) -> str:
    """Writes the rows of a resized tensor, old ones copied from another file.

    Args:
        old: the file with the old rows.
        begin: of their first byte in it.
        new: the file to write to, from where it stands.
        part: the tensor.
        layout: of its rows.
        step: bytes held in memory.

    Returns:
        SHA-256 of what was written.

    Raises:
        ValueError: the old file ends before.
    """
    digest, made, done = sha256(), part.content, 0
    for chosen, source in pieces(layout, max(1, step // part.width)):
        origin = layout.origin[chosen].numpy()
        fresh = origin < 0
        block = np.empty((len(origin), part.width), dtype=np.uint8)
        block[~fresh] = _read(old, begin, part.width, source)[origin[~fresh] - source.start]
        block[fresh] = made[done : done + int(fresh.sum())]
        done += int(fresh.sum())
        content = block.tobytes()
        digest.update(content)
        new.write(content)
    return digest.hexdigest()


def same_rows(old: BinaryIO, begin: int, new: BinaryIO, start: int, part: Resized, layout: Layout, step: int) -> bool:
    """Whether the rows of a resized tensor are the old ones byte for byte, and the made ones as they were made.

    Args:
        old: the file with the old rows.
        begin: of their first byte in it.
        new: the file that was written.
        start: of the first byte of the new rows in it.
        part: the tensor.
        layout: of its rows.
        step: bytes held in memory.
    """
    made, done = part.content, 0
    for chosen, source in pieces(layout, max(1, step // part.width)):
        origin = layout.origin[chosen].numpy()
        fresh = origin < 0
        written = _read(new, start, part.width, chosen)
        kept = _read(old, begin, part.width, source)[origin[~fresh] - source.start]
        wanted = made[done : done + int(fresh.sum())]
        done += len(wanted)
        if not (np.array_equal(written[~fresh], kept) and np.array_equal(written[fresh], wanted)):
            return False
    return True


def _read(file: BinaryIO, begin: int, width: int, rows: slice) -> UInt8[np.ndarray, "n B"]:
    size = (rows.stop - rows.start) * width
    file.seek(begin + rows.start * width)
    content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{plain(file.name)} became shorter while it was read; start again")
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, width)


STEP = 1 << 24  # bytes copied at once

Files = Mapping[str, bytes | None]


@dataclass(frozen=True)
class Result:
    """What was written.

    Attributes:
        tables: every resized tensor, with its SHA-256 before and after.
        rewritten: names of files that hold a resized tensor, or were edited.
        taken: names of files that are as they were.
        removed: bytes that all files together are smaller than those of the source; below 0 where they are larger.
        notes: what a user must know of other files.
    """

    tables: list[TableFacts]
    rewritten: list[str]
    taken: list[str]
    removed: int
    notes: list[str]


def file_list(out: Path, result: Result, link: bool) -> Written:
    """Files of a new folder, for the report."""
    return Written(
        folder=str(out),
        rewritten=result.rewritten,
        copied=[] if link else result.taken,
        linked=result.taken if link else [],
        bytes_saved=result.removed,
    )


def resize(
    model: Vocabulary,
    layout: Layout,
    parts: Sequence[Resized],
    out: Path,
    edited: Files,
    check: Callable[[Path], None],
    tell: Callable[[list[TableFacts], list[str]], Files],
    link: bool = False,
) -> Result:
    """Writes a model with resized tensors beside its place, reads it back, and renames it.

    Args:
        model: the source, which stays as it is.
        layout: of the new rows.
        parts: one per tensor of the model.
        out: the new folder.
        edited: new content of other files by name; None leaves a file out.
        check: called with the folder before it is renamed; what it raises stops everything.
        tell: gives further files, once the tables and the notes are known.
        link: other files are not copied but linked.

    Raises:
        ValueError: as `new_folder`; or what was written is not what was meant.
    """
    files = list_files(model.folder)
    left, notes = _left_out(model, files, edited)
    by_file: dict[Path, dict[str, Resized]] = {}
    for part in parts:
        for name in part.tensor.names:
            by_file.setdefault(model.weights.tensors[name].file, {})[name] = part
    after: dict[str, str] = {}
    rewritten, taken = set[str](), list[str]()
    with new_folder(out, model.folder) as beside:
        for name, path in files.items():
            if name in left or name in edited:
                continue
            target = beside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path in by_file:
                after |= _rewrite(path, target, by_file[path], layout)
                rewritten.add(name)
            elif name == INDEX:
                target.write_bytes(_index(path, model, parts, layout))
                rewritten.add(name)
            else:
                copy_file(path, target, link)
                taken.append(name)
        tables = [_facts(model, part, layout, after) for part in parts]
        for name, content in {**edited, **tell(tables, notes)}.items():
            if content is not None:
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                (beside / name).write_bytes(content)
                rewritten.add(name)
        open_weights(beside)
        check(beside)
        made = sum(path.stat().st_size for path in beside.rglob("*") if path.is_file())
        removed = sum(path.stat().st_size for path in files.values()) - made
    return Result(tables, sorted(rewritten), taken, removed, notes)


def _left_out(model: Vocabulary, files: Mapping[str, Path], edited: Files) -> tuple[set[str], list[str]]:
    """Files that hold the old vocabulary in another form, and what is said of them."""
    weights = model.weights.unread(files)
    left = [name for name in weights if "/" not in name]  # in folders may be weights of other parts
    left += [name for name, content in edited.items() if content is None and name in files]
    notes = [f"left out, for the old vocabulary is in it: {join_names(left)}"] if left else []
    if nested := [name for name in weights if "/" in name and name not in edited]:
        notes.append(f"taken over as they are, with the old table if they hold it: {join_names(nested)}")
    if folders := [name for name in EXCLUDED if (model.folder / name).exists()]:
        notes.append(f"left out: {', '.join(folders)}")
    return set(left), notes


def _facts(model: Vocabulary, part: Resized, layout: Layout, after: Mapping[str, str]) -> TableFacts:
    name = part.tensor.names[0]
    file = model.weights.tensors[name].file
    return TableFacts(
        role=part.tensor.role,
        tensors=list(part.tensor.names),
        dtype=part.tensor.dtype,
        shape_before=list(part.tensor.shape),
        shape_after=_shape(part, layout),
        before=digest(file, read_header(file)[1][name]),
        after=after[name],
    )


def _shape(part: Resized, layout: Layout) -> list[int]:
    shape = part.tensor.shape
    return [*shape[:-1], layout.rows] if part.tensor.role == "bias" else [layout.rows, *shape[1:]]


def _rewrite(source: Path, target: Path, parts: Mapping[str, Resized], layout: Layout) -> dict[str, str]:
    """Writes a safetensors file with some tensors resized, reads it back, and gives the SHA-256 of each of them."""
    metadata, found = read_header(source)
    # Wide numbers first, as the library has it: then every tensor begins at a multiple of its own.
    order = sorted(found, key=lambda name: (-_size(found[name]), found[name].begin))
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name in order:
        place, begin = found[name], end
        part = parts.get(name)
        end += place.end - place.begin if part is None else layout.rows * part.width
        shape = list(place.shape) if part is None else _shape(part, layout)
        entries[name] = {"dtype": place.dtype, "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    after: dict[str, str] = {}
    with source.open("rb") as old:
        with target.open("xb") as new:
            new.write(len(header).to_bytes(8, "little") + header)
            for name in order:
                if name in parts:
                    after[name] = write_rows(old, found[name].begin, new, parts[name], layout, STEP)
                else:
                    copy_range(old, new, found[name].begin, found[name].end, STEP)
        written = read_header(target)[1]
        with target.open("rb") as back:
            for name, part in parts.items():
                if not same_rows(old, found[name].begin, back, written[name].begin, part, layout, STEP):
                    raise ValueError(f"{plain(name)} did not come back from the disk as it was written; start again")
    return after


def _size(place: StoredTensor) -> float:
    """Bytes of one number."""
    return (place.end - place.begin) / max(1, prod(place.shape))


def _index(path: Path, model: Vocabulary, parts: Sequence[Resized], layout: Layout) -> bytes:
    """The index with the new sizes; tensors stay in their files."""
    content = json.loads(path.read_bytes())
    metadata, more = content.get("metadata"), layout.rows - model.rows
    numbers = sum(more * part.tensor.width * len(part.tensor.names) for part in parts)
    size = sum(more * part.width * len(part.tensor.names) for part in parts)
    for key, change in (("total_size", size), ("total_parameters", numbers)):
        if isinstance(metadata, dict) and isinstance(metadata.get(key), int):
            metadata[key] += change
    return (json.dumps(content, indent=2) + "\n").encode()
