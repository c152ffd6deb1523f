"""Ids in sorted order, texts that come back; windows: what a batch depends on, how often a language speaks."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.data.tokens import (
    TRAINING,
    VALIDATION,
    Languages,
    TextTokenizer,
    consecutive,
    random_batch,
    split,
)

ONE = Languages(1000, 0.0)


@given(key=st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 1), st.integers(0, 10**7)), size=st.integers(1, 9))
def test_a_batch_depends_on_its_key_alone(key: tuple[int, int, int], size: int) -> None:
    ids = torch.arange(1000)
    first = random_batch(ids, 7, size, ONE, key)
    torch.manual_seed(key[0] % 1000)
    torch.rand(3)  # other random numbers, before and between, change nothing
    assert torch.equal(random_batch(ids, 7, size, ONE, key), first)


def test_keys_that_differ_anywhere_give_other_batches() -> None:
    ids = torch.arange(1000)
    keys = [(seed, stream, step) for seed in (0, 1, 1337) for stream in (TRAINING, VALIDATION) for step in range(20)]
    batches = {tuple(random_batch(ids, 7, 4, ONE, key).flatten().tolist()) for key in keys}
    assert len(batches) == len(keys)


@given(length=st.integers(6, 40), size=st.integers(1, 30), seed=st.integers(0, 100))
def test_windows_are_consecutive_text_and_reach_both_ends(length: int, size: int, seed: int) -> None:
    batch = random_batch(torch.arange(length), 5, size, Languages(length, 0.0), (seed, TRAINING, 0))
    assert batch.shape == (size, 6)
    assert torch.equal(batch[:, 1:], batch[:, :-1] + 1)
    assert batch.min() >= 0
    assert batch.max() < length


def test_every_window_is_drawn_equally_often() -> None:
    ids, counts, draws = torch.arange(10), torch.zeros(10), 600
    for step in range(draws):
        counts += torch.bincount(random_batch(ids, 4, 10, Languages(10, 0.0), (3, TRAINING, step))[:, 0], minlength=10)
    assert counts[6:].sum() == 0  # the last window starts at 10 - 5
    expected = draws * 10 / 6
    assert bool(((counts[:6] - expected).abs() < 5 * math.sqrt(expected)).all())


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_the_low_resource_share_is_of_whole_windows(share: float) -> None:
    languages, low, total = Languages(50, share), 0, 0
    for step in range(500):
        batch = random_batch(torch.arange(50), 8, 24, languages, (1337, TRAINING, step))
        shifted = batch >= 50
        assert torch.equal(shifted.any(1), shifted.all(1)), "a window is in one language, input and target alike"
        low, total = low + int(shifted[:, 0].sum()), total + len(batch)
    assert abs(low - share * total) <= 5 * math.sqrt(total * share * (1 - share))


def test_the_mixture_does_not_move_the_windows() -> None:
    """Runs with another share see the same text, so that they can be paired."""
    key = (1337, TRAINING, 5)
    plain = random_batch(torch.arange(50), 8, 24, Languages(50, 0.0), key)
    mixed = random_batch(torch.arange(50), 8, 24, Languages(50, 0.5), key)
    assert torch.equal(mixed % 50, plain)
    assert 0 < int((mixed >= 50).sum()) < mixed.numel()


def test_the_published_validation_text_makes_145_groups_of_12() -> None:
    ids = torch.arange(111_540)
    groups = list(consecutive(ids, 64, 12))
    assert [tuple(group.shape) for group in groups] == [(12, 65)] * 145
    assert torch.equal(torch.cat([group[:, 1:] for group in groups]).flatten(), torch.arange(1, 145 * 12 * 64 + 1))


@given(length=st.integers(6, 120), context=st.integers(1, 5), size=st.integers(1, 8))
def test_consecutive_windows_against_a_loop(length: int, context: int, size: int) -> None:
    windows = []
    start = 0
    while start + context + 1 <= length:
        windows.append(list(range(start, start + context + 1)))
        start += context
    if len(windows) >= size:
        windows = windows[: len(windows) // size * size]
    found = [window for group in consecutive(torch.arange(length), context, size) for window in group.tolist()]
    assert found == windows


def test_split_cuts_the_published_text_as_the_paper_does() -> None:
    train, validation = split(torch.arange(1_115_394), 0.1, 64)
    assert (len(train), len(validation)) == (1_003_854, 111_540)
    assert int(train[-1]) + 1 == int(validation[0])


@pytest.mark.parametrize(("length", "validation"), [(100, 0.1), (100, 0.9), (0, 0.5), (10, 0.5)])
def test_a_text_shorter_than_a_window_is_refused(length: int, validation: float) -> None:
    with pytest.raises(ValueError, match=r"too short.*longer text or a smaller model.context"):
        split(torch.arange(length), validation, context=16)


def test_the_shortest_text_that_will_do() -> None:
    train, validation = split(torch.arange(34), 0.5, context=16)
    assert len(train) == len(validation) == 17
    assert [group.shape for group in consecutive(validation, 16, 12)] == [(1, 17)]
    assert random_batch(train, 16, 3, Languages(34, 0.0), (0, 0, 0)).tolist() == [list(range(17))] * 3


def test_two_languages_share_the_vocabulary_evenly() -> None:
    languages = Languages(65, 0.02)
    assert languages.simulated
    assert languages.vocabulary == 130
    assert torch.equal(languages.ids("HR"), torch.arange(65))
    assert torch.equal(languages.ids("LR"), torch.arange(65, 130))


def test_without_a_share_there_is_one_language() -> None:
    languages = Languages(65, 0.0)
    assert not languages.simulated
    assert languages.vocabulary == 65
    assert list(languages.offsets()) == ["all"]
    assert torch.equal(languages.ids("all"), torch.arange(65))


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
