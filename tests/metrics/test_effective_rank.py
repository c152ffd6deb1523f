"""Effective rank and energy against plain sums over singular values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.metrics.effective_rank import effective_rank, effective_rank_of, energy_share


def table(size: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3


def naive(weight: torch.Tensor) -> float:
    values = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    entropy = 0.0
    for value in values:
        share = value / values.sum()
        entropy -= share * math.log(share) if share > 0 else 0.0
    return math.exp(entropy)


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 10**6), st.sampled_from([torch.float64, torch.bfloat16]))
def test_matches_the_definition(size: int, width: int, seed: int, dtype: torch.dtype) -> None:
    weight = table(size, width, seed).to(dtype)
    value = effective_rank(weight)
    assert value == pytest.approx(naive(weight), rel=1e-9)
    assert 1 - 1e-9 <= value <= min(size, width) + 1e-9


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_known_values_at_any_scale(scale: float) -> None:
    values = scale * torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert effective_rank_of(values) == pytest.approx(expected, rel=1e-12)
    assert energy_share(values, 1) == pytest.approx(0.9, rel=1e-12)
    assert energy_share(values, 2) == energy_share(values, 10) == 1.0


def test_it_counts_directions_not_rows() -> None:
    axes = torch.linalg.qr(table(6, 6, 0)).Q[:4]
    assert effective_rank(axes) == pytest.approx(4, rel=1e-12)
    assert effective_rank(axes.repeat(3, 1)) == pytest.approx(4, rel=1e-12)


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [1.0, -1.0], [1.0, math.nan], [math.inf, 1.0]])
def test_what_is_no_spectrum_is_refused(values: list[float]) -> None:
    spectrum = torch.tensor(values, dtype=torch.float64)
    with pytest.raises(ValueError, match="singular values"):
        effective_rank_of(spectrum)
    with pytest.raises(ValueError, match="singular values"):
        energy_share(spectrum, 1)


def test_a_share_of_no_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        energy_share(torch.ones(2, dtype=torch.float64), 0)
    with pytest.raises(ValueError, match="all zeros"):
        effective_rank(torch.zeros(3, 2))
