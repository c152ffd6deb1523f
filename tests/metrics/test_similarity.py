"""Cosines, neighbours, translations and groups against loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decone.metrics.similarity import cosine_matrix, mean_cosine, neighbours, translation_alignment


def cosine(a: list[float], b: list[float]) -> float:
    length = math.hypot(*a) * math.hypot(*b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def table(size: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


SHAPE = (st.integers(1, 9), st.integers(1, 5), st.integers(0, 10**6))


@settings(max_examples=60)
@given(*SHAPE, st.sampled_from([torch.float64, torch.float32, torch.bfloat16]), st.booleans())
def test_cosine_matrix_matches_loops(size: int, width: int, seed: int, dtype: torch.dtype, zero: bool) -> None:
    weight = table(size, width, seed, dtype)
    if zero:
        weight[seed % size] = 0
    rows = weight.double().tolist()
    value = cosine_matrix(weight)
    assert value.shape == (size, size)
    assert value.dtype == torch.float64
    for i, a in enumerate(rows):
        assert value[i].tolist() == pytest.approx([cosine(a, b) for b in rows], abs=1e-12)
    assert value.abs().max() <= 1


def test_rows_at_the_edge_of_float64_keep_their_direction() -> None:
    weight = torch.tensor([[1e-300, 1e-300], [1e300, 1e300], [5e-324, 0.0], [1.0, -1.0]], dtype=torch.float64)
    half = math.sqrt(0.5)
    assert cosine_matrix(weight)[0].tolist() == pytest.approx([1.0, 1.0, half, 0.0], abs=1e-12)


@settings(max_examples=60)
@given(*SHAPE, st.integers(1, 12))
def test_neighbours_match_a_python_sort(size: int, width: int, seed: int, k: int) -> None:
    weight = table(size, width + 1, seed)
    rows = weight.double().tolist()
    found = neighbours(weight, torch.arange(size), k)
    for i, near in enumerate(found):
        expected = sorted((-round(cosine(rows[i], rows[j]), 12), j) for j in range(size) if j != i)[:k]
        assert [j for j, _ in near] == [j for _, j in expected]
        assert [value for _, value in near] == pytest.approx([-value for value, _ in expected], abs=1e-12)


def test_neighbours_of_ties_zeros_and_repeated_ids() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [-1.0, 0.0]])
    found = neighbours(weight, torch.tensor([1, 0, 1]), k=3)
    assert found[0] == found[2] == [(2, 1.0), (3, 1.0), (0, 0.0)]
    assert found[1] == [(1, 0.0), (2, 0.0), (3, 0.0)]


def test_a_lonely_row_has_no_neighbours() -> None:
    assert neighbours(torch.ones(1, 2), torch.tensor([0])) == [[]]
    assert neighbours(torch.ones(4, 2), torch.tensor([], dtype=torch.long)) == []


@settings(max_examples=60)
@given(st.integers(1, 8), st.integers(2, 5), st.floats(0, 2), st.integers(0, 10**6))
def test_alignment_matches_loops(size: int, width: int, noise: float, seed: int) -> None:
    first = table(size, width, seed)
    weight = torch.cat((first, 3 * (first + noise * table(size, width, seed + 1))))
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    rows = weight.double().tolist()
    hits = 0
    for low in range(size, 2 * size):
        scores = [cosine(rows[low], rows[high]) for high in range(size)]
        hits += scores.index(max(scores)) == low - size
    assert translation_alignment(weight, order, order + size) == hits / size


def test_alignment_of_known_tables() -> None:
    first, high, low = table(12, 6, 0), torch.arange(12), torch.arange(12, 24)
    assert translation_alignment(torch.cat((first, 0.1 * first)), high, low) == 1.0
    assert translation_alignment(torch.cat((first, first.roll(1, 0))), high, low) == 0.0
    half = torch.cat((first, torch.cat((first[:6], -first[6:]))))
    assert translation_alignment(half, high, low) == 0.5


@settings(max_examples=40)
@given(st.integers(2, 70), st.integers(1, 130), st.integers(0, 10**6))
def test_a_collapsed_table_is_not_aligned(size: int, width: int, seed: int) -> None:
    collapsed = table(1, width, seed).expand(2 * size, width)
    assert translation_alignment(collapsed, torch.arange(size), torch.arange(size, 2 * size)) == 0.0
    assert translation_alignment(torch.zeros(4, width), torch.tensor([0, 1]), torch.tensor([2, 3])) == 0.0


@settings(max_examples=60)
@given(*SHAPE, st.integers(1, 6), st.sampled_from([torch.float32, torch.bfloat16]))
def test_mean_cosine_matches_all_pairs(size: int, width: int, seed: int, other: int, dtype: torch.dtype) -> None:
    a, b = table(size, width, seed, dtype), table(other, width, seed + 1, dtype)
    a[seed % size] *= seed % 2  # a row of zeros in half of the cases
    pairs = [cosine(x, y) for x in a.double().tolist() for y in b.double().tolist()]
    assert mean_cosine(a, b) == pytest.approx(math.fsum(pairs) / len(pairs), abs=1e-12)


@pytest.mark.usefixtures("unchecked")
def test_wrong_ids_and_widths_are_refused() -> None:
    weight = table(4, 3, 0)
    pair = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="0 to 3"):
        neighbours(weight, torch.tensor([4]))
    with pytest.raises(ValueError, match="at least 1"):
        neighbours(weight, pair, k=0)
    with pytest.raises(ValueError, match="0 to 3"):
        translation_alignment(weight, pair, torch.tensor([2, -1]))
    with pytest.raises(ValueError, match="equal, positive length"):
        translation_alignment(weight, pair, torch.tensor([2]))
    with pytest.raises(ValueError, match="equal, positive length"):
        translation_alignment(weight, pair[:0], pair[:0])
    with pytest.raises(ValueError, match="widths 3 and 2"):
        mean_cosine(weight, weight[:, :2])
    with pytest.raises(ValueError, match="empty"):
        mean_cosine(weight, weight[:0])
