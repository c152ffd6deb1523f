"""A new checkpoint with a repaired table, or with the original one again; the source stays as it is.

Only the files that hold a table are written anew, its bytes replaced and all others taken over unread. A new folder is
made beside and renamed when it is whole.
"""

import os
from hashlib import sha256
from pathlib import Path

from decone.files.atomic import new_folder, require_vacant
from decone.files.folder import EXCLUDED, copy_file, list_files
from decone.files.foreign import join_names, plain
from decone.files.safetensors import StoredTensor, Weights, copy_range, open_weights
from decone.models.find_tables import find_tables
from decone.repair.delta import Delta, StoredRows, model_path, patch_table, read_delta, tensor_digest
from decone.repair.result import WRITTEN, WrittenCheckpoint

STEP = 1 << 24  # bytes copied at once


def apply_delta(
    model: str | os.PathLike[str], delta: str | Path, out: str | Path, *, link: bool = False, backwards: bool = False
) -> WrittenCheckpoint:
    """Writes a model with a delta applied.

    Args:
        model: a folder, a .safetensors file, or a name at a hub.
        delta: file that a repair wrote.
        out: the new folder.
        link: other files are not copied but linked: they share their bytes on disk with the source.
        backwards: the model is the repaired one, and the original is made again, bit by bit.

    Returns:
        Names of the files in the new folder.

    Raises:
        ValueError: the delta is damaged, or not of this model by the SHA-256 of its table; the target exists or lies in
            the source; or the disk is full. Nothing is left behind.
    """
    opened, out = read_delta(delta), Path(out)
    source = Path(model) if Path(model).exists() else model_path(find_tables(os.fspath(model)))
    require_vacant(out, source)
    weights = open_weights(source)
    shards = _shards(weights, opened, backwards)
    files = list_files(source) if source.is_dir() else {source.name: source}
    result = WrittenCheckpoint(
        schema=WRITTEN, folder=str(out), rewritten=[], copied=[], linked=[], notes=_notes(source, files, weights)
    )
    with new_folder(out, source) as beside:
        for name, path in files.items():
            target = beside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path in shards:
                _rewrite(path, target, shards[path], opened, backwards)
                result.rewritten.append(name)
            else:
                copy_file(path, target, link)
                (result.linked if link else result.copied).append(name)
    return result


def undo_delta(folder: str | Path, delta: str | Path, out: str | Path, *, link: bool = False) -> WrittenCheckpoint:
    """Makes the original checkpoint from a repaired one and the delta that repaired it, to the last byte.

    Args:
        folder: the repaired model.
        delta: that was applied.
        out: the new folder.
        link: as in `apply_delta`.

    Raises:
        ValueError: as `apply_delta`; also when the table was trained or changed after the repair.
    """
    return apply_delta(folder, delta, out, link=link, backwards=True)


def _shards(weights: Weights, delta: Delta, backwards: bool) -> dict[Path, list[tuple[StoredTensor, StoredRows]]]:
    """Files that hold a table, with the spans to replace in the order of the file."""
    shards: dict[Path, list[tuple[StoredTensor, StoredRows]]] = {}
    for rows in delta.tables:
        for name in rows.facts.tensors:
            entry = weights.tensors.get(name)
            if entry is not None and rows.facts.role == "bias":
                entry = entry.column()
            if entry is None or (entry.shape, entry.dtype) != (rows.facts.shape, rows.facts.dtype):
                raise ValueError(
                    f"{delta.path} is for another model, {plain(delta.facts.model)}: {weights.path} has no "
                    f"{plain(name)} {list(rows.facts.shape)} {plain(rows.facts.dtype)}; name the one it was made from"
                )
            _require_match(tensor_digest(entry.file, entry), name, rows, weights.path, delta, backwards)
            shards.setdefault(entry.file, []).append((entry, rows))
    return {path: sorted(tables, key=lambda table: table[0].begin) for path, tables in shards.items()}


def _require_match(digest: str, name: str, rows: StoredRows, path: Path, delta: Delta, backwards: bool) -> None:
    """Refuses a table that is not the one the delta was made from (or, backwards, made)."""
    expected, opposite = rows.facts.before, rows.facts.after
    if backwards:
        expected, opposite = opposite, expected
    if digest == expected:
        return
    if backwards and digest == opposite:
        raise ValueError(f"{path} is the original already; there is nothing to undo")
    if backwards:
        raise ValueError(
            f"{plain(name)} of {path} is not as {delta.path} left it (its SHA-256 differs): it was trained or changed "
            "since, or is another model; undo on the folder that apply wrote"
        )
    if digest == opposite:
        raise ValueError(f"{delta.path} is applied to {path} already; name the original model")
    raise ValueError(
        f"{delta.path} is for another model, {plain(delta.facts.model)}: the SHA-256 of {plain(name)} in {path} "
        "differs; name the model it was made from, or make a delta for this one"
    )


def _notes(source: Path, files: dict[str, Path], weights: Weights) -> list[str]:
    """Warnings about files that are taken over as they are."""
    notes = []
    if unread := weights.unread(files):
        notes.append(f"taken over as they are, with the old table if they hold it: {join_names(unread)}")
    if source.is_dir() and (omitted := [name for name in EXCLUDED if (source / name).exists()]):
        notes.append(f"left out: {', '.join(omitted)}")
    return notes


def _rewrite(
    source: Path, target: Path, tables: list[tuple[StoredTensor, StoredRows]], delta: Delta, backwards: bool
) -> None:
    """Writes a safetensors file with the rows of some tables replaced; the header and all else keep their bytes."""
    with source.open("rb") as old, target.open("xb") as new:
        position = 0
        for span, rows in tables:
            copy_range(old, new, position, span.begin, STEP)
            digest = sha256()
            for content in patch_table(old, span, delta, rows, backwards, STEP):
                digest.update(content)
                new.write(content)
            if digest.hexdigest() != (rows.facts.before if backwards else rows.facts.after):
                raise ValueError(f"{delta.path} is damaged (its rows do not make the table it tells of); make it again")
            position = span.end
        copy_range(old, new, position, source.stat().st_size, STEP)
