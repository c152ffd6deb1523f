"""Corpora: by name, by file, downloaded once, and refused in one sentence."""

import hashlib
import lzma
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from decone.data import corpora
from decone.data import published as files

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> corpora.Published:
    """A small text in the place of Shakespeare; no folder of real corpora is looked at."""
    public = corpora.Published(
        "tiny/input.txt", "https://example.org/tiny.txt", hashlib.sha256(TEXT.encode()).hexdigest()
    )
    monkeypatch.setitem(corpora.PUBLISHED, "shakespeare", public)
    monkeypatch.delenv("DECONE_DATA", raising=False)
    return public


class Server:
    """Answers every request with the same bytes, as they are.

    Attributes:
        paths: that were requested.
    """

    def __init__(self, answer: bytes) -> None:
        self.answer, self.paths = answer, list[str]()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/tiny.txt"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:  # closed
                return
            with connection:
                self.paths.append(connection.recv(1 << 16).split()[1].decode())
                connection.sendall(self.answer)


def http_answer(content: bytes, length: int | None = None, status: str = "200 OK") -> bytes:
    size = len(content) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode() + content


@pytest.fixture
def serve(published: corpora.Published, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Server]]:
    """Starts a server from which the text of `published` is fetched."""
    servers = []

    def start(answer: bytes) -> Server:
        servers.append(Server(answer))
        monkeypatch.setitem(corpora.PUBLISHED, "shakespeare", replace(published, address=servers[0].address))
        return servers[0]

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield start
    for server in servers:
        server.socket.close()


def test_the_default_text_is_on_every_machine() -> None:
    corpus = corpora.load()
    assert corpus.name == "default"
    assert len(corpus.text) > 400_000
    assert corpus.sha256 == hashlib.sha256(corpus.text.encode()).hexdigest()
    assert corpora.load("default").text == corpus.text


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("a\r\nß\n".encode())
    corpus = corpora.load(str(path))
    assert corpus.text == "a\r\nß\n"
    assert corpus.source == "the file text.txt", "the folder is this machine's business"
    assert corpus.sha256 == hashlib.sha256("a\r\nß\n".encode()).hexdigest()


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfabc")
    assert corpora.load("text.txt").text == "abc"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; give a text"),
        (b" \n\t ", "is empty; give a text"),
        (b"abc\0def", "is a binary file; give plain text"),
        ("Grüße".encode("latin-1"), r"is not UTF-8 \(byte 2\); convert it"),
        ("text".encode("utf-16"), "is a binary file"),
    ],
)
def test_what_is_no_text_is_refused(content: bytes, message: str) -> None:
    Path("text.txt").write_bytes(content)
    with pytest.raises(ValueError, match=f"text.txt {message}"):
        corpora.load("text.txt")


def test_what_is_no_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no file nowhere\.txt; name a UTF-8 text file, or one of default"):
        corpora.load("nowhere.txt")
    Path("folder").mkdir()
    with pytest.raises(ValueError, match="folder is a folder; name a text file in it"):
        corpora.load("folder")
    os.mkfifo("pipe")
    with pytest.raises(ValueError, match="pipe is not an ordinary file"):
        corpora.load("pipe")
    Path("large.txt").write_text("abcd")
    monkeypatch.setattr(corpora, "MAX_BYTES", 3)
    with pytest.raises(ValueError, match=r"large\.txt is larger than"):
        corpora.load("large.txt")


def test_the_data_folder_is_looked_at_first(
    published: corpora.Published,
    serve: Callable[[bytes], Server],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    server = serve(b"")
    path = tmp_path / "data" / published.path
    path.parent.mkdir(parents=True)
    path.write_text(TEXT)
    monkeypatch.setenv("DECONE_DATA", str(tmp_path / "data"))
    assert corpora.load("shakespeare").text == TEXT
    assert not server.paths


def test_a_compressed_text_is_unpacked(
    tmp_path: Path, published: corpora.Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECONE_DATA", str(tmp_path))
    packed = tmp_path / f"{published.path}.xz"
    packed.parent.mkdir()
    packed.write_bytes(lzma.compress(TEXT.encode()))
    assert corpora.load("shakespeare").text == TEXT
    with monkeypatch.context() as small, pytest.raises(ValueError, match="is not the published shakespeare text"):
        small.setattr(files, "MAX_PACKED", len(TEXT) - 1)
        corpora.load("shakespeare")
    packed.write_bytes(packed.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is not the published shakespeare text"):
        corpora.load("shakespeare")


def test_another_text_in_its_place_is_refused(
    published: corpora.Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "data" / published.path
    path.parent.mkdir(parents=True)
    path.write_text(TEXT + "!")
    monkeypatch.setenv("DECONE_DATA", str(tmp_path / "data"))
    with pytest.raises(ValueError, match=r"is not the published shakespeare text \(SHA-256 differs\); remove or"):
        corpora.load("shakespeare")


def test_a_text_is_downloaded_once(serve: Callable[[bytes], Server], capfd: pytest.CaptureFixture[str]) -> None:
    server = serve(http_answer(TEXT.encode()))
    first, second = corpora.load("shakespeare"), corpora.load("shakespeare")
    assert first == second
    assert first.text == TEXT
    assert server.paths == ["/tiny.txt"]
    assert capfd.readouterr() == ("", ""), "a progress bar is for terminals, and stdout for results"
    assert [path.name for path in (files.cache() / "tiny").iterdir()] == ["input.txt"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "cannot download shakespeare .*set DECONE_DATA=DIR, or use --corpus"),
        (b"?\r\n\r\n", "cannot download shakespeare"),
        (http_answer(b"gone", status="404 Not Found"), "cannot download shakespeare .*404"),
        (http_answer(TEXT.encode()[:9], len(TEXT)), "cannot download shakespeare .*9 bytes read, 52 more expected"),
        (http_answer(b"<html>log in</html>"), "no longer gives the published shakespeare text"),
    ],
)
def test_a_download_that_fails_says_what_to_do_and_leaves_nothing(
    answer: bytes, message: str, serve: Callable[[bytes], Server]
) -> None:
    serve(answer)
    with pytest.raises(ValueError, match=message) as error:
        corpora.load("shakespeare")
    assert "\n" not in str(error.value)
    assert not files.cache().exists()


def test_without_a_network_one_sentence_says_so(serve: Callable[[bytes], Server]) -> None:
    server = serve(b"")
    server.socket.shutdown(socket.SHUT_RDWR)
    server.socket.close()
    with pytest.raises(
        ValueError, match=r"cannot download .*txt \(\[Errno \d+\] Connection refused\); fetch it elsewhere"
    ):
        corpora.load("shakespeare")
    assert not files.cache().exists()


def test_a_server_that_says_nothing_is_given_up(
    published: corpora.Published, monkeypatch: pytest.MonkeyPatch, serve: Callable[[bytes], Server]
) -> None:
    monkeypatch.setattr(Server, "_serve", lambda server: None)
    monkeypatch.setattr(files, "TIMEOUT", 0.2)
    serve(b"")
    with pytest.raises(ValueError, match=r"cannot download shakespeare .*timed out"):
        corpora.load("shakespeare")


LENGTHS = {
    "shakespeare": 1_115_394,
    "wikitext-2": 10_780_437,
    "ptb": 5_101_618,
}


@pytest.mark.parametrize("name", corpora.PUBLISHED)
def test_the_published_digest_is_that_of_the_text(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECONE_DATA", str(data))
    corpus = corpora.load(name)
    assert len(corpus.text) == LENGTHS[name]
    assert corpus.sha256 == corpora.PUBLISHED[name].sha256
