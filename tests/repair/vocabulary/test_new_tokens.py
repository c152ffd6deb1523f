"""Tokens as users write them, and what a tokenizer makes of them."""

import json
from pathlib import Path

import pytest
from tests.repair.vocabularies import KINDS, build, tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from decone.repair.vocabulary.tokenizer import add_tokens, read_tokens, select_new


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
    found = select_new(["the", "covid", "covid", " ", "", "The", "[MASK]"], inner, {1})
    assert found.tokens == ["covid"]
    assert found.skipped == {
        "known already": ["the", "[MASK]"],
        "read as one token already": ["The"],
        "given twice": ["covid"],
        "empty": [" ", ""],
    }
    with pytest.raises(ValueError, match="no new token"):
        select_new(["the", ""], inner, {1})


@pytest.mark.parametrize("kind", KINDS)
def test_texts_without_new_tokens_are_cut_as_before(kind: str) -> None:
    source = build(kind, Path("m"))
    parts = json.loads((source / "tokenizer.json").read_text())
    files, ids = add_tokens(source, parts, ["covid", "3rd-rate", "O'Hara"])
    old, new = Tokenizer.from_file("m/tokenizer.json"), Tokenizer.from_str(files["tokenizer.json"].decode())
    text = "the cat, don't covidx recovid 3rd-rated"
    assert old.encode(text).ids == new.encode(text).ids
    assert set(ids) <= set(new.encode("covid O'Hara (3rd-rate)").ids)
    assert ids == list(range(old.get_vocab_size(), old.get_vocab_size() + 3))
    kept = json.loads(files["tokenizer.json"])
    kept["added_tokens"] = kept["added_tokens"][:-3]
    assert kept == parts  # nothing else was touched


def test_gaps_in_the_ids() -> None:
    inner = Tokenizer(models.WordLevel({"a": 0, "b": 3, "?": 1}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(ValueError, match="have gaps"):
        add_tokens(Path(), json.loads(inner.to_str()), ["new"])


def test_tokens_that_are_not_found_again() -> None:
    inner, _ = tokenizer("bert")
    parts = json.loads(inner.to_str())
    with pytest.raises(ValueError, match=r"does not find [Bb]log in a text again"):
        add_tokens(Path(), parts, ["blog", "Blog"])  # one of them alone is what the tokenizer reads
