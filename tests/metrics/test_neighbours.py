"""Cosines, neighbours and changes of rows against loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decone.metrics import neighbours as module
from decone.metrics.neighbours import (
    common_share,
    cosine_matrix,
    nearest_rows,
    neighbours,
    row_changes,
    translation_alignment,
)


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


def cut(weight: Tensor, rows: int) -> list[tuple[int, Tensor]]:
    return [(start, weight[start : start + rows]) for start in range(0, len(weight), rows)]


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6), st.sampled_from([torch.float32, torch.bfloat16]))
def test_changes_match_loops(size: int, width: int, seed: int, dtype: torch.dtype) -> None:
    before, after = table(size, width, seed, dtype), table(size, width, seed + 1, dtype)
    after[seed % size] = before[seed % size]
    before[(seed + 1) % size] = 0
    found = row_changes(before, after)
    for i, (a, b) in enumerate(zip(before.double().tolist(), after.double().tolist(), strict=True)):
        length = math.hypot(*a) * math.hypot(*b)
        cosine = math.fsum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0
        assert found.same[i] == (a == b)
        assert float(found.cosine[i]) == pytest.approx(1.0 if a == b else cosine, abs=1e-11)
        assert (float(found.before[i]), float(found.after[i])) == pytest.approx((math.hypot(*a), math.hypot(*b)))


def test_rows_without_direction() -> None:
    zero, some, broken = [0.0, 0.0], [3.0, 4.0], [math.nan, 1.0]
    found = row_changes(torch.tensor([zero, zero, some, some]), torch.tensor([zero, some, zero, broken]))
    assert found.cosine[:3].tolist() == [1.0, 0.0, 0.0]
    assert bool(found.cosine[3].isnan())
    assert found.same.tolist() == [True, False, False, False]


@given(st.integers(2, 30), st.integers(2, 5), st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 31))
def test_nearest_rows_are_those_of_a_sort(size: int, width: int, seed: int, k: int, rows: int) -> None:
    weight = table(size, width, seed)
    weight[seed % size] = weight[(seed + 1) % size]  # equal cosines go by rising id
    asked = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:5]
    found = nearest_rows(asked, weight[asked], cut(weight, rows), torch.ones(size, dtype=torch.bool), k)
    for row, near in zip(found.tolist(), neighbours(weight, asked, k), strict=True):
        ids = [id for id, _ in near]
        assert row == ids + [-1] * (k - len(ids))


def test_pieces_of_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, asked, allowed = table(40, 4, 0), torch.tensor([3, 8]), torch.ones(40, dtype=torch.bool)
    whole = nearest_rows(asked, weight[asked], [(0, weight)], allowed, 5)
    monkeypatch.setattr(module, "COSINES", 2 * 7)
    assert nearest_rows(asked, weight[asked], [(0, weight)], allowed, 5).equal(whole)


def test_only_allowed_rows_are_neighbours() -> None:
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [math.nan, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    allowed = torch.tensor([True, False, True, False, True, True])
    found = nearest_rows(torch.tensor([0, 1]), weight[:2], cut(weight, 4), allowed, 4)
    assert found.tolist() == [[2, 4, 5, -1], [0, 2, 4, 5]]


def test_shared_matches_sets() -> None:
    first, second = (
        torch.tensor([[1, 2, 3], [4, 5, -1], [-1, -1, -1]]),
        torch.tensor([[3, 9, 1], [-1, 4, -1], [1, 2, 3]]),
    )
    found = common_share(first, second)
    assert found[:2].tolist() == [2 / 3, 1 / 2]
    assert bool(found[2].isnan())
    assert common_share(first[:2], first[:2]).tolist() == [1.0, 1.0]


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one width"):
        row_changes(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="k must be at least 1"):
        nearest_rows(torch.tensor([0]), torch.ones(1, 2), [], torch.ones(3, dtype=torch.bool), 0)
