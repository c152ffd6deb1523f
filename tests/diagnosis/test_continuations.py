"""Which prefixes are continued, and what is counted of the continuations."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decone.diagnosis.behaviour import LENGTH, PREFIX, EvaluatedText, continuations, measure_continuations, prompts_of
from decone.models.generation import DECODINGS, Decoding


@given(st.integers(0, 90), st.integers(0, 8), st.integers(1, 5), st.integers(1, 9))
def test_prefixes_are_whole_blocks_spread_over_the_text(size: int, prompts: int, prefix: int, length: int) -> None:
    given_ids, own = prompts_of(torch.arange(size), prompts, prefix, length)
    block = prefix + length
    count = size // block
    if prompts == 0 or size <= prefix:
        assert given_ids.shape == (0, prefix)
        assert len(own) == 0
        return
    if count == 0:  # what is left of the text after one prefix
        assert given_ids.tolist() == [list(range(prefix))]
        assert own.tolist() == [list(range(prefix, size))]
        return
    assert len(given_ids) == len(own) == min(prompts, count)
    starts = given_ids[:, 0].tolist()
    assert starts[0] == 0
    assert all(start % block == 0 for start in starts)
    gaps = [later - earlier for earlier, later in itertools.pairwise([*starts, count * block])]
    assert min(gaps) >= block
    assert max(gaps) - min(gaps) <= block
    for row, rest in zip(given_ids.tolist(), own.tolist(), strict=True):
        assert row + rest == list(range(row[0], row[0] + block))


def subject(size: int, asked: list[tuple[int, int, Decoding, int]]) -> EvaluatedText:
    """A model that repeats the last id of its prompt, on a text of numbers."""

    def extend(prompts: Tensor, length: int, decoding: Decoding, seed: int) -> Tensor:
        asked.append((len(prompts), length, decoding, seed))
        return prompts[:, -1:].expand(-1, length)

    text, ids = "x" * size, torch.arange(size)
    return EvaluatedText(
        text=text, ids=ids, starts=ids, ends=ids + 1, vocabulary=size, types=size, context=8,
        logits=lambda rows: torch.zeros(*rows.shape, size),
        extend=extend,
        decode=lambda chosen: " ".join(map(str, chosen)),
    )  # fmt: skip


def test_every_rule_continues_the_same_prefixes_in_groups() -> None:
    asked: list[tuple[int, int, Decoding, int]] = []
    seen: list[tuple[str, int, int]] = []
    about = subject(40 * (PREFIX + LENGTH), asked)
    found = continuations(about, 40, seed=7, progress=lambda *step: seen.append(step))
    assert list(found) == ["greedy", "beam", "top-k", "top-p", "human"]
    assert asked[:7] == [
        (32, LENGTH, DECODINGS["greedy"], 7), (8, LENGTH, DECODINGS["greedy"], 8),
        *((8, LENGTH, DECODINGS["beam"], 7 + index) for index in range(5)),
    ]  # fmt: skip
    assert seen[:3] == [("greedy", 0, 40), ("greedy", 32, 40), ("greedy", 40, 40)]
    assert seen[-1] == ("top-p", 40, 40)
    for name in DECODINGS:
        assert found[name].continuations == found[name].uniq_tokens == found[name].uniq_words == 40
        assert found[name].rep == {str(n): pytest.approx(1 - 1 / (LENGTH + 1 - n)) for n in (1, 2, 3, 4)}
    assert found["human"].rep == {str(n): 0.0 for n in (1, 2, 3, 4)}
    assert found["human"].uniq_tokens == 40 * LENGTH
    samples = found["greedy"].samples
    assert len(samples) == 5
    assert samples[0] == (" ".join(map(str, range(PREFIX))), " ".join(["49"] * LENGTH))


def test_a_short_text_makes_short_continuations_or_none() -> None:
    asked: list[tuple[int, int, Decoding, int]] = []
    found = continuations(subject(PREFIX + 3, asked), 50)
    assert {length for _, length, _, _ in asked} == {3}
    assert found["greedy"].continuations == 1
    assert sorted(found["greedy"].rep) == ["1", "2", "3"], "there is no 4-gram in three tokens"
    assert continuations(subject(PREFIX, asked), 50) == {}
    assert continuations(subject(5000, asked), 0) == {}


LETTERS = ["the ", "cat ", "s", "at ", "e"]


def decode(ids: list[int]) -> str:
    return "".join(LETTERS[index] for index in ids)


def test_rates_are_means_over_continuations_in_words() -> None:
    """Both speak of a cat that sat, in two pieces; pairs of words are not pairs of tokens."""
    found = measure_continuations(decode, torch.tensor([[0], [1]]), [[0, 1, 2, 3, 0, 1], [0, 1, 0, 1, 0, 1]])
    assert found.rep["1"] == pytest.approx((2 / 5 + 4 / 6) / 2)
    assert found.rep["2"] == pytest.approx((1 / 4 + 3 / 5) / 2)
    assert found.uniq_tokens == 4
    assert found.uniq_words == len({"the", "cat", "sat", ""})
    assert found.samples == [("the ", "the cat sat the cat "), ("cat ", "the cat the cat the cat ")]


def test_one_letter_for_ever_is_repetition() -> None:
    found = measure_continuations(decode, torch.tensor([[0]]), [[4] * 100])
    assert found.rep == {str(n): pytest.approx(1 - 1 / (101 - n)) for n in (1, 2, 3, 4)}
