"""Which rows a page draws, and where."""

import math

import numpy as np
import pytest
import torch

from decone.diagnosis import moments
from decone.diagnosis.weights import draw, survey
from decone.metrics.spectrum import principal_plane
from decone.models.tables import MemoryTable

GROUPS = {
    "frequent": torch.arange(0, 3000),
    "medium": torch.arange(3000, 8000),
    "rare": torch.arange(8000, 9950),
    "special": torch.arange(9950, 9960),
}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> MemoryTable:
    monkeypatch.setattr("decone.models.tables.BLOCK", 6 * 777)  # many blocks
    return MemoryTable("weight", torch.randn(10_000, 6) * torch.tensor([4.0, 2.0, 1.0, 1.0, 0.5, 0.2]) + 1)


TOKENS = [f"token {id}" for id in range(10_000)]


@pytest.mark.parametrize("products", [0, 1 << 35])
def test_the_plane_is_that_of_all_rows(table: MemoryTable, products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "FLOAT64_PRODUCTS", products)
    drawing = draw("head", table, TOKENS, GROUPS, None, set())
    whole = principal_plane(table.tensor[:9960])
    tolerance = 1e-9 if products else 1e-4
    torch.testing.assert_close(torch.from_numpy(drawing.plane), whole[drawing.ids], atol=tolerance, rtol=0)
    known = draw("head", table, TOKENS, GROUPS, None, set(), plane=survey(table, GROUPS).plane)
    assert np.array_equal(known.plane, drawing.plane)
    assert np.array_equal(known.ids, drawing.ids)


def test_every_group_and_every_suspect_is_drawn(table: MemoryTable) -> None:
    suspects = set(range(2500, 2900)) | {9951, 9999, 10_005, -1}  # the last three belong to no group
    drawing = draw("embedding", table, TOKENS, GROUPS, torch.arange(10_000, 0, -1), suspects, seed=3)
    assert drawing.table == "embedding"
    assert len(drawing.ids) == 4000
    assert bool((np.diff(drawing.ids) > 0).all())
    assert set(drawing.ids[drawing.suspect].tolist()) == set(range(2500, 2900)) | {9951}
    assert drawing.tokens == [f"token {id}" for id in drawing.ids]
    assert np.array_equal(drawing.rank, 10_000 - drawing.ids)
    assert drawing.norm == pytest.approx(table.tensor[drawing.ids].double().norm(dim=1).numpy(), rel=1e-12)
    for name, ids in GROUPS.items():
        members = set(ids.tolist())
        assert all((id in members) == (group == name) for id, group in zip(drawing.ids, drawing.groups, strict=True))
    drawn = [group for group, suspect in zip(drawing.groups, drawing.suspect, strict=True) if not suspect]
    counts = {name: drawn.count(name) for name in GROUPS}
    assert counts["special"] == 9
    assert max(counts[name] for name in ("frequent", "medium", "rare")) - counts["rare"] <= 1


def test_a_seed_draws_the_same_rows(table: MemoryTable) -> None:
    first, again, other = (draw("head", table, TOKENS, GROUPS, None, {5}, seed).ids for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_small_table_is_drawn_whole() -> None:
    table = MemoryTable("weight", torch.tensor([[1.0, 2.0], [math.nan, 0.0], [0.0, 0.0]]).bfloat16())
    drawing = draw("head", table, ["a", "b", "c"], {"rare": torch.tensor([2, 0])}, None, {1})
    assert drawing.ids.tolist() == [0, 2]
    assert drawing.rank.tolist() == [1, 3]
    assert drawing.plane.shape == (2, 2)
    assert bool(np.isfinite(drawing.plane).all())
    assert not drawing.suspect.any()


def test_more_suspects_than_dots() -> None:
    table = MemoryTable("weight", torch.randn(5000, 2))
    drawing = draw("head", table, ["t"] * 5000, {"rare": torch.arange(5000)}, None, set(range(4500)))
    assert len(drawing.ids) == 4000
    assert drawing.suspect.all()


def test_one_column_has_one_component() -> None:
    table = MemoryTable("weight", torch.tensor([[1.0], [3.0]]))
    drawing = draw("head", table, ["a", "b"], {"rare": torch.arange(2)}, None, set())
    assert drawing.plane.tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_texts_of_another_table_are_refused(table: MemoryTable) -> None:
    with pytest.raises(ValueError, match="10000 rows and 2 texts"):
        draw("head", table, ["a", "b"], GROUPS, None, set())
