"""Directions against a brute-force PCA in NumPy, and against what was measured on a real encoder."""

from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.repair.checkpoints import cone, minilm
from torch import Tensor

from decone.models import tables
from decone.models.tables import MemoryTable
from decone.repair.directions import RowsWithoutDirections, components_for, find_directions
from decone.repair.methods.directions import Centre


def brute(rows: Tensor, k: int, centre: str, of: Tensor | None = None) -> np.ndarray:
    """Row by row and component by component, from a singular value decomposition of the whole."""
    w = rows.double().numpy()
    seen = (rows if of is None else of).double().numpy()
    mu = seen.mean(0)
    base = seen if centre == "origin" else seen - mu
    axes = np.linalg.svd(base, full_matrices=False)[2][:k]
    result = np.empty_like(w)
    for i, row in enumerate(w):
        start = row - mu if centre in ("mean", "released") else row
        projected = row - mu if centre in ("mean", "kept") else row
        new = start.copy()
        for axis in axes:
            new -= (projected @ axis) * axis
        result[i] = new
    return result


@pytest.mark.parametrize("centre", get_args(Centre))
@pytest.mark.parametrize("k", [1, 3, 7])
def test_equals_brute_force(centre: Centre, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK", 13 * 8)  # several blocks
    table = cone(dtype=torch.float64)
    found = find_directions(MemoryTable("w", table), k, centre)
    expected = brute(table, k, centre)
    assert np.abs(found.remove(table).numpy() - expected).max() < 1e-10
    ids = torch.tensor([0, 5, 6, 70, 119])
    made = RowsWithoutDirections(MemoryTable("w", table), ids, found)
    assert np.abs(made.read().numpy() - expected[ids]).max() < 1e-10
    assert torch.allclose(made.read(1, 3), made.read()[1:3], rtol=0, atol=1e-13)  # a product of fewer rows
    assert made.shape == (5, 8)
    assert len(made.read(2, 2)) == 0


def test_mean_alone() -> None:
    table = cone(dtype=torch.float64)
    for centre in ("mean", "released"):
        found = find_directions(MemoryTable("w", table), 0, centre)
        assert torch.allclose(found.remove(table), table - table.mean(0), atol=1e-12)
        assert found.energy == 0
    for centre in ("kept", "origin"):
        with pytest.raises(ValueError, match="change nothing"):
            find_directions(MemoryTable("w", table), 0, centre)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_dtype_is_worked_on_in_float64(dtype: torch.dtype) -> None:
    table = cone(dtype=dtype)
    found = find_directions(MemoryTable("w", table), 2)
    made = RowsWithoutDirections(MemoryTable("w", table), torch.arange(len(table)), found).read()
    assert made.dtype == dtype
    assert torch.equal(made, torch.from_numpy(brute(table, 2, "mean")).to(dtype))


def test_a_large_mean_does_not_round_the_axes_away() -> None:
    table = cone(dtype=torch.float64) * 1e-4 + 1e3
    found = find_directions(MemoryTable("w", table), 1)
    axis = np.linalg.svd((table - table.mean(0)).numpy(), full_matrices=False)[2][0]
    assert abs(abs(float(found.axes[0] @ torch.from_numpy(axis))) - 1) < 1e-12


def test_statistics_of_chosen_rows() -> None:
    table = cone(dtype=torch.float64)
    ids = torch.arange(40, 90)
    found = find_directions(MemoryTable("w", table), 2, ids=ids)
    assert found.rows == 50
    assert np.abs(found.remove(table).numpy() - brute(table, 2, "mean", table[ids])).max() < 1e-10


def test_energy_and_default() -> None:
    table = cone(dtype=torch.float64)
    values = np.linalg.svd((table - table.mean(0)).numpy())[1] ** 2
    found = find_directions(MemoryTable("w", table))
    assert len(found.axes) == components_for(8) == 1
    assert abs(found.energy - values[0] / values.sum()) < 1e-12
    assert [components_for(width) for width in (384, 768, 1024)] == [4, 8, 10]


def test_refusals() -> None:
    table = cone(dtype=torch.float64)
    with pytest.raises(ValueError, match="take from 0 to 7"):
        find_directions(MemoryTable("w", table), 8)
    with pytest.raises(ValueError, match="at least 2 rows"):
        find_directions(MemoryTable("w", table), 1, ids=torch.tensor([3]))
    with pytest.raises(ValueError, match="differ in 2 directions, not 3"):
        find_directions(MemoryTable("w", table), 3, ids=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="differ in 0 directions"):
        find_directions(MemoryTable("w", torch.ones(5, 4)), 1)
    broken = table.clone()
    broken[17, 2] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinity \(1 rows: 17\)"):
        find_directions(MemoryTable("w", broken), 1)
    others = torch.tensor([row for row in range(len(table)) if row != 17])
    found = find_directions(MemoryTable("w", broken), 1, ids=others)
    with pytest.raises(ValueError, match="row 17 of w"):
        RowsWithoutDirections(MemoryTable("w", broken), torch.arange(120), found).read()
    with pytest.raises(ValueError, match="squares leave float64"):
        find_directions(MemoryTable("w", table * 1e200), 1)


def test_a_row_that_leaves_half_precision_is_refused() -> None:
    table = torch.full((40, 4), 60000.0, dtype=torch.float16)
    table[:20] *= -1
    table[20:22] = torch.tensor([60000.0, -60000.0, 60000.0, -60000.0]).half()
    found = find_directions(MemoryTable("w", table), 0)
    shifted = type(found)("mean", found.mean - 30000, found.axes, found.variances, found.rows)
    with pytest.raises(ValueError, match="would not fit into"):
        RowsWithoutDirections(MemoryTable("w", table), torch.arange(40), shifted).read()


def test_on_a_real_encoder_it_leaves_what_was_measured() -> None:
    table = load_file(minilm() / "model.safetensors")["embeddings.word_embeddings.weight"]
    found = find_directions(MemoryTable("w", table), 10)
    new = found.remove(table)
    assert float(new.mean(0).norm()) < 1e-6
    assert int(torch.linalg.matrix_rank(new.T @ new, hermitian=True, rtol=1e-10)) == 374
    released = find_directions(MemoryTable("w", table), 10, "released").remove(table)
    assert abs(float(released.mean(0).norm()) - 0.068) < 0.0005
    assert int(torch.linalg.matrix_rank(released.T @ released, hermitian=True, rtol=1e-10)) == 375
