"""Lengths of rows against loops."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.metrics.norms import mean_direction, norms_by_rank, row_norms


@given(
    st.integers(1, 9),
    st.integers(1, 6),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    st.integers(0, 10**6),
)
def test_lengths_match_loops(size: int, width: int, dtype: torch.dtype, seed: int) -> None:
    weight = (torch.randn(size, width, generator=torch.Generator().manual_seed(seed)) + 0.2).to(dtype)
    rows = weight.double().tolist()
    lengths = [math.sqrt(math.fsum(entry**2 for entry in row)) for row in rows]
    assert row_norms(weight).tolist() == pytest.approx(lengths, rel=1e-12)
    mean = [math.fsum(column) / size for column in zip(*rows, strict=True)]
    expected = math.sqrt(math.fsum(entry**2 for entry in mean)) / statistics.fmean(lengths)
    assert mean_direction(weight) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_tiny_and_huge_entries_keep_their_length() -> None:
    weight = torch.tensor([[3e-300, 4e-300], [3e300, 4e300], [0.0, 0.0]], dtype=torch.float64)
    assert row_norms(weight).tolist() == pytest.approx([5e-300, 5e300, 0.0], rel=1e-12)


def test_mean_direction_runs_from_cancelled_to_parallel() -> None:
    row = torch.randn(1, 5)
    assert mean_direction(torch.cat((row, -row))) == pytest.approx(0.0, abs=1e-12)
    assert mean_direction(torch.cat((row, 3 * row))) == pytest.approx(1.0, rel=1e-12)
    assert mean_direction(torch.zeros(3, 2)) == 0.0


@given(st.integers(1, 200), st.integers(1, 70), st.integers(0, 10**6))
def test_bins_of_ranks_hold_every_row_once(size: int, bins: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rank = torch.randperm(2 * size, generator=generator)[:size] + 1  # with gaps, as padded rows leave them
    norms = torch.rand(size, dtype=torch.float64, generator=generator)
    found = norms_by_rank(norms, rank, bins)
    assert 1 <= len(found) <= bins
    assert [middle for middle, *_ in found] == sorted({middle for middle, *_ in found})
    assert all(low <= middle <= high for _, low, middle, high in found)
    one_each = norms_by_rank(norms, rank, 10_000)
    ordered = [value for _, value in sorted(zip(rank.tolist(), norms.tolist(), strict=True))]
    assert [middle for _, _, middle, _ in one_each] == ordered


def test_bins_are_even_on_a_logarithmic_axis() -> None:
    rank = torch.arange(1, 1001)
    middles = [middle for middle, *_ in norms_by_rank(rank.double(), rank, 3)]
    assert middles == pytest.approx([5.0, 55.0, 550.0], abs=1)  # 1 to 10, to 100, to 1000


def test_bins_edges() -> None:
    assert norms_by_rank(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.long)) == []
    assert norms_by_rank(torch.tensor([2.0]).double(), torch.tensor([1])) == [(1.0, 2.0, 2.0, 2.0)]
    with pytest.raises(ValueError, match="begin at 1"):
        norms_by_rank(torch.ones(2).double(), torch.tensor([0, 1]))


def test_vectors_that_do_not_pair_are_refused(unchecked: None) -> None:
    with pytest.raises(ValueError, match="must pair"):
        norms_by_rank(torch.ones(2).double(), torch.tensor([1]))
