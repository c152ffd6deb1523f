"""A checkpoint with another number of tokens: what goes by tokens gets its old rows in a new order, and new ones.

Only the safetensors files that hold such a tensor are written anew, a piece at a time; all others are taken over.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from decone.files.foreign import join_names, plain
from decone.files.new_folder import LEFT_OUT, copy_bytes, files_of, new_folder, other_weights, take_over
from decone.files.safetensors import INDEX, open_weights
from decone.repair.delta import digest
from decone.repair.places import Place, places
from decone.repair.vocabulary.by_token import Vocabulary
from decone.repair.vocabulary.layout import Layout, Resized, same_rows, write_rows
from decone.repair.vocabulary.result import TableFacts

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
    files = files_of(model.folder)
    left, notes = _left_out(model, files, edited)
    by_file: dict[Path, dict[str, Resized]] = {}
    for part in parts:
        for name in part.tensor.names:
            by_file.setdefault(model.weights.entries[name].file, {})[name] = part
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
                take_over(path, target, link)
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
    weights = other_weights(dict(files), model.weights)
    left = [name for name in weights if "/" not in name]  # in folders may be weights of other parts
    left += [name for name, content in edited.items() if content is None and name in files]
    notes = [f"left out, for the old vocabulary is in it: {join_names(left)}"] if left else []
    if nested := [name for name in weights if "/" in name and name not in edited]:
        notes.append(f"taken over as they are, with the old table if they hold it: {join_names(nested)}")
    if folders := [name for name in LEFT_OUT if (model.folder / name).exists()]:
        notes.append(f"left out: {', '.join(folders)}")
    return set(left), notes


def _facts(model: Vocabulary, part: Resized, layout: Layout, after: Mapping[str, str]) -> TableFacts:
    name = part.tensor.names[0]
    file = model.weights.entries[name].file
    return TableFacts(
        role=part.tensor.role,
        tensors=list(part.tensor.names),
        dtype=part.tensor.dtype,
        shape_before=list(part.tensor.shape),
        shape_after=_shape(part, layout),
        before=digest(file, places(file)[1][name]),
        after=after[name],
    )


def _shape(part: Resized, layout: Layout) -> list[int]:
    shape = part.tensor.shape
    return [*shape[:-1], layout.rows] if part.tensor.role == "bias" else [layout.rows, *shape[1:]]


def _rewrite(source: Path, target: Path, parts: Mapping[str, Resized], layout: Layout) -> dict[str, str]:
    """Writes a safetensors file with some tensors resized, reads it back, and gives the SHA-256 of each of them."""
    metadata, found = places(source)
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
                    copy_bytes(old, new, found[name].begin, found[name].end, STEP)
            new.flush()
            os.fsync(new.fileno())
        written = places(target)[1]
        with target.open("rb") as back:
            for name, part in parts.items():
                if not same_rows(old, found[name].begin, back, written[name].begin, part, layout, STEP):
                    raise ValueError(f"{plain(name)} did not come back from the disk as it was written; start again")
    return after


def _size(place: Place) -> float:
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
