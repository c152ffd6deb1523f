"""Geometry of a table in memory: each number against loops, the definition, or the package of its authors."""

import itertools
import math
import statistics
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.metrics.table_geometry import (
    cosine_of_sums,
    effective_rank,
    effective_rank_of,
    energy_share,
    from_log_partition,
    group_cosines,
    isoscore,
    isoscore_of,
    isotropy,
    log_partition,
    mean_direction,
    norms_by_rank,
    principal_axes,
    principal_plane,
    row_norms,
    signed_axes,
    singular_decay,
)


def isotropy_by_loops(weight: torch.Tensor) -> tuple[float, float]:
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
    raw, plus_minus = isotropy_by_loops(weight)
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


@given(
    st.integers(1, 9),
    st.integers(1, 6),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    st.integers(0, 10**6),
)
def test_lengths_match_loops(size: int, width: int, dtype: torch.dtype, seed: int) -> None:
    weight = (torch.randn(size, width, generator=torch.Generator().manual_seed(seed)) + 0.2).to(dtype)
    rows = weight.double().tolist()
    lengths = [math.sqrt(math.fsum(entry**2 for entry in row)) for row in rows]
    assert row_norms(weight).tolist() == pytest.approx(lengths, rel=1e-12)
    mean = [math.fsum(column) / size for column in zip(*rows, strict=True)]
    expected = math.sqrt(math.fsum(entry**2 for entry in mean)) / statistics.fmean(lengths)
    assert mean_direction(weight) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_tiny_and_huge_entries_keep_their_length() -> None:
    weight = torch.tensor([[3e-300, 4e-300], [3e300, 4e300], [0.0, 0.0]], dtype=torch.float64)
    assert row_norms(weight).tolist() == pytest.approx([5e-300, 5e300, 0.0], rel=1e-12)


def test_mean_direction_runs_from_cancelled_to_parallel() -> None:
    row = torch.randn(1, 5)
    assert mean_direction(torch.cat((row, -row))) == pytest.approx(0.0, abs=1e-12)
    assert mean_direction(torch.cat((row, 3 * row))) == pytest.approx(1.0, rel=1e-12)
    assert mean_direction(torch.zeros(3, 2)) == 0.0


@given(st.integers(1, 200), st.integers(1, 70), st.integers(0, 10**6))
def test_bins_of_ranks_hold_every_row_once(size: int, bins: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rank = torch.randperm(2 * size, generator=generator)[:size] + 1  # with gaps, as padded rows leave them
    norms = torch.rand(size, dtype=torch.float64, generator=generator)
    found = norms_by_rank(norms, rank, bins)
    assert 1 <= len(found) <= bins
    assert [middle for middle, *_ in found] == sorted({middle for middle, *_ in found})
    assert all(low <= middle <= high for _, low, middle, high in found)
    one_each = norms_by_rank(norms, rank, 10_000)
    ordered = [value for _, value in sorted(zip(rank.tolist(), norms.tolist(), strict=True))]
    assert [middle for _, _, middle, _ in one_each] == ordered


def test_bins_are_even_on_a_logarithmic_axis() -> None:
    rank = torch.arange(1, 1001)
    middles = [middle for middle, *_ in norms_by_rank(rank.double(), rank, 3)]
    assert middles == pytest.approx([5.0, 55.0, 550.0], abs=1)  # 1 to 10, to 100, to 1000


def test_bins_edges() -> None:
    assert norms_by_rank(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.long)) == []
    assert norms_by_rank(torch.tensor([2.0]).double(), torch.tensor([1])) == [(1.0, 2.0, 2.0, 2.0)]
    with pytest.raises(ValueError, match="begin at 1"):
        norms_by_rank(torch.ones(2).double(), torch.tensor([0, 1]))


def test_vectors_that_do_not_pair_are_refused(unchecked: None) -> None:
    with pytest.raises(ValueError, match="must pair"):
        norms_by_rank(torch.ones(2).double(), torch.tensor([1]))


def isoscore_by_steps(weight: torch.Tensor) -> float:
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
    assert isoscore(weight) == pytest.approx(isoscore_by_steps(weight), abs=1e-9)


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


def cosine_by_loops(weight: torch.Tensor, first: list[int], second: list[int]) -> float | None:
    found = []
    for i, j in itertools.product(first, second):
        a, b = weight[i].double(), weight[j].double()
        if i != j and bool(a.any()) and bool(b.any()):
            found.append(float(a @ b / (a.norm() * b.norm())))
    return sum(found) / len(found) if found else None


@given(st.data())
def test_matches_loops_over_pairs(data: st.DataObject) -> None:
    size, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    weight = (torch.randn(size, width, generator=generator) + 0.5).to(dtype)
    weight[sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=2)))] = 0
    ids = st.sets(st.integers(0, size - 1)).map(sorted)
    groups = {name: data.draw(ids) for name in ("a", "b", "c")}  # they may overlap and be empty
    found = group_cosines(weight, {name: torch.tensor(ids, dtype=torch.long) for name, ids in groups.items()})
    for name, other in itertools.product(groups, repeat=2):
        expected = cosine_by_loops(weight, groups[name], groups[other])
        assert found[name][other] == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_no_pair_no_number() -> None:
    found = group_cosines(torch.eye(3), {"one": torch.tensor([1]), "none": torch.arange(0)})
    assert found == {"one": {"one": None, "none": None}, "none": {"one": None, "none": None}}


def test_copies_stay_within_bounds() -> None:
    weight = torch.full((1000, 3), 0.1)
    value = group_cosines(weight, {"all": torch.arange(1000)})["all"]["all"]
    assert value is not None
    assert 1 - 1e-12 < value <= 1.0
    unit = torch.tensor([1.0000001], dtype=torch.float64)
    assert cosine_of_sums(unit, -unit, 1, 1, 0) == -1.0


@pytest.mark.parametrize("ids", [[0, 3], [-1], [1, 1]])
def test_ids_that_are_no_set_of_rows_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="'a' must lie in 0 to 2, each once"):
        group_cosines(torch.eye(3), {"a": torch.tensor(ids)})


def random_table(size: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 10**6), st.sampled_from([torch.float64, torch.bfloat16]))
def test_decay_matches_the_gram_matrix(size: int, width: int, seed: int, dtype: torch.dtype) -> None:
    weight = (random_table(size, width, seed) + 0.5).to(dtype)
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
    weight = random_table(size, width, seed) * torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])[:width] + 3
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
    weight = random_table(9, 2, 4)
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
        principal_plane(random_table(5, 2, 0), dimensions)


@settings(max_examples=20)
@given(st.integers(4, 15), st.integers(2, 6), st.integers(0, 10**6))
def test_axes_of_a_covariance_span_the_same_plane(size: int, width: int, seed: int) -> None:
    weight = random_table(size, width, seed) * torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])[:width] + 3
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


def shifted_table(size: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3


def effective_rank_by_definition(weight: torch.Tensor) -> float:
    values = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    entropy = 0.0
    for value in values:
        share = value / values.sum()
        entropy -= share * math.log(share) if share > 0 else 0.0
    return math.exp(entropy)


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 10**6), st.sampled_from([torch.float64, torch.bfloat16]))
def test_matches_the_definition(size: int, width: int, seed: int, dtype: torch.dtype) -> None:
    weight = shifted_table(size, width, seed).to(dtype)
    value = effective_rank(weight)
    assert value == pytest.approx(effective_rank_by_definition(weight), rel=1e-9)
    assert 1 - 1e-9 <= value <= min(size, width) + 1e-9


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_known_values_at_any_scale(scale: float) -> None:
    values = scale * torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert effective_rank_of(values) == pytest.approx(expected, rel=1e-12)
    assert energy_share(values, 1) == pytest.approx(0.9, rel=1e-12)
    assert energy_share(values, 2) == energy_share(values, 10) == 1.0


def test_it_counts_directions_not_rows() -> None:
    axes = torch.linalg.qr(shifted_table(6, 6, 0)).Q[:4]
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
