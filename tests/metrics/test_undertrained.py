"""Scores of untrained rows against loops in plain float64, and what they make of planted rows."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.metrics.neighbours import neighbour_cosine
from decone.metrics.undertrained import (
    RIDGE,
    distance_limit,
    nearness_scores,
    noise_scores,
    ownership,
    robust_scores,
    structure,
    unexplained,
)


def units(rows: int, width: int, rank: int | None = None) -> torch.Tensor:
    table = torch.randn(rows, rank or width) @ torch.randn(rank or width, width)
    return torch.nn.functional.normalize(table, dim=1)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@given(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=40, unique=True))
def test_robust_scores_match_a_loop(values: list[float]) -> None:
    middle = quantile(values, 0.5)
    usual = 1.4826 * quantile([abs(value - middle) for value in values], 0.5)
    expected = []
    for value in values:
        side = middle - quantile(values, 0.1) if value < middle else quantile(values, 0.9) - middle
        expected.append((value - middle) / max(usual, side / 1.2816))
    assert robust_scores(torch.tensor(values)).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_scores_follow_the_rank() -> None:
    rank = torch.randperm(2000) + 1
    values = torch.randn(2000) * 0.1 - 3 * rank / 2000  # rare rows are shorter, all of them
    assert int((robust_scores(values, rank).abs() > 3.5).sum()) <= 4
    values[7] -= 1.5
    assert float(robust_scores(values, rank)[7]) < -8
    assert float(robust_scores(values)[rank == 2000].abs()) < 3.5


def test_equal_values_are_no_outliers() -> None:
    assert robust_scores(torch.ones(30), torch.arange(30)).tolist() == [0.0] * 30
    assert robust_scores(torch.zeros(0)).tolist() == []


def test_the_unexplained_share_is_that_of_a_fit_without_the_row() -> None:
    rows = units(30, 12, rank=5)
    known = structure(rows)
    found = unexplained(rows @ known.axes, known, torch.ones(30, dtype=torch.bool)).exp()
    for index in range(30):
        others = torch.cat((rows[:index], rows[index + 1 :])).double()
        row = rows[index].double()
        leverage = row @ torch.linalg.inv(others.T @ others + RIDGE * torch.eye(12).double()) @ row
        assert float(found[index]) == pytest.approx(RIDGE * float(leverage), rel=1e-3)


def test_leading_directions_of_a_wide_table_are_enough() -> None:
    rows = units(2000, 1100, rank=40)
    noise = units(50, 1100)
    known = structure(rows)
    assert known.axes.shape == (1100, 128)
    assert float(unexplained(rows @ known.axes, known).max()) < float(unexplained(noise @ known.axes, known).min())


def test_neighbour_cosine_matches_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, others = units(7, 5), units(40, 5)
    others[3] = rows[0]
    own = torch.tensor([3, -1, -1, -1, -1, -1, -1])
    found = neighbour_cosine(rows, others, own, k=3)
    for index in range(7):
        cosines = [float(rows[index] @ others[j]) for j in range(40) if j != int(own[index])]
        assert float(found[index]) == pytest.approx(sum(sorted(cosines)[-3:]) / 3, abs=1e-5)


def test_noise_is_told_from_structure_and_not_from_noise() -> None:
    ordinary, random = torch.randn(1000).double(), 6 + torch.randn(200).double()
    scores = noise_scores(torch.tensor([0.0, 2.0, 6.5]).double(), ordinary, random)
    assert scores is not None
    assert scores[0] < 0.5
    assert 1.0 < scores[1] < 3.5
    assert scores[2] == 7
    assert noise_scores(ordinary, ordinary, torch.randn(200).double()) is None
    assert noise_scores(ordinary[:5], torch.ones(9).double(), random - 20) is None


def test_limits_of_unused_rows() -> None:
    near, far = torch.full((20,), 0.2).double(), torch.full((100,), 1.0).double()
    assert distance_limit(near, far) == pytest.approx(0.2)
    assert distance_limit(far, far) == 0.0  # unused rows that lie anywhere tell nothing
    assert distance_limit(torch.zeros(9).double(), far) == pytest.approx(0.01)
    assert distance_limit(near[:0], far) == 0.0


def test_nearness_grows_towards_the_unused() -> None:
    scores = nearness_scores(torch.tensor([2.0, 1.0, 0.5, 0.25, 0.0]).double(), limit=0.25, usual=1.0).tolist()
    assert scores[:4] == pytest.approx([0.0, 0.0, 1.75, 3.5])
    assert 3.5 < scores[4] < math.inf


def test_the_original_of_a_copied_row_is_the_one_whose_features_fit() -> None:
    features = torch.randn(400, 4).double()
    rows = torch.nn.functional.normalize(features.float() @ torch.randn(4, 16) + 0.1 * torch.randn(400, 16), dim=1)
    odds = ownership(rows[40:], features[40:], rows[:40], features[:40])
    copied = ownership(rows[40:], features[40:], rows[:40], features[:40].roll(1, 0))
    assert int((odds > copied).sum()) >= 38
    constant = torch.ones(400, 1).double()
    assert ownership(rows, constant, rows[:3], constant[:3]).tolist() == [0.0] * 3
