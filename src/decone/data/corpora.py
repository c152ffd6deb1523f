"""Plain text by name: the embedded default, Tiny Shakespeare, or the user's own file."""

import hashlib
import http.client
import lzma
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

DEFAULT = "default"
MAX_BYTES = 4 * 2**30
MAX_PACKED = 2**28  # no published text is larger when it is unpacked


@dataclass(frozen=True)
class Corpus:
    """A text and where it comes from.

    Attributes:
        name: as given on the command line.
        text: the whole text.
        sha256: digest of the text in UTF-8.
        source: where it was read, in words.
    """

    name: str
    text: str
    sha256: str
    source: str


@dataclass(frozen=True)
class Published:
    """A public file: where it lies under the data folder, its address, its digest."""

    path: str
    address: str
    sha256: str


PUBLISHED = {
    "shakespeare": Published(
        "tinyshakespeare/input.txt",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "wikitext-2": Published(
        "wikitext-2/wiki.train.tokens",
        "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/train.txt",
        "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
    ),
}


def load(name: str = DEFAULT) -> Corpus:
    """Reads a corpus.

    Args:
        name: "default" (the Python language reference that every CPython carries, about 465,000 characters),
            "shakespeare" (1,115,394 characters) or "wikitext-2" (its training text, 10.8 MB), both downloaded once if
            not found locally, or the path of a UTF-8 file.

    Raises:
        ValueError: there is no such text, or it is not text; the message says what to do.

    Example:
        >>> len(load("default").text) > 400_000
        True
    """
    if name == DEFAULT:
        return _corpus(name, _language_reference(), "pydoc_data.topics of this Python")
    if name in PUBLISHED:
        data, path = find(name)
        return _corpus(name, decode(data, path), f"{PUBLISHED[name].address}, checked by SHA-256")
    return _corpus(name, read_text(Path(name)), f"the file {Path(name).name}")


def read_text(path: Path) -> str:
    """Reads a UTF-8 text file; raises ValueError with the mend when it is missing, a folder, empty or not text."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a text file in it")
    if not path.exists():
        raise ValueError(f"no file {path}; name a UTF-8 text file, or one of {DEFAULT}, {', '.join(sorted(PUBLISHED))}")
    if not path.is_file():
        raise ValueError(f"{path} is not an ordinary file; name a UTF-8 text file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES >> 30} GiB; cut it into a smaller text")
    try:
        return decode(path.read_bytes(), path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; check its permissions") from None


def decode(data: bytes, path: Path) -> str:
    """Bytes as text: UTF-8, not empty, no NUL; raises ValueError with the mend otherwise."""
    if b"\0" in data:
        raise ValueError(f"{path} is a binary file; give plain text in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}); convert it, e.g. with iconv -t UTF-8") from None
    if not text.strip():
        raise ValueError(f"{path} is empty; give a text of some thousand characters or more")
    return text


def find(name: str) -> tuple[bytes, Path]:
    """Content and local path of a published file, downloaded into the cache when it is nowhere; `.xz` will do."""
    public = PUBLISHED[name]
    folders = [Path(os.environ["DECONE_DATA"])] if os.environ.get("DECONE_DATA") else []
    for folder in (*folders, Path.cwd().parent / "shared" / "data", cache()):
        for path in (folder / public.path, folder / f"{public.path}.xz"):
            if path.is_file():
                data = _content(path)
                if data is not None and hashlib.sha256(data).hexdigest() == public.sha256:
                    return data, path
                raise ValueError(f"{path} is not the published {name} text (SHA-256 differs); remove or replace it")
    path = _download(name, public)
    return path.read_bytes(), path


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


def cache() -> Path:
    """Folder of downloaded texts: DECONE_CACHE, else decone under the user's cache folder."""
    if os.environ.get("DECONE_CACHE"):
        return Path(os.environ["DECONE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decone"


def _download(name: str, public: Published) -> Path:
    path = cache() / public.path
    console = Console(stderr=True)
    columns = (TextColumn("downloading {task.description}"), BarColumn(), DownloadColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(name, total=None)
            data = _fetch(public.address, lambda done, total: progress.update(task, completed=done, total=total))
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(
            f"cannot download {name} from {public.address} ({error}); fetch it elsewhere, put it at "
            f"DIR/{public.path} and set DECONE_DATA=DIR, or use --corpus {DEFAULT}"
        ) from None
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


def _language_reference() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[title] for title in sorted(topics))


def _corpus(name: str, text: str, source: str) -> Corpus:
    return Corpus(name, text, hashlib.sha256(text.encode()).hexdigest(), source)
