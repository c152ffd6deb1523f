"""Public files: read on this machine or fetched once, and used only when their SHA-256 is the published one."""

import hashlib
import lzma
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from decone.files.atomic import atomic_file
from decone.files.failure import make_folder
from decone.files.foreign import plain

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

TIMEOUT = 30.0  # seconds without an answer
MAX_PACKED = 2**28  # no published file is larger when it is unpacked


@dataclass(frozen=True)
class Published:
    """A public file."""

    path: str  # below the data folder
    address: str | None  # where it is fetched from, None where no stable address gives it
    sha256: str  # digest of its content, unpacked
    source: str = ""  # hint in words for a user who has to fetch it, where there is no address


def find(public: Published, name: str | None = None, otherwise: str = "") -> tuple[bytes, Path]:
    """Reads a published file from DECONE_DATA, `../shared/data` or the cache, else fetches it; `.xz` will do.

    Messages give its name, or its path, and what else a user might do where it cannot be had (", or ...").

    Raises:
        ValueError: it has another digest, or is nowhere and cannot be fetched; the message says what to put where.
    """
    name = name or public.path
    for path in local_paths(public):
        if path.is_file():
            data = _content(path)
            if data is not None and hashlib.sha256(data).hexdigest() == public.sha256:
                return data, path
            raise ValueError(f"{path} is not the published {name} text (SHA-256 differs); remove or replace it")
    path = _download(public, name, otherwise)
    return path.read_bytes(), path


def local_paths(public: Published) -> Iterator[Path]:
    """Paths of a published file on this machine, in the order in which they are tried."""
    folders = [Path(os.environ["DECONE_DATA"])] if os.environ.get("DECONE_DATA") else []
    for folder in (*folders, Path.cwd().parent / "shared" / "data", cache()):
        yield from (folder / public.path, folder / f"{public.path}.xz")


def cache() -> Path:
    """Folder of downloaded files: DECONE_CACHE, else decone under the user's cache folder."""
    if os.environ.get("DECONE_CACHE"):
        return Path(os.environ["DECONE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decone"


def _content(path: Path) -> bytes | None:
    """The bytes of a file, unpacked if it is compressed; None if it cannot be, or would be far too large."""
    if path.suffix != ".xz":
        return path.read_bytes()
    try:
        with lzma.open(path) as file:
            data = file.read(MAX_PACKED + 1)
    except (lzma.LZMAError, EOFError):
        return None
    return data if len(data) <= MAX_PACKED else None


def _download(public: Published, name: str, otherwise: str) -> Path:
    put = f"put it at DIR/{public.path} and set DECONE_DATA=DIR{otherwise}"
    if public.address is None:
        raise ValueError(
            f"no public address gives {name} as it is used here; {public.source or 'fetch it elsewhere'}, {put} "
            f"(checked by SHA-256 {public.sha256[:16]}...)"
        )
    import pooch
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    path = cache() / public.path
    pooch.get_logger().setLevel("WARNING")
    console = Console(stderr=True)
    columns = (TextColumn("downloading {task.description}"), BarColumn(), DownloadColumn())
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        tempfile.TemporaryDirectory() as folder,
    ):
        downloader = pooch.HTTPDownloader(_Bar(progress, progress.add_task(name, total=None)), timeout=TIMEOUT)
        try:
            file = pooch.retrieve(
                public.address, f"sha256:{public.sha256}", path.name, Path(folder), downloader=downloader
            )
        except OSError as error:  # those of requests too
            raise ValueError(
                f"cannot download {name} from {public.address} ({_root(error)}); fetch it elsewhere, {put}"
            ) from None
        except ValueError:  # what pooch raises for another digest
            raise ValueError(f"{public.address} no longer gives the published {name} text (SHA-256 differs)") from None
        make_folder(path.parent)
        with atomic_file(path) as beside:
            shutil.copyfile(file, beside)
    return path


class _Bar:
    """A progress bar of rich as pooch moves it."""

    total = 0

    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self.progress, self.task = progress, task

    def update(self, size: int) -> None:
        self.progress.update(self.task, advance=size, total=self.total or None)

    def reset(self) -> None:
        self.progress.reset(self.task)

    def close(self) -> None:
        self.progress.stop_task(self.task)


def _root(error: BaseException) -> str:
    """Message of the error that an error of the network was made from; requests wraps several times."""
    while error.__context__ is not None:
        error = error.__context__
    return plain(str(error).strip() or type(error).__name__)
