"""A new checkpoint with a repaired table, or with the original one again; the source stays as it is.

Only the files that hold a table are written anew, its bytes replaced and all others taken over unread. A new folder is
made beside and renamed when it is whole.
"""

from hashlib import sha256
from pathlib import Path

from decone.files.atomic import new_folder, require_vacant
from decone.files.folder import EXCLUDED, copy_file, list_files
from decone.files.foreign import join_names, plain
from decone.files.safetensors import StoredTensor, Weights, copy_range, open_weights
from decone.models.find_tables import find_tables
from decone.repair.delta import Delta, Rows, digest, patched, read_delta
from decone.repair.result import WRITTEN, Written
from decone.repair.tables import home

STEP = 1 << 24  # bytes copied at once


def apply(model: str, delta: Path, out: Path, *, link: bool = False, backwards: bool = False) -> Written:
    """Writes a model with a delta applied.

    Args:
        model: a folder, a .safetensors file, or a name at a hub.
        delta: file that a repair wrote.
        out: the new folder.
        link: other files are not copied but linked: they share their bytes on disk with the source.
        backwards: the model is the repaired one, and the original is made again, bit by bit.

    Returns:
        What was written.

    Raises:
        ValueError: the delta is damaged or not of this model (told by the SHA-256 of the table), the target exists or
            lies in the source, or the disk is full; nothing is left behind.
    """
    opened = read_delta(delta)
    source = Path(model) if Path(model).exists() else home(find_tables(model))
    require_vacant(out, source)
    weights = open_weights(source)
    shards = _shards(weights, opened, backwards)
    files = list_files(source) if source.is_dir() else {source.name: source}
    result = Written(
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


def undo(folder: str, delta: Path, out: Path, *, link: bool = False) -> Written:
    """Makes the original checkpoint from a repaired one and the delta that repaired it, to the last byte.

    Args:
        folder: the repaired model.
        delta: that was applied.
        out: the new folder.
        link: as in `apply`.

    Raises:
        ValueError: as `apply`; also when the table was trained or changed after the repair.
    """
    return apply(folder, delta, out, link=link, backwards=True)


def _shards(weights: Weights, delta: Delta, backwards: bool) -> dict[Path, list[tuple[StoredTensor, Rows]]]:
    """Files that hold a table, and what is replaced in them, in the order of the file."""
    found: dict[Path, list[tuple[StoredTensor, Rows]]] = {}
    for rows in delta.tables:
        for name in rows.facts.tensors:
            entry = weights.tensors.get(name)
            if entry is None or (entry.shape, entry.dtype) != (rows.facts.shape, rows.facts.dtype):
                raise ValueError(
                    f"{delta.path} is for another model, {plain(delta.facts.model)}: {weights.path} has no "
                    f"{plain(name)} {list(rows.facts.shape)} {plain(rows.facts.dtype)}; name the one it was made from"
                )
            _require_match(digest(entry.file, entry), name, rows, weights.path, delta, backwards)
            found.setdefault(entry.file, []).append((entry, rows))
    return {path: sorted(parts, key=lambda part: part[0].begin) for path, parts in found.items()}


def _require_match(held: str, name: str, rows: Rows, place: Path, delta: Delta, backwards: bool) -> None:
    """Refuses a table that is not the one the delta was made from (or, backwards, made)."""
    wanted, other = rows.facts.before, rows.facts.after
    if backwards:
        wanted, other = other, wanted
    if held == wanted:
        return
    if backwards and held == other:
        raise ValueError(f"{place} is the original already; there is nothing to undo")
    if backwards:
        raise ValueError(
            f"{plain(name)} of {place} is not as {delta.path} left it (its SHA-256 differs): it was trained or changed "
            "since, or is another model; undo on the folder that apply wrote"
        )
    if held == other:
        raise ValueError(f"{delta.path} is applied to {place} already; name the original model")
    raise ValueError(
        f"{delta.path} is for another model, {plain(delta.facts.model)}: the SHA-256 of {plain(name)} in {place} "
        "differs; name the model it was made from, or make a delta for this one"
    )


def _notes(source: Path, files: dict[str, Path], weights: Weights) -> list[str]:
    """What a reader must know of files that are taken over as they are."""
    notes = []
    if others := weights.unread(files):
        notes.append(f"taken over as they are, with the old table if they hold it: {join_names(others)}")
    if source.is_dir() and (left := [name for name in EXCLUDED if (source / name).exists()]):
        notes.append(f"left out: {', '.join(left)}")
    return notes


def _rewrite(source: Path, target: Path, parts: list[tuple[StoredTensor, Rows]], delta: Delta, backwards: bool) -> None:
    """Writes a safetensors file with the rows of some tables replaced; the header and all else keep their bytes."""
    with source.open("rb") as old, target.open("xb") as new:
        here = 0
        for place, rows in parts:
            copy_range(old, new, here, place.begin, STEP)
            made = sha256()
            for content in patched(old, place, delta, rows, backwards, STEP):
                made.update(content)
                new.write(content)
            if made.hexdigest() != (rows.facts.before if backwards else rows.facts.after):
                raise ValueError(f"{delta.path} is damaged (its rows do not make the table it tells of); make it again")
            here = place.end
        copy_range(old, new, here, source.stat().st_size, STEP)
