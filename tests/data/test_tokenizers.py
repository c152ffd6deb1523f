"""Tokenizers: ids in sorted order, every text comes back, files that are read again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decone.data.tokenizers import TextTokenizer

# What UTF-8 can hold: no lone surrogates. NUL is refused before a tokenizer sees it.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=80)


@given(text=TEXTS)
def test_characters_are_numbered_in_sorted_order_and_come_back(text: str) -> None:
    tokenizer = TextTokenizer.characters(text)
    order = sorted(set(text))
    ids = tokenizer.encode(text)
    assert tokenizer.size == len(order)
    assert ids.tolist() == [order.index(character) for character in text]
    assert tokenizer.decode(ids.tolist()) == text
    assert tokenizer.tokens() == order


@given(text=TEXTS)
def test_bytes_come_back_from_bpe(text: str) -> None:
    tokenizer = TextTokenizer.bpe("a rose is a rose is a rose\n" * 20, 300)
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


def test_line_ends_of_every_kind_are_kept() -> None:
    text = "a\r\nb\rc\x0bd\x0ce\x1cf\x85g\u2028h\u2029i\n\n"
    for tokenizer in (TextTokenizer.characters(text), TextTokenizer.bpe(text, 256)):
        assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


def test_bpe_has_at_most_the_size_asked_for_and_merges_what_is_frequent() -> None:
    text = "the cat and the hat\n" * 50
    tokenizer = TextTokenizer.bpe(text, 270)
    assert 256 < tokenizer.size <= 270
    assert len(tokenizer.encode(text)) < len(text) / 2
    assert TextTokenizer.bpe(text, 256).size == 256
    assert len(TextTokenizer.bpe(text, 256).encode("the")) == 3


def test_bpe_is_the_same_every_time() -> None:
    text = "".join(f"word{index % 37} and word{index % 11}\n" for index in range(500))
    first, second = (TextTokenizer.bpe(text, 400).inner.to_str() for _ in range(2))
    assert first == second


def test_too_few_tokens_for_all_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 256 tokens, got 255; raise tokenizer\.size"):
        TextTokenizer.bpe("text", 255)


def test_strange_characters_are_named() -> None:
    tokenizer = TextTokenizer.characters("abc\n")
    with pytest.raises(ValueError, match=r"does not know, e\.g\. \['x', 'é'\]"):
        tokenizer.encode("abc\nébx")


@pytest.mark.parametrize("make", [TextTokenizer.characters, lambda text: TextTokenizer.bpe(text, 280)])
def test_a_file_gives_the_same_tokenizer(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text = "to be or not to be\n" * 9
    tokenizer = make(text)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert again.tokens() == tokenizer.tokens()


@pytest.mark.parametrize("content", [None, "", "{}", '{"version": "1.0"', "\x00\x01"])
def test_a_damaged_file_is_refused(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match="cannot read the tokenizer"):
        TextTokenizer.load(path)


def test_the_published_text_has_65_characters(data: Path) -> None:
    text = (data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    tokenizer = TextTokenizer.characters(text)
    assert tokenizer.size == 65
    assert tokenizer.tokens()[:2] == ["\n", " "]
    assert len(tokenizer.encode(text)) == 1_115_394
