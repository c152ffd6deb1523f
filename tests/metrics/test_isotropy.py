"""I(W) against loops over eigenvectors, and its known values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.metrics.isotropy import from_log_partition, isotropy, log_partition, signed_axes


def naive(weight: torch.Tensor) -> tuple[float, float]:
    rows = weight.double().numpy()
    _, axes = np.linalg.eigh(rows.T @ rows)
    once, both = [], []
    for axis in axes.T:
        ahead = sum(math.exp(row @ axis) for row in rows)
        behind = sum(math.exp(-row @ axis) for row in rows)
        once.append(ahead if sum(row @ axis for row in rows) >= 0 else behind)
        both += [ahead, behind]
    return min(once) / max(once), min(both) / max(both)


def toy(shift: float, size: int = 400, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    weight = 0.3 * torch.randn(size, width, generator=generator)
    weight[:, 0] += shift
    return weight


@settings(max_examples=40)
@given(st.integers(6, 40), st.integers(1, 6), st.floats(0.05, 2.0), st.integers(0, 10**6))
def test_matches_loops_over_eigenvectors(size: int, width: int, scale: float, seed: int) -> None:
    weight = scale * torch.randn(size, width, generator=torch.Generator().manual_seed(seed)) + 0.5 * scale
    raw, plus_minus = naive(weight)
    value = isotropy(weight)
    assert value.raw == pytest.approx(raw, rel=1e-9)
    assert value.plus_minus == pytest.approx(plus_minus, rel=1e-9)


@settings(max_examples=60)
@given(
    st.integers(1, 20),
    st.integers(1, 12),
    st.sampled_from([1e-3, 1.0, 300.0]),
    st.integers(0, 10**6),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_both_values_lie_in_order_between_0_and_1(
    size: int, width: int, scale: float, seed: int, dtype: torch.dtype
) -> None:
    weight = (scale * torch.randn(size, width, generator=torch.Generator().manual_seed(seed))).to(dtype)
    value = isotropy(weight)
    assert 0 <= value.plus_minus <= value.raw <= 1


def test_a_cone_is_less_isotropic_than_a_ball() -> None:
    ball, cone = isotropy(toy(0.0)), isotropy(toy(2.0))
    assert ball.raw > 0.9
    assert ball.plus_minus > 0.9
    assert cone.raw < 0.2
    assert cone.plus_minus < 0.03
    assert cone.raw > 3 * cone.plus_minus


@given(st.integers(1, 12), st.integers(2, 14), st.integers(0, 10**6))
def test_few_rows_leave_directions_free(size: int, width: int, seed: int) -> None:
    """Z is the number of rows where they have no part; rows repeated until there are enough take the other way."""
    weight = torch.randn(size, width, generator=torch.Generator().manual_seed(seed)).double() * 0.5
    often = weight.repeat(2 * width, 1)
    assert isotropy(weight) == pytest.approx(isotropy(often), rel=1e-9)


def test_parts_of_a_table_join_to_the_whole() -> None:
    weight = toy(0.5).double()
    _, axes = signed_axes(weight.T @ weight, weight.sum(0))
    parts = [log_partition(part @ axes) for part in weight.split(150)]
    joined = from_log_partition(torch.logsumexp(torch.stack(parts), 0))
    assert joined == pytest.approx(isotropy(weight), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reach", [1.0, 59.0, 61.0, 599.0, 601.0, 3000.0])
def test_log_partition_never_overflows(dtype: torch.dtype, reach: float) -> None:
    projections = torch.linspace(-reach, reach, 64, dtype=dtype).repeat(300, 1)
    exact = projections.double()
    expected = torch.stack((torch.logsumexp(exact, 0), torch.logsumexp(-exact, 0)))
    torch.testing.assert_close(log_partition(projections), expected, rtol=1e-6, atol=1e-6)


def test_known_value_of_one_row() -> None:
    value = isotropy(torch.tensor([[2.0]]))
    assert value.raw == 1.0
    assert value.plus_minus == pytest.approx(math.exp(-4), rel=1e-12)


def test_known_value_of_orthogonal_rows() -> None:
    weight = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))
    value = isotropy(weight)
    assert value.raw == pytest.approx((math.e + 1) / (math.e**2 + 1), rel=1e-12)
    assert value.plus_minus == pytest.approx((math.exp(-2) + 1) / (math.e**2 + 1), rel=1e-12)


def test_a_zero_table_is_the_same_in_every_direction() -> None:
    assert isotropy(torch.zeros(5, 3)) == (1.0, 1.0)


def test_huge_rows_stay_in_log_space() -> None:
    value = isotropy(torch.tensor([[1000.0, 0.0], [999.0, 0.0], [0.0, 998.0]]))
    assert value.raw == pytest.approx(math.exp(998 - 1000) / (1 + math.exp(-1)), rel=1e-9)
    assert value.plus_minus == 0.0


def test_sign_and_rotation_of_the_table_leave_it_unchanged() -> None:
    weight = toy(0.7, size=60, width=5).double()
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).Q
    expected = isotropy(weight)
    for changed in (-weight, weight @ turn, weight.flip(0)):
        assert isotropy(changed) == pytest.approx(expected, rel=1e-9)


def test_a_trained_table_is_read_without_touching_its_gradient() -> None:
    weight = torch.nn.Parameter(toy(0.5))
    assert isotropy(weight) == isotropy(weight.detach())
    assert weight.grad is None
