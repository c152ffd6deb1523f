"""Files and folders that are written beside their place, brought to disk and renamed: complete, or not there at all.

A kill at any moment, or a full disk, leaves the old file or the new one, never half of one.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decone.files.foreign import plain

UNFINISHED = ".writing"  # end of the name of what is not complete yet


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well; whatever goes wrong leaves nothing behind.

    Args:
        path: of the file, which is replaced if it exists.

    Raises:
        ValueError: the disk is full or the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_file(Path(folder, "a.txt")) as beside:
        ...         _ = beside.write_text("new")
        ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
        [('a.txt', 'new')]
    """
    beside = _unfinished(path)
    try:
        beside.unlink(missing_ok=True)  # of a killed process with the same number
        yield beside
        _sync(beside)
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ValueError(_failure(path, error)) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends well; whatever goes wrong leaves nothing behind.

    Args:
        path: of the folder; folders above it are made, and removed again when they stay empty.
        overwrite: removes what is at `path` just before the new folder takes its name.

    Raises:
        ValueError: the disk is full or the folder cannot be written.
    """
    beside = _unfinished(path.absolute())
    absent = [above for above in beside.parents if not above.exists()]
    try:
        shutil.rmtree(beside, ignore_errors=True)  # of a killed process with the same number
        beside.mkdir(parents=True)
        yield beside
        for folder, _, names in os.walk(beside):
            for name in names:
                _sync(Path(folder, name))
            _sync_folder(Path(folder))
        if overwrite:
            shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
        _sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        for above in absent:
            if above.is_dir() and not any(above.iterdir()):
                above.rmdir()
        if isinstance(error, OSError):
            raise ValueError(_failure(path, error)) from None
        raise


@contextmanager
def new_folder(path: Path, source: Path) -> Iterator[Path]:
    """A folder to fill for a changed model, which becomes `path` when the block ends well; the source stays as it is.

    Args:
        path: of the new folder.
        source: folder or file of the model.

    Raises:
        ValueError: as `require_vacant` and `atomic_folder`.
    """
    require_vacant(path, source)
    with atomic_folder(path) as beside:
        yield beside
        require_vacant(path, source)  # somebody may have made it meanwhile


def require_vacant(path: Path, source: Path) -> None:
    """Refuses a path where a new folder cannot be made.

    Args:
        path: of the new folder.
        source: folder or file of the model.

    Raises:
        ValueError: something is there, or it lies in the model's own folder.
    """
    if path.exists() or path.is_symlink():
        raise ValueError(f"{plain(path)} exists; remove it, or choose another folder with --out")
    home = (source if source.is_dir() else source.parent).resolve()
    if source.is_dir() and path.resolve().is_relative_to(home):
        raise ValueError(f"{plain(path)} lies in the model's own folder, which stays as it is; choose another place")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, as UTF-8 with lines that end as in `text`.

    Raises:
        ValueError: as `atomic_file`.
    """
    with atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError, AttributeError):  # not every system can open a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _failure(path: Path, error: OSError) -> str:
    return f"cannot write {plain(path)}: {error.strerror or error}; free space or choose another place"
