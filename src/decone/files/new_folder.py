"""A new folder for a changed checkpoint: made beside and renamed when it is whole; the source stays as it is."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from decone.files.folder import inside
from decone.files.foreign import plain
from decone.files.safetensors import Weights

LEFT_OUT = (".git",)  # history of the source, which the new folder is no commit of
_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".safetensors")


def vacant_folder(out: Path, source: Path) -> None:
    """Refuses a place where a new folder cannot be made.

    Args:
        out: the new folder.
        source: folder or file of the model.

    Raises:
        ValueError: something is there, or it lies in the model's own folder.
    """
    if out.exists() or out.is_symlink():
        raise ValueError(f"{plain(out)} exists; remove it, or choose another folder with --out")
    home = (source if source.is_dir() else source.parent).resolve()
    if source.is_dir() and out.resolve().is_relative_to(home):
        raise ValueError(f"{plain(out)} lies in the model's own folder, which stays as it is; choose another place")


@contextmanager
def new_folder(out: Path, source: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the block ends well; whatever goes wrong leaves nothing behind.

    Args:
        out: the new folder; folders above it are made, and taken away again when they stay empty.
        source: folder or file of the model.

    Raises:
        ValueError: as `vacant_folder`, or the disk is full or cannot be written.
    """
    vacant_folder(out, source)
    beside = out.absolute().with_name(f".{out.name}.{os.getpid()}.writing")
    absent = [place for place in beside.parents if not place.exists()]
    try:
        beside.mkdir(parents=True)
        yield beside
        vacant_folder(out, source)  # somebody may have made it meanwhile
        beside.rename(out)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        for place in absent:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
        if isinstance(error, OSError):
            raise ValueError(_failure(out, error)) from None
        raise


def take_over(path: Path, target: Path, link: bool) -> None:
    """Copies a file, or links it: then both names share their bytes on disk."""
    if link:
        os.link(path.resolve(), target)
    else:
        shutil.copyfile(path, target)


def files_of(root: Path) -> dict[str, Path]:
    """Every file of a folder by its name there; links may lead to other files of it, or of a hub's cache.

    Raises:
        ValueError: a link leads out of the folder or to a folder, or a file is no ordinary one.
    """
    found: dict[str, Path] = {}
    for above, folders, names in os.walk(root):
        if Path(above) == root:
            folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in folders:
            if (Path(above) / name).is_symlink():
                raise ValueError(
                    f"{Path(above) / plain(name)} is a link to a folder, which is not followed; replace it"
                )
        for name in sorted(names):
            relative = str((Path(above) / name).relative_to(root))
            path = inside(root, relative)
            if not path.is_file():
                raise ValueError(f"{root / plain(relative)} is no ordinary file; take it out of the model's folder")
            found[relative] = path
    return found


def other_weights(files: dict[str, Path], weights: Weights) -> list[str]:
    """Names of the files that hold weights but none of those that were read."""
    read = {entry.file for entry in weights.entries.values()}
    return [name for name, path in files.items() if path.suffix in _WEIGHTS and path not in read]


def copy_bytes(old: BinaryIO, new: BinaryIO, begin: int, end: int, step: int) -> None:
    """Copies a part of a file, a piece at a time.

    Raises:
        ValueError: the file ends before.
    """
    old.seek(begin)
    while begin < end:
        content = old.read(min(step, end - begin))
        if not content:
            raise ValueError(f"{plain(old.name)} became shorter while it was read; start again")
        new.write(content)
        begin += len(content)


def _failure(out: Path, error: OSError) -> str:
    if error.errno == errno.EXDEV:
        return f"files cannot be linked from the model to {plain(out)}, which is on another disk; leave out --link"
    reason = error.strerror or str(error)
    return f"cannot write {plain(out)}: {reason}; free space or choose another place. Nothing was written"
