"""Sampled rows on the main plane, and histograms of cosines against loops over all pairs."""

import itertools
import math

import numpy as np
import pytest
import torch

from decone.metrics import table_moments as moments
from decone.metrics.table_geometry import principal_plane
from decone.metrics.table_survey import cosine_histograms, sample_table, survey_table
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
    drawing = sample_table("head", table, TOKENS, GROUPS, None, set())
    whole = principal_plane(table.tensor[:9960])
    tolerance = 1e-9 if products else 1e-4
    torch.testing.assert_close(torch.from_numpy(drawing.plane), whole[drawing.ids], atol=tolerance, rtol=0)
    known = sample_table("head", table, TOKENS, GROUPS, None, set(), plane=survey_table(table, GROUPS).plane)
    assert np.array_equal(known.plane, drawing.plane)
    assert np.array_equal(known.ids, drawing.ids)


def test_every_group_and_every_suspect_is_drawn(table: MemoryTable) -> None:
    suspects = set(range(2500, 2900)) | {9951, 9999, 10_005, -1}  # the last three belong to no group
    drawing = sample_table("embedding", table, TOKENS, GROUPS, torch.arange(10_000, 0, -1), suspects, seed=3)
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
    first, again, other = (sample_table("head", table, TOKENS, GROUPS, None, {5}, seed).ids for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_small_table_is_drawn_whole() -> None:
    table = MemoryTable("weight", torch.tensor([[1.0, 2.0], [math.nan, 0.0], [0.0, 0.0]]).bfloat16())
    drawing = sample_table("head", table, ["a", "b", "c"], {"rare": torch.tensor([2, 0])}, None, {1})
    assert drawing.ids.tolist() == [0, 2]
    assert drawing.rank.tolist() == [1, 3]
    assert drawing.plane.shape == (2, 2)
    assert bool(np.isfinite(drawing.plane).all())
    assert not drawing.suspect.any()


def test_more_suspects_than_dots() -> None:
    table = MemoryTable("weight", torch.randn(5000, 2))
    drawing = sample_table("head", table, ["t"] * 5000, {"rare": torch.arange(5000)}, None, set(range(4500)))
    assert len(drawing.ids) == 4000
    assert drawing.suspect.all()


def test_one_column_has_one_component() -> None:
    table = MemoryTable("weight", torch.tensor([[1.0], [3.0]]))
    drawing = sample_table("head", table, ["a", "b"], {"rare": torch.arange(2)}, None, set())
    assert drawing.plane.tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_texts_of_another_table_are_refused(table: MemoryTable) -> None:
    with pytest.raises(ValueError, match="10000 rows and 2 texts"):
        sample_table("head", table, ["a", "b"], GROUPS, None, set())


def units(size: int, width: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(
        torch.randn(size, width, generator=torch.Generator().manual_seed(seed)) + 0.4, dim=1
    )


def test_few_pairs_are_all_counted_once() -> None:
    rows = {"frequent": units(9, 5, 0), "rare": units(7, 5, 1)}
    found = {histogram.groups: histogram.counts for histogram in cosine_histograms({k: [v] for k, v in rows.items()})}
    assert list(found) == [("frequent", "frequent"), ("frequent", "rare"), ("rare", "rare")]
    for (first, second), counts in found.items():
        pairs = itertools.combinations(rows[first], 2) if first == second else itertools.product(*rows.values())
        cosine = [float(a @ b) for a, b in pairs]
        assert counts == np.histogram(cosine, bins=80, range=(-1, 1))[0].tolist()


def test_many_pairs_are_sampled_evenly_and_by_seed() -> None:
    rows = {"frequent": [units(400, 3, 0), units(300, 3, 2)], "rare": [units(500, 3, 1)]}
    found = cosine_histograms(rows, seed=4)
    assert found == cosine_histograms(rows, seed=4) != cosine_histograms(rows, seed=5)
    whole = {name: torch.cat(parts) for name, parts in rows.items()}
    for histogram in found:
        assert sum(histogram.counts) == 20_000
        assert len(histogram.counts) == 80
        first, second = (whole[name] for name in histogram.groups)
        cosine = first @ second.T
        if histogram.groups[0] == histogram.groups[1]:
            cosine = cosine[~torch.eye(len(cosine), dtype=torch.bool)]
        share = np.histogram(cosine.flatten(), bins=80, range=(-1, 1))[0] / cosine.numel()
        assert np.array(histogram.counts) / 20_000 == pytest.approx(share, abs=0.012)


def test_a_row_is_never_paired_with_itself() -> None:
    [found] = cosine_histograms({"rare": [torch.eye(300)]})
    assert sum(found.counts) == 20_000
    assert found.counts[40] == 20_000  # all at right angles


def test_what_has_no_pair_is_left_out() -> None:
    found = cosine_histograms({"frequent": [torch.eye(3)[:1]], "rare": [], "special": [torch.eye(3)[1:2]]})
    assert [histogram.groups for histogram in found] == [("frequent", "special")]
    assert cosine_histograms({}) == []


def test_cosines_beyond_one_by_rounding_are_counted() -> None:
    [found] = cosine_histograms({"rare": [torch.full((2, 3), 0.57735034)]})
    assert sum(found.counts) == 1
    assert found.counts[-1] == 1
