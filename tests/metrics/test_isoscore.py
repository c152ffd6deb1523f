"""IsoScore against the authors' package and against the paper's steps one by one."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.metrics.isoscore import isoscore, isoscore_of


def steps(weight: torch.Tensor) -> float:
    """Rudman et al. 2022, one step after the other."""
    rows = weight.double().numpy()
    dimensions = rows.shape[1]
    variances = np.linalg.eigvalsh(np.cov(rows.T, ddof=1))
    even = variances * math.sqrt(dimensions) / np.linalg.norm(variances)
    defect = np.linalg.norm(even - np.ones(dimensions)) / math.sqrt(2 * (dimensions - math.sqrt(dimensions)))
    used = (dimensions - defect**2 * (dimensions - math.sqrt(dimensions))) ** 2 / dimensions**2
    return float((dimensions * used - 1) / (dimensions - 1))


@pytest.fixture
def doubles() -> Iterator[None]:
    """The package takes the root of the width in the default dtype; in float32 that alone is off by 1e-8."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@given(st.integers(3, 40), st.integers(2, 9), st.floats(-3, 3), st.integers(0, 10**6))
def test_matches_the_steps_of_the_paper(size: int, width: int, shift: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stretch = torch.rand(width, generator=generator) * 3
    weight = torch.randn(size, width, generator=generator) * stretch + shift
    assert isoscore(weight) == pytest.approx(steps(weight), abs=1e-9)


@pytest.mark.filterwarnings("ignore:To copy construct:UserWarning")
@pytest.mark.parametrize(("size", "width"), [(500, 2), (300, 30), (20, 50), (2000, 200)])
def test_matches_the_package_of_the_authors(size: int, width: int, doubles: None) -> None:
    package = pytest.importorskip("IsoScore.IsoScore")
    for decay in (0.0, 0.5, 2.0):
        weight = torch.randn(size, width) * torch.arange(1, width + 1) ** -decay + 1.0
        assert isoscore(weight) == pytest.approx(float(package.IsoScore(weight)), abs=1e-9)


def test_known_values() -> None:
    for used in range(1, 6):
        covariance = torch.diag((torch.arange(5) < used).double())
        assert isoscore_of(covariance) == pytest.approx((used - 1) / 4, abs=1e-12)  # the paper's reading of the score


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scale_and_rotation_leave_it_unchanged(scale: float) -> None:
    covariance = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    assert isoscore_of(scale * turn @ covariance @ turn.T) == pytest.approx(isoscore_of(covariance), rel=1e-9)


def test_edges() -> None:
    assert isoscore(torch.ones(7, 4)) == 0.0
    assert isoscore(torch.tensor([[1.0, 2.0]])) == 0.0
    assert isoscore(torch.tensor([[1.0], [2.0]])) == 1.0
    with pytest.raises(ValueError, match="NaN"):
        isoscore_of(torch.tensor([[math.nan]], dtype=torch.float64))
    with pytest.raises(ValueError, match="NaN"):
        isoscore(torch.tensor([[math.inf, 0.0]]))
