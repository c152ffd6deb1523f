"""Locks that die with their process: one process at a time trains a run, fills a cell, or makes a new model.

A lock is a small file that names its holder, with a lock of the system on it: flock, on Windows a locked byte. The
system drops it when the process ends, whatever ended it, so a file that stays behind locks nothing. NFS carries flock
to other hosts. Where a filesystem has no locks, the name in the file decides: a holder whose process is gone on this
host has no say; any other is respected until its file is removed by hand.
"""

import contextlib
import errno
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decone.files.failure import WriteError, write_failures
from decone.files.foreign import plain

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

HOST = re.sub(r"[^\w.-]", "-", socket.gethostname())[:40] or "localhost"
_WAIT = 0.05  # seconds between tries, and between writing and reading a name where nothing else decides
_UNAVAILABLE = {getattr(errno, name, -1) for name in ("ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ENOLCK", "EINVAL")}


class FolderLock:
    """A lock that this process has.

    Args:
        path: its file.
        handle: the open file.
    """

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self.handle = path, handle

    def require(self) -> None:
        """Refuses to go on in a folder that was removed or renamed; WriteError then."""
        require_present(self.handle, self.path)


def require_present(handle: int, path: Path) -> None:
    """Refuses to write to an open file that is no longer at its path, for its folder was removed, renamed or replaced.

    Raises:
        WriteError: the file at the path is another, or there is none.
    """
    if not _is_same_file(handle, path):
        reason = "the folder was removed or renamed meanwhile"
        raise WriteError(plain(path.parent), reason, "put it back", " or start again")


@contextmanager
def lock(path: Path, subject: str, advice: str, patience: float = 0.0) -> Iterator[FolderLock]:
    """Holds a lock while the block runs; its file is removed afterwards.

    Args:
        path: file of the lock; its folder exists.
        subject: what the holder does, e.g. "runs/a is being trained".
        advice: for a process that is refused, e.g. "choose another --out".
        patience: seconds in which a holder that is ending may end.

    Raises:
        ValueError: another process holds it; the sentence names its id and host.
        WriteError: the file cannot be written.
    """
    end = time.monotonic() + patience
    while (handle := _acquire(path, subject, advice, time.monotonic() < end)) is None:
        time.sleep(_WAIT)
    try:
        yield FolderLock(path, handle)
    finally:
        if sys.platform == "win32":  # where an open file cannot be removed
            os.close(handle)
            _remove(path)
        else:
            if _is_same_file(handle, path):
                _remove(path)
            os.close(handle)


def is_alive(pid: int, host: str) -> bool:
    """False if the process of this number is gone for certain: it was of this host, which has none of that number."""
    if host != HOST or sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:  # another may be that it belongs to another user
        return not isinstance(error, ProcessLookupError)
    return True


def _is_same_file(handle: int, path: Path) -> bool:
    """True if an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _acquire(path: Path, subject: str, advice: str, again: bool) -> int | None:
    """The open file of the lock, this process written into it; None if it is worth another try."""
    with write_failures(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            holder = _holder(handle)
            state = _try(handle)
            free = state if state is not None else holder is None or not is_alive(*holder)
            if free:
                if not _is_same_file(handle, path):  # its last holder has removed it since it was opened
                    os.close(handle)
                    return None
                os.ftruncate(handle, 0)
                os.lseek(handle, 0, os.SEEK_SET)
                os.write(handle, f"{os.getpid()} {HOST}\n".encode())
                if state is None:
                    time.sleep(_WAIT)  # another process may have written its name at the same moment
                    free = _holder(handle) == (os.getpid(), HOST)
            if free:
                return handle
        except BaseException:
            os.close(handle)
            raise
    os.close(handle)
    if again:
        return None
    pid, host = holder or (0, "")
    name = f"process {pid} on {plain(host)}" if pid else "another process"
    gone = f" (or remove {plain(path)} if that process is gone)" if state is None else ""
    raise ValueError(f"{subject} by {name}; wait for its end, or {advice}{gone}")


def _try(handle: int) -> bool | None:
    """True if the lock is ours now, False if another process has it, None if the filesystem has no locks."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, 1 << 30, os.SEEK_SET)  # far behind the name, which others want to read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno in _UNAVAILABLE:
            return None
        raise
    return True


def _holder(handle: int) -> tuple[int, str] | None:
    os.lseek(handle, 0, os.SEEK_SET)
    match = re.fullmatch(rb"(\d{1,9}) (\S{1,60})\s*", os.read(handle, 100))
    return (int(match[1]), match[2].decode("ascii", "replace")) if match else None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # on Windows another process may just look into it
        path.unlink(missing_ok=True)
