"""New rows out of rebuilt ones, against formulas in loops."""

import math

import pytest
import torch
from torch import Tensor

from decone.repair.definitions.fit import blend_rows, scale_rows

M, K, H = 5, 9, 3
IDS = torch.tensor([3, 5, 7, 9, 11])


def world() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(size, H, generator=draw) * wide for size, wide in ((M, 0.3), (M, 2.0), (K, 1.0)))  # type: ignore[return-value]


def length(row: Tensor) -> float:
    return math.sqrt(sum(value * value for value in row.double().tolist()))


def test_as_rebuilt() -> None:
    rebuilt, old, kept = world()
    found, flat = scale_rows(rebuilt, old, kept, "none")
    assert torch.equal(found, rebuilt.double())
    assert flat == 0


def test_the_length_of_the_old_row_or_of_the_mean_row() -> None:
    rebuilt, old, kept = world()
    usual = sum(length(row) for row in kept) / K
    for scale, wanted in (("row", [length(row) for row in old]), ("table", [usual] * M)):
        found, flat = scale_rows(rebuilt, old, kept, scale)  # type: ignore[arg-type]
        assert flat == 0
        for new, row, size in zip(found, rebuilt, wanted, strict=True):
            assert [float(value) for value in new] == pytest.approx([float(v) * size / length(row) for v in row])


def test_the_spread_around_the_mean() -> None:
    rebuilt, old, kept = world()
    found, flat = scale_rows(rebuilt, old, kept, "spread")
    mean = [sum(float(row[k]) for row in kept) / K for k in range(H)]
    centre = [sum(float(row[k]) for row in rebuilt) / M for k in range(H)]
    wide = sum((float(row[k]) - mean[k]) ** 2 for row in kept for k in range(H)) / K
    narrow = sum((float(row[k]) - centre[k]) ** 2 for row in rebuilt for k in range(H)) / M
    for new, row in zip(found, rebuilt, strict=True):
        expected = [mean[k] + (float(row[k]) - centre[k]) * math.sqrt(wide / narrow) for k in range(H)]
        assert new.tolist() == pytest.approx(expected)
    assert flat == 0
    assert (found - kept.double().mean(0)).square().sum(1).mean() == pytest.approx(wide)


def test_a_single_row_has_no_spread_and_keeps_its_direction() -> None:
    """Around its own mean it would become the mean row, whatever its definition said."""
    rebuilt, old, kept = world()
    for rows in (rebuilt[:1], rebuilt[:1].expand(3, H).contiguous()):
        found, flat = scale_rows(rows, old[: len(rows)], kept, "spread")
        mean = kept.double().mean(0)
        assert flat == 0
        for new, row in zip(found, rows, strict=True):
            assert torch.cosine_similarity(new - mean, row.double() - mean, dim=0) == pytest.approx(1)
            assert length(new - mean) == pytest.approx(math.sqrt(float((kept - mean).square().sum(1).mean())))
    same = kept.double().mean(0, keepdim=True).float()
    found, flat = scale_rows(same, old[:1], same, "spread")
    assert torch.equal(found, old[:1].double())
    assert flat == 1  # nothing but the mean: the old row stays


@pytest.mark.parametrize("scale", ["row", "table"])
def test_a_row_without_a_direction_stays_as_it_was(scale: str) -> None:
    rebuilt, old, kept = world()
    rebuilt[2] = 0
    found, flat = scale_rows(rebuilt, old, kept, scale)  # type: ignore[arg-type]
    assert flat == 1
    assert torch.equal(found[2], old[2].double())
    assert bool(torch.isfinite(found).all())
    assert not torch.equal(found[1], old[1].double())


def test_shares_of_old_and_new() -> None:
    rebuilt, old, _ = world()
    for share in (0.0, 0.25, 1.0):
        found = blend_rows(rebuilt.double(), old, share, torch.float32, "t", IDS)
        for new, one, other in zip(found.tolist(), rebuilt.tolist(), old.tolist(), strict=True):
            assert new == pytest.approx(
                [share * a + (1 - share) * b for a, b in zip(one, other, strict=True)], abs=1e-6
            )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_have_the_dtype_of_the_table(dtype: torch.dtype) -> None:
    """Mixed in float64, rounded once."""
    rebuilt, old, _ = world()
    found = blend_rows(rebuilt.double(), old.to(dtype), 0.5, dtype, "t", IDS)
    assert found.dtype == dtype
    expected = (0.5 * rebuilt.double() + 0.5 * old.to(dtype).double()).to(dtype)
    assert torch.equal(found, expected)


def test_rows_that_are_not_finite_or_do_not_fit() -> None:
    rebuilt, old, _ = world()
    large = rebuilt.double()
    large[3, 1] = 1e5
    with pytest.raises(ValueError, match=r"1 rebuilt rows of wte are not finite or do not fit torch.float16: 9; leave"):
        blend_rows(large, old, 1.0, torch.float16, "wte", IDS)
    assert bool(torch.isfinite(blend_rows(large, old, 1.0, torch.bfloat16, "wte", IDS)).all())
    for value in (math.nan, math.inf):
        large[[1, 4], 0] = value
        with pytest.raises(ValueError, match=r"2 rebuilt rows of wte .*: 5, 11; leave them out"):
            blend_rows(large, old, 0.5, torch.float32, "wte", IDS)
    many = torch.full((30, H), math.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="30 rebuilt rows") as error:
        blend_rows(many, torch.zeros(30, H), 1.0, torch.float32, "wte", torch.arange(30))
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9; leave" in str(error.value)


def test_an_old_row_that_was_lost_can_be_replaced_whole() -> None:
    new = torch.ones(1, H, dtype=torch.float64)
    lost = torch.full((1, H), math.nan)
    assert torch.equal(blend_rows(new, lost, 1.0, torch.float32, "t", IDS[:1]), new.float())
    with pytest.raises(ValueError, match="not finite"):
        blend_rows(new, lost, 0.5, torch.float32, "t", IDS[:1])
