"""Likelihood, ranks, temperatures, groups of tokens and bits per byte against plain sums and loops."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decone.metrics.text import (
    TEMPERATURES,
    best_temperature,
    bits_per_byte,
    group_scores,
    nll,
    nll_by_temperature,
    ranking,
    target_rank,
)

INF = math.inf


def naive_nll(row: list[float], target: int, temperature: float) -> float:
    if row[target] == -INF:
        return INF
    top = max(row)
    total = math.fsum(math.exp((value - top) / temperature) for value in row)
    return math.log(total) - (row[target] - top) / temperature


def problem(
    seed: int, size: int = 24, vocabulary: int = 9, scale: float = 1.0, skill: float = 1.0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(vocabulary, (size,), generator=generator)
    logits = torch.randn(size, vocabulary, generator=generator, dtype=torch.float64)
    logits[torch.arange(size), target] += skill
    return scale * logits, target


def grid(logits: Tensor, target: Tensor) -> list[float]:
    rows, chosen = logits.double().tolist(), target.tolist()
    means = [
        math.fsum(naive_nll(row, y, t) for row, y in zip(rows, chosen, strict=True)) / len(rows)
        for t in TEMPERATURES.tolist()
    ]
    return [math.exp(mean) if mean < 709 else INF for mean in means]


@settings(max_examples=80)
@given(
    st.integers(1, 6),
    st.integers(1, 9),
    st.sampled_from([1e-3, 1.0, 30.0, 5000.0]),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    st.floats(0, 0.8),
    st.integers(0, 10**6),
)
def test_nll_matches_loops(
    size: int, vocabulary: int, scale: float, dtype: torch.dtype, dropped: float, seed: int
) -> None:
    logits, target = problem(seed, size, vocabulary, scale)
    drop = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed + 1)) < dropped
    logits = logits.masked_fill(drop, -INF).to(dtype)
    temperatures = [0.01, 0.37, 1.0, 2.0]
    rows = logits.double().tolist()
    expected = [[naive_nll(row, y, t) for row, y in zip(rows, target.tolist(), strict=True)] for t in temperatures]
    single = nll(logits, target)
    assert single.dtype == torch.float64
    assert single.tolist() == pytest.approx(expected[2], rel=1e-12, abs=1e-13)
    summed = nll_by_temperature(logits, target, torch.tensor(temperatures, dtype=torch.float64))
    assert summed.tolist() == pytest.approx([sum(row) for row in expected], rel=1e-12, abs=1e-13)


def test_nll_known_values() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1e4, -1e4, 0.0, 0.0], [0.0, -INF, -INF, -INF]])
    assert nll(logits, torch.tensor([2, 1, 0])).tolist() == pytest.approx([math.log(4), 2e4, 0.0])


def test_nll_of_broken_logits() -> None:
    logits = torch.tensor([[0.0, -INF], [-INF, -INF], [math.nan, 0.0], [INF, 0.0]])
    value = nll(logits, torch.tensor([1, 0, 1, 1])).tolist()
    assert value[:2] == [INF, INF]
    assert all(math.isnan(entry) for entry in value[2:])


def test_nll_of_nothing_is_empty() -> None:
    assert nll(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_low_precision_logits_are_summed_exactly() -> None:
    logits = torch.zeros(1, 50_000, dtype=torch.bfloat16)
    assert nll(logits, torch.tensor([7])).item() == pytest.approx(math.log(50_000), rel=1e-14)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "wrong", [torch.tensor([0.0]), torch.tensor([-1.0]), torch.tensor([math.nan]), torch.tensor(1.0)]
)
def test_temperatures_must_be_positive(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="positive"):
        nll_by_temperature(torch.zeros(1, 2), torch.tensor([0]), wrong)


def test_the_grid_is_0_01_to_2() -> None:
    assert TEMPERATURES.tolist() == [step / 100 for step in range(1, 201)]


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(-3.5, 4.5), st.floats(-1.0, 8.0))
def test_the_search_finds_the_minimum_of_the_whole_grid(seed: int, log_scale: float, skill: float) -> None:
    logits, target = problem(seed, size=6, vocabulary=5, scale=math.exp(log_scale), skill=skill)
    curve = grid(logits, target)
    batches = [(logits[:2], target[:2]), (logits[2:2], target[2:2]), (logits[2:], target[2:])]
    found = best_temperature(lambda: batches)
    assert found.best_perplexity == pytest.approx(min(curve), rel=1e-12)
    place = TEMPERATURES.tolist().index(found.best_temperature)
    assert curve[place] == pytest.approx(min(curve), rel=1e-12)
    assert found.perplexity == pytest.approx(curve[99], rel=1e-12)
    assert found.count == 6
    assert found.temperatures == sorted(set(found.temperatures))
    assert len(found.temperatures) <= 40
    for temperature, value in zip(found.temperatures, found.perplexities, strict=True):
        assert value == pytest.approx(curve[round(100 * temperature) - 1], rel=1e-12)


@pytest.mark.parametrize(
    ("scale", "skill", "low", "high"), [(1e-3, 4.0, 0.01, 0.01), (100.0, 0.0, 2.0, 2.0), (0.5, 1.5, 0.2, 0.9)]
)
def test_minima_at_both_ends_and_inside(scale: float, skill: float, low: float, high: float) -> None:
    logits, target = problem(5, size=40, scale=scale, skill=skill)
    curve = grid(logits, target)
    found = best_temperature(lambda: [(logits, target)])
    assert low <= found.best_temperature <= high
    assert found.best_temperature == TEMPERATURES[curve.index(min(curve))].item()
    assert {0.01, 1.0, 2.0} <= set(found.temperatures)


@pytest.mark.parametrize("best", [0.01, 0.02, 0.09, 0.10, 0.11, 0.48, 0.99, 1.00, 1.01, 1.55, 1.90, 1.99, 2.00])
def test_a_minimum_put_at_any_temperature_is_found(best: float) -> None:
    # Two tokens with logit gap g, right with probability s(g / best): the NLL is least exactly at T = best.
    gap, size = 0.7 * best, 10_000
    wrong = round(size / (1 + math.exp(gap / best)))
    logits = torch.tensor([[gap, 0.0]], dtype=torch.float64).expand(size, 2)
    target = (torch.arange(size) < wrong).long()
    assert best_temperature(lambda: [(logits, target)]).best_temperature == best


def test_where_no_temperature_helps_it_is_1() -> None:
    found = best_temperature(lambda: [(torch.zeros(3, 8), torch.tensor([1, 2, 3]))])
    assert found.best_temperature == 1.0
    assert found.best_perplexity == pytest.approx(8.0)


@pytest.mark.parametrize("broken", [-INF, math.nan])
def test_an_impossible_target_gives_infinite_perplexity(broken: float) -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, broken]])
    found = best_temperature(lambda: [(logits, torch.tensor([0, 1]))])
    assert found.perplexity == found.best_perplexity == INF
    assert found.best_temperature == 1.0
    assert set(found.perplexities) == {INF}


def test_an_overflowing_perplexity_is_infinite_and_its_minimum_still_found() -> None:
    logits = torch.tensor([[0.0, 1000.0]])
    found = best_temperature(lambda: [(logits, torch.tensor([0]))])
    assert found.perplexity == INF
    assert found.best_temperature == 2.0
    assert found.best_perplexity == pytest.approx(math.exp(500))
    assert found.perplexities[0] == INF


def test_batches_must_start_afresh() -> None:
    logits, target = problem(1)

    def once() -> Iterator[tuple[Tensor, Tensor]]:
        yield logits, target

    spent = once()
    with pytest.raises(ValueError, match="no position"):
        best_temperature(lambda: spent)
    lengths = iter([24, 10])
    with pytest.raises(ValueError, match="24 positions, then 10"):
        best_temperature(lambda: [(logits[:size], target[:size]) for size in [next(lengths)]])


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(ValueError, match="no position"):
        best_temperature(lambda: [])


POSITIONS = st.lists(st.tuples(st.floats(0, 60), st.booleans(), st.integers(0, 4)), min_size=1, max_size=60)


@settings(max_examples=80)
@given(POSITIONS)
def test_parts_match_loops_and_recombine(positions: list[tuple[float, bool, int]]) -> None:
    loss = torch.tensor([value for value, _, _ in positions], dtype=torch.float64)
    correct = torch.tensor([hit for _, hit, _ in positions])
    found = group_scores(loss, correct, torch.tensor([part for _, _, part in positions]), groups=5)
    for index, score in enumerate(found):
        inside = [(value, hit) for value, hit, part in positions if part == index]
        assert score.tokens == len(inside)
        assert score.share == len(inside) / len(positions)
        if not inside:
            assert score.perplexity is None
            assert score.accuracy is None
            continue
        assert score.perplexity == pytest.approx(math.exp(math.fsum(v for v, _ in inside) / len(inside)), rel=1e-12)
        assert score.accuracy == sum(hit for _, hit in inside) / len(inside)
    assert sum(score.tokens for score in found) == len(positions)
    whole = math.fsum(value for value, _, _ in positions) / len(positions)
    together = math.fsum(score.share * math.log(score.perplexity) for score in found if score.perplexity is not None)
    assert math.exp(together) == pytest.approx(math.exp(whole), rel=1e-12)


def test_an_impossible_token_makes_its_part_infinite_and_no_other() -> None:
    loss = torch.tensor([math.inf, 1.0], dtype=torch.float64)
    first, second = group_scores(loss, loss < 2, torch.tensor([0, 1]), groups=2)
    assert first.perplexity == math.inf
    assert second.perplexity == pytest.approx(math.e)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused() -> None:
    loss, hits = torch.ones(2, dtype=torch.float64), torch.tensor([True, False])
    with pytest.raises(ValueError, match="one length above 0"):
        group_scores(loss, hits, torch.tensor([0]), groups=1)
    with pytest.raises(ValueError, match="one length above 0"):
        group_scores(loss[:0], hits[:0], torch.tensor([], dtype=torch.long), groups=1)
    for part in ([0, 2], [-1, 0]):
        with pytest.raises(ValueError, match="there are 2, from 0"):
            group_scores(loss, hits, torch.tensor(part), groups=2)


def test_a_model_that_guesses_bytes_evenly_spends_eight_bits() -> None:
    assert bits_per_byte(70 * math.log(256), size=70) == pytest.approx(8.0, rel=1e-15)


def test_the_same_bits_in_longer_tokens_cost_the_same() -> None:
    """Two tokens of 4 bytes at 2**-12 each, or eight of one byte at 2**-3."""
    assert bits_per_byte(2 * 12 * math.log(2), 8) == pytest.approx(bits_per_byte(8 * 3 * math.log(2), 8))


def test_no_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="score at least one character"):
        bits_per_byte(1.0, 0)


LOGIT = st.sampled_from([-math.inf, -1e30, -1.0, 0.0, 1.0, 1e30, math.inf, math.nan])


@settings(max_examples=150)
@given(
    st.integers(1, 7).flatmap(
        lambda size: st.lists(
            st.tuples(st.lists(LOGIT, min_size=size, max_size=size), st.integers(0, size - 1)), min_size=1, max_size=5
        )
    ),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_rank_matches_loops(rows: list[tuple[list[float], int]], dtype: torch.dtype) -> None:
    logits, target = torch.tensor([row for row, _ in rows], dtype=dtype), torch.tensor([y for _, y in rows])
    expected = []
    for row, y in rows:
        if math.isnan(row[y]):
            expected.append(len(row))
        else:
            expected.append(1 + sum(math.isnan(value) or value > row[y] for value in row))
    ranks = target_rank(logits, target)
    assert ranks.dtype == torch.int64
    assert ranks.tolist() == expected


def test_neighbouring_float32_values_are_told_apart() -> None:
    just_above = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item()
    assert target_rank(torch.tensor([[1.0, just_above]]), torch.tensor([0])).item() == 2


def test_int32_targets_are_accepted() -> None:
    assert target_rank(torch.tensor([[1.0, 2.0]]), torch.tensor([0], dtype=torch.int32)).tolist() == [2]


@settings(max_examples=80)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=50), st.sets(st.integers(1, 210), max_size=4))
def test_summary_matches_loops(ranks: list[int], depths: set[int]) -> None:
    value = ranking(torch.tensor(ranks), k=sorted(depths))
    assert value.count == len(ranks)
    assert value.accuracy == sum(rank == 1 for rank in ranks) / len(ranks)
    assert value.recall == {depth: sum(rank <= depth for rank in ranks) / len(ranks) for depth in depths}
    assert value.mrr == pytest.approx(math.fsum(1 / rank for rank in ranks) / len(ranks), rel=1e-14)


def test_recall_at_5_is_the_default() -> None:
    assert ranking(torch.tensor([1, 5, 6, 130])).recall == {5: 0.5}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("ranks", [torch.tensor([], dtype=torch.long), torch.tensor([0, 1]), torch.tensor([[1]])])
def test_ranks_that_are_none_are_refused(ranks: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="target_rank"):
        ranking(ranks)


def test_recall_at_0_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ranking(torch.tensor([1]), k=(0,))
