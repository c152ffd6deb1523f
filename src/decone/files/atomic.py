"""Files and folders that are written beside their place, brought to disk and renamed: complete, or not there at all.

A kill at any moment, or a full disk, leaves the old file or the new one, never half of one. What a killed process was
writing is removed by the next that writes the same.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decone.files.failure import WriteError, folders_above, is_full
from decone.files.foreign import plain
from decone.files.lock import HOST, is_alive, lock

UNFINISHED = ".writing"  # end of the name of what is not complete yet
_LOCK = ".lock"  # end of the name of the lock of a new model
_WRITER = re.compile(r"(\d{1,9})(?:@(\S+))?")  # process and host in such a name


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well; whatever goes wrong leaves nothing behind.

    Args:
        path: of the file, which is replaced if it exists.

    Raises:
        WriteError: the disk is full or the file cannot be written.
        ValueError: a file that the block reads cannot be read.

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
        clear_unfinished(path)
        yield beside
        _sync(beside)
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _failure(path, beside, error) from None
    finally:
        _remove(beside)


@contextmanager
def atomic_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends well; whatever goes wrong leaves nothing behind.

    Args:
        path: of the folder; folders above it are made, and removed again when they stay empty.
        overwrite: removes what is at `path` just before the new folder takes its name.

    Raises:
        WriteError: the disk is full or the folder cannot be written.
        ValueError: a file that the block reads cannot be read.
    """
    beside = _unfinished(path.absolute())
    with folders_above(path):
        try:
            clear_unfinished(path)
            beside.mkdir()
            yield beside
            for folder, _, names in os.walk(beside):
                for name in names:
                    _sync(Path(folder, name))
                _sync_folder(Path(folder))
            if overwrite:
                _remove(path)
            beside.rename(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise _failure(path, beside, error) from None
        finally:
            _remove(beside)


@contextmanager
def new_folder(path: Path, source: Path) -> Iterator[Path]:
    """A folder to fill for a changed model, which becomes `path` when the block ends well; the source stays as it is.

    Args:
        path: of the new folder.
        source: folder or file of the model.

    Raises:
        ValueError: as `require_vacant` and `atomic_folder`.
    """
    with reserve(path, source), atomic_folder(path) as beside:
        yield beside
        _require_absent(path)  # somebody may have made it meanwhile


@contextmanager
def reserve(path: Path, source: Path) -> Iterator[None]:
    """Keeps a path for this process alone while the block writes a file or folder there.

    Args:
        path: of the new file or folder.
        source: folder or file of the model.

    Raises:
        ValueError: as `require_vacant`.
    """
    require_vacant(path, source)
    with folders_above(path), _target_lock(path):
        yield


def require_vacant(path: Path, source: Path) -> None:
    """Refuses a path where a new file or folder cannot be made; what a killed process was writing there is removed.

    Args:
        path: of the new file or folder.
        source: folder or file of the model.

    Raises:
        ValueError: something is there, another process is writing it, or it lies in the model's own folder.
    """
    if source.is_dir() and path.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{plain(path)} lies in the model's own folder, which stays as it is; choose another place")
    if _lock_path(path).exists() or any(_writers(path)):
        with _target_lock(path):
            pass
    _require_absent(path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, as UTF-8 with lines that end as in `text`.

    Raises:
        WriteError: as `atomic_file`.
    """
    with atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def clear_unfinished(path: Path, locked: bool = False) -> None:
    """Removes what processes that are gone were writing in order to put it at a path.

    Args:
        path: of the file or folder.
        locked: no other process can be writing it; else those of this host are asked for.
    """
    for beside, pid, host in _writers(path):
        if locked or pid == os.getpid() or not is_alive(pid, host):
            _remove(beside)


def _writers(path: Path) -> Iterator[tuple[Path, int, str]]:
    """Unfinished files and folders beside a path, with the process and the host that were writing them."""
    start = f".{path.name}."
    with contextlib.suppress(OSError):
        for name in os.listdir(path.absolute().parent):
            if name.startswith(start) and name.endswith(UNFINISHED):
                match = _WRITER.fullmatch(name[len(start) : -len(UNFINISHED)])
                if match:
                    yield path.absolute().with_name(name), int(match[1]), match[2] or HOST


@contextmanager
def _target_lock(path: Path) -> Iterator[None]:
    with lock(_lock_path(path), f"{plain(path)} is being written", "choose another --out"):
        clear_unfinished(path, locked=True)
        yield


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}{_LOCK}")


def _require_absent(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise ValueError(f"{plain(path)} exists; remove it, or choose another --out")


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}@{HOST}{UNFINISHED}")


def _remove(path: Path) -> None:
    """Removes a file or a folder as far as that is possible."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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


def _failure(path: Path, beside: Path, error: OSError) -> ValueError:
    """The sentence of an error: about the path, or about a file that was read for it."""
    if isinstance(error.filename, str) and not is_full(error):
        file, ours = Path(error.filename).absolute(), beside.absolute()
        if not file.is_relative_to(ours) and not ours.is_relative_to(file):
            return ValueError(f"cannot read {plain(error.filename)}: {error.strerror}; check its disk and permissions")
    return WriteError.of(path, error)
