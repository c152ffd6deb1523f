"""Intervals against scipy.stats, a table of Student's t, and the definition of Clopper and Pearson."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from decone.metrics.statistics import Interval, mean_interval, paired_difference, share_interval

NUMBER = st.floats(-1e6, 1e6)
LEVEL = st.sampled_from([0.5, 0.8, 0.95, 0.99])


@settings(max_examples=80)
@given(st.lists(NUMBER, min_size=2, max_size=12), LEVEL)
def test_student_interval_matches_scipy(values: list[float], level: float) -> None:
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    found = mean_interval(values, level)
    assert found.count == len(values)
    assert found.mean == pytest.approx(mean, abs=1e-8)
    if spread > 1e-3:
        low, high = stats.t.interval(level, len(values) - 1, loc=mean, scale=spread)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-8)


def test_student_interval_by_hand() -> None:
    # Mean 5, s = 2, n = 4: the table gives t = 3.182 for 3 degrees of freedom, so 5 -+ 3.182.
    found = mean_interval(iter([5 - math.sqrt(6), 5.0, 5.0, 5 + math.sqrt(6)]))
    assert (found.low, found.high) == pytest.approx((5 - 3.182, 5 + 3.182), abs=5e-4)


def test_one_run_has_no_interval() -> None:
    found = mean_interval([3.5])
    assert (found.mean, found.count) == (3.5, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("values", [[1.0, math.inf], [1.0, math.nan], [math.inf, -math.inf], [1e308, 1e308]])
def test_values_that_are_not_finite_leave_the_ends_open(values: list[float]) -> None:
    found = mean_interval(values)
    assert not math.isfinite(found.mean)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@settings(max_examples=50)
@given(st.dictionaries(st.integers(0, 9), NUMBER), st.dictionaries(st.integers(0, 9), NUMBER), LEVEL)
def test_pairs_are_taken_over_common_seeds(values: dict[int, float], other: dict[int, float], level: float) -> None:
    common = [seed for seed in range(10) if seed in values and seed in other]
    if not common:
        with pytest.raises(ValueError, match="no common seed"):
            paired_difference(values, other, level)
        return
    found, expected = paired_difference(values, other, level), [values[seed] - other[seed] for seed in common]
    assert found.count == len(common)
    assert repr(found) == repr(mean_interval(expected, level))


def test_pairing_removes_what_the_seed_does_to_both() -> None:
    reference = {seed: 10.0 * seed for seed in range(5)}
    values = {seed: value - 1 + 0.01 * (-1) ** seed for seed, value in reference.items()}
    found = paired_difference(values, reference)
    assert found.high < 0
    assert mean_interval(values.values()).high > mean_interval(reference.values()).low


@settings(max_examples=80)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), LEVEL)
def test_share_interval_matches_scipy_and_its_definition(case: tuple[int, int], level: float) -> None:
    successes, count = case
    found = share_interval(successes, count, level)
    exact = stats.binomtest(successes, count).proportion_ci(level, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), rel=1e-8, abs=1e-12)
    assert (found.mean, found.count) == (successes / count, count)
    tail = (1 - level) / 2
    if successes:
        assert stats.binom.sf(successes - 1, count, found.low) == pytest.approx(tail, rel=1e-6)
    if successes < count:
        assert stats.binom.cdf(successes, count, found.high) == pytest.approx(tail, rel=1e-6)


@pytest.mark.parametrize("count", [1, 5, 20])
def test_none_and_all_have_closed_forms(count: int) -> None:
    edge = 0.025 ** (1 / count)
    none, full = share_interval(0, count), share_interval(count, count)
    assert none.low == 0.0
    assert none.high == pytest.approx(1 - edge, rel=1e-12)
    assert full.high == 1.0
    assert full.low == pytest.approx(edge, rel=1e-12)


@pytest.mark.parametrize("case", [(0, 0), (-1, 3), (4, 3)])
def test_shares_that_are_none_are_refused(case: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no share"):
        share_interval(*case)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
def test_levels_outside_0_to_1_are_refused(level: float) -> None:
    with pytest.raises(ValueError, match=r"0\.95"):
        mean_interval([1.0, 2.0], level)
    with pytest.raises(ValueError, match=r"0\.95"):
        share_interval(1, 2, level)


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        mean_interval([])


def test_an_interval_is_a_plain_value() -> None:
    assert mean_interval([2.0, 2.0]) == Interval(mean=2.0, low=2.0, high=2.0, count=2)
