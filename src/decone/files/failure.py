"""A disk that will not: full, read-only, broken, or a folder that is gone, each said in one sentence."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decone.files.foreign import plain

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


class WriteError(ValueError):
    """Something that was to be written could not be; the input was right, so the command line exits with 1.

    Args:
        path: that was to be written.
        reason: in the words of the system.
        remedy: to be done before the next try.
        continuation: of the sentence, after the remedy.

    Example:
        >>> print(WriteError("a.json", "No space left on device", "free space"))
        cannot write a.json: No space left on device; free space or choose another place
    """

    def __init__(
        self, path: str, reason: str, remedy: str = "free space", continuation: str = " or choose another place"
    ) -> None:
        super().__init__(path, reason, remedy, continuation)
        self.path, self.reason, self.remedy, self.continuation = path, reason, remedy, continuation

    def __str__(self) -> str:
        return f"cannot write {self.path}: {self.reason}; {self.remedy}{self.continuation}"

    def continued(self, continuation: str) -> "WriteError":
        """The same failure with another end of its sentence, e.g. ", then run the same command again"."""
        return WriteError(self.path, self.reason, self.remedy, continuation)

    @classmethod
    def of(cls, path: str | os.PathLike[str], error: OSError) -> "WriteError":
        """The failure that an error of the system means for the file or folder at a path."""
        remedy = "free space" if is_full(error) else "check its disk and permissions,"
        return cls(plain(path), error.strerror or plain(error), remedy)


def is_full(error: OSError) -> bool:
    """True if a disk, a quota or a limit on files is exhausted."""
    return error.errno in _FULL


@contextmanager
def write_failures(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes one sentence of what the system raises while a file or folder is written.

    Raises:
        WriteError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise WriteError.of(path, error) from None


def make_folder(path: Path) -> Path:
    """Makes a folder, and those above it, unless it is there.

    Raises:
        WriteError: the disk is full.
        ValueError: a folder cannot be there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_full(error):
            raise WriteError.of(path, error) from None
        raise ValueError(f"cannot write to {plain(path)}: {error.strerror}; choose another folder") from None
    return path


@contextmanager
def folders_above(path: Path) -> Iterator[None]:
    """Makes the folders that a path lies in; whatever goes wrong in the block removes those that stay empty.

    Raises:
        ValueError: as `make_folder`.
    """
    absent = [above for above in path.absolute().parents if not above.exists()]
    try:
        make_folder(path.absolute().parent)
        yield
    except BaseException:
        for above in absent:
            try:
                above.rmdir()
            except OSError:  # it is not empty, or was not made
                break
        raise
