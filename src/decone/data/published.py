"""Public files: found on this machine or fetched once, and taken only when their SHA-256 is the published one."""

import hashlib
import http.client
import lzma
import os
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

MAX_PACKED = 2**28  # no published file is larger when it is unpacked


@dataclass(frozen=True)
class Published:
    """A public file.

    Attributes:
        path: where it lies under the data folder.
        address: where it is fetched, None where no stable address gives it.
        sha256: digest of its content, unpacked.
        source: where a user finds it, in words, where there is no address.
    """

    path: str
    address: str | None
    sha256: str
    source: str = ""


def find(public: Published, name: str | None = None, otherwise: str = "") -> tuple[bytes, Path]:
    """Finds a published file, in DECONE_DATA, in `../shared/data`, in the cache; else fetches it; `.xz` will do.

    Args:
        public: the file.
        name: in messages; its path if None.
        otherwise: what else a user might do where it cannot be had, ", or ...".

    Returns:
        Content and local path.

    Raises:
        ValueError: it has another digest, or is nowhere and cannot be fetched; the message says what to put where.
    """
    name = name or public.path
    for path in places(public):
        if path.is_file():
            data = _content(path)
            if data is not None and hashlib.sha256(data).hexdigest() == public.sha256:
                return data, path
            raise ValueError(f"{path} is not the published {name} text (SHA-256 differs); remove or replace it")
    path = _download(public, name, otherwise)
    return path.read_bytes(), path


def places(public: Published) -> Iterator[Path]:
    """Where a published file may lie on this machine, in the order in which it is looked for."""
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
    path = cache() / public.path
    console = Console(stderr=True)
    columns = (TextColumn("downloading {task.description}"), BarColumn(), DownloadColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(name, total=None)
            data = _fetch(public.address, lambda done, total: progress.update(task, completed=done, total=total))
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"cannot download {name} from {public.address} ({error}); fetch it elsewhere, {put}") from None
    if hashlib.sha256(data).hexdigest() != public.sha256:
        raise ValueError(f"{public.address} no longer gives the published {name} text (SHA-256 differs)")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.replace(path)
    return path


def _fetch(address: str, report: Callable[[int, int | None], None]) -> bytes:
    data = bytearray()
    with urllib.request.urlopen(address, timeout=30) as answer:
        total = int(answer.headers["Content-Length"]) if answer.headers.get("Content-Length") else None
        while block := answer.read(1 << 16):
            data += block
            report(len(data), total)
    if total is not None and len(data) < total:
        raise OSError(f"the answer ended after {len(data)} of {total} bytes")
    return bytes(data)
