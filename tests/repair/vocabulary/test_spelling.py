"""Tokens as users write them: files and lists, spellings of vocabularies, what is new among them."""

import json
from pathlib import Path

import pytest
from tests.repair.vocabularies import tokenizer

from decone.repair.vocabulary.spelling import Special, read_tokens, select_new


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


@pytest.mark.parametrize(
    ("token", "position"),
    [
        ("covid", "word"),
        ("O'Hara", "word"),
        ("3rd-rate", "word"),
        ("გზა", "word"),
        ("ạ", "anywhere"),
        ("n\u0303", "anywhere"),
        ("C++", "anywhere"),
        ("->", "anywhere"),
        ("海", "anywhere"),
        ("👩\u200d👧", "anywhere"),
        ("<|im_start|>", "anywhere"),
        ("Ġcovid", "start"),
        (" covid", "start"),
    ],
)
def test_positions(token: str, position: str) -> None:
    inner, _ = tokenizer("gpt2")
    (spelling,) = select_new([token], json.loads(inner.to_str()), inner, set()).spellings
    assert spelling.position == position


@pytest.mark.parametrize(
    ("special", "expected"), [("marks", [True, True, True, False]), ("all", [True] * 4), ("none", [False] * 4)]
)
def test_special_tokens(special: Special, expected: list[bool]) -> None:
    inner, _ = tokenizer("gpt2")
    tokens = ["<|im_start|>", "[TOOL]", "<image>", "covid"]
    selection = select_new(tokens, json.loads(inner.to_str()), inner, set(), special=special)
    assert [spelling.special for spelling in selection.spellings] == expected


def test_two_spellings_of_one_token() -> None:
    inner, _ = tokenizer("gpt2")
    selection = select_new(["Ġcovid", " covid", "ĠcoviÃ±"], json.loads(inner.to_str()), inner, set())
    assert [spelling.name for spelling in selection.spellings] == [" covid", " coviñ"]
    assert selection.skipped == {"given twice": [" covid"]}


def test_files_and_tokens() -> None:
    Path("words.txt").write_text("covid\n")
    with pytest.raises(ValueError, match=r"no file words, but there is words\.txt; .* itself is meant: words,"):
        read_tokens("words")
    assert read_tokens("words,") == ["words"]
    Path("empty").write_text("\n \n")
    with pytest.raises(ValueError, match="empty is empty; write one token per line"):
        read_tokens("empty")
