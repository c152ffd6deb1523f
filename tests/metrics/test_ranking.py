"""Ranks and their summary against loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.metrics.ranking import ranking, target_rank

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
