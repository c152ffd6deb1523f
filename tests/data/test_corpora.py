"""Corpora: by name, by file, downloaded once, and refused in one sentence."""

import hashlib
import http.client
import io
import lzma
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

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


class Answer(io.BytesIO):
    def __init__(self, content: bytes, length: int | None = None) -> None:
        super().__init__(content)
        self.headers = {"Content-Length": str(len(content) if length is None else length)}


def serve(monkeypatch: pytest.MonkeyPatch, answer: Answer | Exception) -> list[str]:
    asked = []

    def urlopen(address: str, timeout: float) -> Answer:
        asked.append(address)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


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
    published: corpora.Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = serve(monkeypatch, urllib.error.URLError("no network"))
    path = tmp_path / "data" / published.path
    path.parent.mkdir(parents=True)
    path.write_text(TEXT)
    monkeypatch.setenv("DECONE_DATA", str(tmp_path / "data"))
    assert corpora.load("shakespeare").text == TEXT
    assert not asked


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


def test_a_text_is_downloaded_once(
    published: corpora.Published, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = serve(monkeypatch, Answer(TEXT.encode()))
    first, second = corpora.load("shakespeare"), corpora.load("shakespeare")
    assert first == second
    assert first.text == TEXT
    assert asked == [published.address]
    assert capfd.readouterr() == ("", ""), "a progress bar is for terminals, and stdout for results"
    assert [path.name for path in (files.cache() / "tiny").iterdir()] == ["input.txt"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (urllib.error.URLError("no network"), "cannot download shakespeare .*set DECONE_DATA=DIR, or use --corpus"),
        (TimeoutError("timed out"), "cannot download shakespeare .*timed out"),
        (http.client.BadStatusLine("?"), "cannot download shakespeare"),
        (Answer(TEXT.encode()[:9], len(TEXT)), "cannot download shakespeare .*ended after 9 of 61 bytes"),
        (Answer(b"<html>log in</html>"), "no longer gives the published shakespeare text"),
    ],
)
def test_a_download_that_fails_says_what_to_do_and_leaves_nothing(
    answer: Any, message: str, published: corpora.Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, answer)
    with pytest.raises(ValueError, match=message):
        corpora.load("shakespeare")
    assert not files.cache().exists()


@pytest.mark.parametrize(("name", "length"), [("shakespeare", 1_115_394), ("wikitext-2", 10_780_437)])
def test_the_published_digest_is_that_of_the_text(
    name: str, length: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECONE_DATA", str(data))
    corpus = corpora.load("shakespeare")
    assert len(corpus.text) == 1_115_394
    assert corpus.sha256 == corpora.PUBLISHED["shakespeare"].sha256
