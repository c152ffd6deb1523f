"""Measures of rows against naive searches, and rows that no training has shaped, row by row."""

from collections.abc import Set

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.metrics.row_survey import survey_rows
from decone.models.tables import MemoryTable

NONE = torch.zeros(0, dtype=torch.int64)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.sampled_from([torch.float32, torch.bfloat16]))
def test_clusters_are_those_of_a_naive_search(picks: list[int], dtype: torch.dtype) -> None:
    weight = torch.tensor([[0.0, -0.0], [1.0, 2.0], [2.0, 1.0], [1.0, 2.001]], dtype=torch.float32)[picks].to(dtype)
    naive = {
        tuple(j for j in range(len(weight)) if torch.equal(weight[i], weight[j]))
        for i in range(len(weight))
        if bool(weight[i].any())
    }
    found = survey_rows(MemoryTable("w", weight), NONE)
    assert sorted(map(tuple, found.clusters)) == sorted(cluster for cluster in naive if len(cluster) > 1)
    assert found.norm.tolist() == pytest.approx([float(row.double().norm()) for row in weight], rel=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_lengths_whose_squares_leave_float32(size: float) -> None:
    found = survey_rows(MemoryTable("w", torch.tensor([[3.0, 4.0]]) * size), NONE)
    assert found.norm.tolist() == pytest.approx([5 * size], rel=1e-6)
    assert not bool(found.zero.any())
    assert bool(found.finite.all())


def test_blocks_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(100, 8)
    weight[90:] = 0.1 * torch.randn(10, 8)
    weight[77] = weight[3]
    unused = torch.arange(90, 100)
    whole = survey_rows(MemoryTable("w", weight), unused)
    monkeypatch.setattr("decone.models.tables.BLOCK", 8 * 7)
    parts = survey_rows(MemoryTable("w", weight), unused)
    assert parts.clusters == whole.clusters == [[3, 77]]
    assert parts.norm.equal(whole.norm)
    assert parts.distance is not None
    assert whole.distance is not None
    assert whole.centre is not None
    assert whole.centre.tolist() == pytest.approx(weight[90:].double().mean(0).tolist(), abs=1e-6)
    torch.testing.assert_close(parts.distance, whole.distance)


def test_a_few_unused_rows_are_no_reference() -> None:
    assert survey_rows(MemoryTable("w", torch.randn(50, 8)), torch.arange(7)).centre is None


def untrained(weight: torch.Tensor, unused: Set[int] = frozenset(), special: Set[int] = frozenset()) -> list[int]:
    measures = survey_rows(MemoryTable("w", weight), torch.tensor(sorted(unused), dtype=torch.int64))
    return measures.untrained(unused, special).nonzero().squeeze(1).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_as_good_as_zero_are_untrained(dtype: torch.dtype) -> None:
    weight = torch.randn(40, 8)
    weight[3], weight[5], weight[7] = 0, 1e-23, -1e-23
    weight[9, 2] = torch.nan
    assert untrained(weight.to(dtype)) == [3, 5, 7, 9]


def test_a_row_of_negative_numbers_is_trained() -> None:
    assert untrained(-torch.rand(40, 8) - 0.5) == []


def test_rows_like_the_unused_are_untrained() -> None:
    weight = torch.randn(60, 16)
    weight[40:50] = 0.3 + 0.005 * torch.randn(10, 16)
    weight[50:] = 0.3 + 0.01 * torch.randn(10, 16)
    assert untrained(weight, unused=set(range(50, 60)))[:10] == list(range(40, 50))


@pytest.mark.parametrize(
    ("unused", "special", "expected"),
    [
        (set(), set(), []),  # copies among ordinary tokens: one may be the original
        (set(), {4, 9}, [4, 9]),  # never met: decay alone has moved them, all alike
        (set(), {9}, []),  # the row of an ordinary token, copied on purpose
        ({9}, set(), [4, 9]),  # equal to a row that no text leads to
    ],
)
def test_equal_rows(unused: set[int], special: set[int], expected: list[int]) -> None:
    weight = torch.randn(40, 8)
    weight[9] = weight[4]
    assert untrained(weight, unused, special) == expected


def test_a_table_of_zeros_is_untrained() -> None:
    assert untrained(torch.zeros(3, 4)) == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_at_the_mean_of_the_others_are_no_longer_untrained(dtype: torch.dtype) -> None:
    weight = (torch.randn(60, 16) + 1).to(dtype)
    weight[50:] = weight[:48].double().mean(0).to(dtype)  # padding too, as `decone grow` fills it
    weight[48:50] = weight[59]
    assert untrained(weight, unused=set(range(50, 60)), special={48, 49}) == []
    weight[48:] = 0.1 * weight[59]
    assert untrained(weight, unused=set(range(50, 60)), special={48, 49}) == list(range(48, 60))
