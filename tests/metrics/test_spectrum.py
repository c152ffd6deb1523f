"""Singular values against the Gram matrix, the main plane against a PCA by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.metrics.spectrum import principal_axes, principal_plane, singular_decay


def table(size: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 10**6), st.sampled_from([torch.float64, torch.bfloat16]))
def test_decay_matches_the_gram_matrix(size: int, width: int, seed: int, dtype: torch.dtype) -> None:
    weight = (table(size, width, seed) + 0.5).to(dtype)
    rows = weight.double().numpy()
    squares = np.linalg.eigvalsh(rows.T @ rows)[::-1][: min(size, width)]
    expected = np.sqrt(np.clip(squares / squares[0], 0, None))
    value = singular_decay(weight)
    assert value.dtype == torch.float64
    assert value[0] == 1
    assert value.numpy() == pytest.approx(expected, abs=1e-7)
    assert bool((value.diff() <= 0).all())


def test_decay_known_values_and_scale() -> None:
    weight = torch.diag(torch.tensor([3.0, -6.0, 0.0]))
    assert singular_decay(weight).tolist() == pytest.approx([1.0, 0.5, 0.0], abs=1e-12)
    assert torch.allclose(singular_decay(7 * weight), singular_decay(weight))


def test_a_zero_table_has_no_spectrum() -> None:
    with pytest.raises(ValueError, match="all zeros"):
        singular_decay(torch.zeros(3, 2))


@settings(max_examples=40)
@given(st.integers(4, 15), st.integers(2, 6), st.integers(0, 10**6))
def test_plane_matches_pca_by_eigenvectors(size: int, width: int, seed: int) -> None:
    weight = table(size, width, seed) * torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])[:width] + 3
    centred = (weight - weight.mean(0)).numpy()
    values, axes = np.linalg.eigh(centred.T @ centred)
    if values[-1] - values[-2] < 1e-3 * values[-1] or (width > 2 and values[-2] - values[-3] < 1e-3 * values[-1]):
        return  # near a double eigenvalue the components themselves are not determined
    plane = principal_plane(weight)
    for place in (0, 1):
        axis = axes[:, -1 - place]
        axis = axis * math.copysign(1, axis[np.abs(axis).argmax()])
        assert plane[:, place].numpy() == pytest.approx(centred @ axis, abs=1e-8)


def test_plane_does_not_flip_and_keeps_distances() -> None:
    weight = table(9, 2, 4)
    plane = principal_plane(weight)
    torch.testing.assert_close(torch.cdist(plane, plane), torch.cdist(weight, weight))
    torch.testing.assert_close(plane.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(principal_plane(weight.flip(0)), plane.flip(0))
    torch.testing.assert_close(principal_plane(weight + 100), plane)
    torch.testing.assert_close(principal_plane(-weight), -plane)


def test_plane_known_value() -> None:
    line = torch.tensor([[1.0, -3.0], [3.0, -9.0]])
    reach = math.sqrt(10)
    assert principal_plane(line, dimensions=1).flatten().tolist() == pytest.approx([reach, -reach])


@pytest.mark.parametrize("dimensions", [0, 3])
def test_more_dimensions_than_the_table_has_are_refused(dimensions: int) -> None:
    with pytest.raises(ValueError, match="1 to 2"):
        principal_plane(table(5, 2, 0), dimensions)


@settings(max_examples=20)
@given(st.integers(4, 15), st.integers(2, 6), st.integers(0, 10**6))
def test_axes_of_a_covariance_span_the_same_plane(size: int, width: int, seed: int) -> None:
    weight = table(size, width, seed) * torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])[:width] + 3
    centred = weight - weight.mean(0)
    covariance = centred.T @ centred
    values = torch.linalg.eigvalsh(covariance).flip(0)
    if bool((values[:2] - torch.cat((values, torch.zeros(1)))[1:3] < 1e-3 * values[0]).any()):
        return  # near a double eigenvalue the components themselves are not determined
    torch.testing.assert_close(centred @ principal_axes(covariance).T, principal_plane(weight), atol=1e-8, rtol=1e-8)


def test_axes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 2"):
        principal_axes(torch.eye(2, dtype=torch.float64), 3)
    with pytest.raises(ValueError, match="NaN"):
        principal_axes(torch.full((2, 2), math.nan, dtype=torch.float64))
