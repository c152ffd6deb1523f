"""Rows compared with themselves and by their neighbours, against loops and against `similarity.neighbours`."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decone.metrics import row_change
from decone.metrics.row_change import nearest_rows, row_changes, shared
from decone.metrics.similarity import neighbours


def table(size: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


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
    monkeypatch.setattr(row_change, "COSINES", 2 * 7)
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
    found = shared(first, second)
    assert found[:2].tolist() == [2 / 3, 1 / 2]
    assert bool(found[2].isnan())
    assert shared(first[:2], first[:2]).tolist() == [1.0, 1.0]


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one width"):
        row_changes(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="k must be at least 1"):
        nearest_rows(torch.tensor([0]), torch.ones(1, 2), [], torch.ones(3, dtype=torch.bool), 0)
