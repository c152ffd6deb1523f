"""Sums over a table, read in parts."""

import pytest
import torch

from decone.metrics import table_moments as moments
from decone.metrics.table_moments import gather, layout, sweep
from decone.models.tables import MemoryTable


@pytest.fixture
def table() -> MemoryTable:
    return MemoryTable("weight", torch.randn(50, 4).bfloat16())


GROUPS = {"rare": torch.tensor([40, 3, 7]), "frequent": torch.arange(10, 35), "special": torch.arange(0)}


def test_a_sweep_meets_every_row_once_in_its_group(table: MemoryTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decone.models.tables.BLOCK", 4 * 9)
    monkeypatch.setattr(moments, "CHUNK", 4 * 8 * 4)
    arranged = layout(table, GROUPS)
    met: dict[str, list[int]] = {name: [] for name in GROUPS}
    for ids, rows, spans in sweep(table, arranged, torch.float64):
        assert 0 < len(rows) <= 4
        assert rows.dtype == torch.float64
        assert torch.equal(rows, table.tensor[ids].double())
        assert [spans[0][1].start, spans[-1][1].stop] == [0, len(rows)]
        for place, span in spans:
            met[arranged.names[place]] += ids[span].tolist()
    assert met == {name: sorted(ids.tolist()) for name, ids in GROUPS.items()}


@pytest.mark.parametrize("held", [0, 512])
@pytest.mark.parametrize("limit", [0, 1 << 35])
def test_sums(table: MemoryTable, held: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "RETAINED", held)
    monkeypatch.setattr(moments, "FLOAT64_PRODUCTS", limit)
    table.tensor[20] = 0
    found = gather(table, layout(table, GROUPS))
    assert found.dtype == (torch.float64 if limit else torch.float32)
    members = torch.cat(list(GROUPS.values()))
    rows = table.tensor.double()
    assert found.count == 28
    assert [sums.directed for sums in found.groups] == [3, 24, 0]
    torch.testing.assert_close(found.total, rows[members].sum(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.gram(), rows[members].T @ rows[members], rtol=1e-6, atol=1e-6)
    expected = torch.cov(rows[members].T, correction=0)
    torch.testing.assert_close(found.covariance(found.gram()), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.norms[members], rows[members].norm(dim=1), rtol=1e-6, atol=0)
    assert bool(found.norms[[0, 9, 49]].isnan().all())
    units = torch.nn.functional.normalize(rows[GROUPS["frequent"]], dim=1)
    torch.testing.assert_close(found.groups[1].units, units.sum(0), rtol=1e-6, atol=1e-6)
    sample = torch.cat(found.groups[1].sample)
    torch.testing.assert_close(sample, units[units.any(1)].float(), rtol=1e-6, atol=1e-6)


def test_a_sample_is_of_the_group_and_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "SAMPLE", 5)
    table = MemoryTable("weight", torch.eye(30))
    groups = {"frequent": torch.arange(0, 30, 2), "rare": torch.arange(1, 30, 2)}
    arranged = layout(table, groups)

    def drawn(seed: int) -> list[list[int]]:
        return [torch.cat(sums.sample).argmax(1).tolist() for sums in gather(table, arranged, seed).groups]

    frequent, rare = drawn(0)
    assert len(set(frequent)) == len(set(rare)) == 5
    assert all(id % 2 == 0 for id in frequent)
    assert all(id % 2 == 1 for id in rare)
    assert drawn(0) == [frequent, rare] != drawn(1)


def test_entries_beyond_float32_make_a_large_table_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "FLOAT64_PRODUCTS", 0)
    for entry in (1e-60, 1e60):
        table = MemoryTable("weight", entry * torch.eye(6, dtype=torch.float64))
        assert gather(table, layout(table, {"rare": torch.arange(6)})).dtype == torch.float64
