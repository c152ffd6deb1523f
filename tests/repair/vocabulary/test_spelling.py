"""Tokens as users write them: files and lists, spellings of vocabularies, what is new among them."""

import json
from pathlib import Path

import pytest
from tests.repair.vocabularies import tokenizer

from decone.repair.vocabulary.spelling import read_tokens, select_new


def test_reading() -> None:
    Path("t.txt").write_bytes("\ufeffcovid\r\n Zürich \n\nblog\n".encode())
    assert read_tokens("t.txt") == ["covid", "Zürich", "", "blog"]
    assert read_tokens("covid, blog") == ["covid", "blog"]
    assert read_tokens("a.txt,b") == ["a.txt", "b"]
    assert read_tokens("x" * 5000) == ["x" * 5000]
    for absent in ("absent.txt", "folder/absent"):
        with pytest.raises(ValueError, match="no file"):
            read_tokens(absent)
    Path("b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_tokens("b.txt")


def test_sorting_out() -> None:
    inner, _ = tokenizer("bert")
    spec = json.loads(inner.to_str())
    selection = select_new(["the", "covid", "covid", " ", "", "The", "[MASK]"], spec, inner, {1})
    assert [spelling.name for spelling in selection.spellings] == ["covid"]
    assert selection.skipped == {
        "known already": ["the", "[MASK]"],
        "read as one token already": ["The"],
        "given twice": ["covid"],
        "empty": [" ", ""],
    }
    with pytest.raises(ValueError, match="no new token"):
        select_new(["the", ""], spec, inner, {1})
