"""The numbers before and after, and the control for shrinkage."""

from pathlib import Path

import pytest
import torch
from tests.repair.checkpoints import V, cone, llama

from decone.metrics.table_geometry import isotropy
from decone.models.find_tables import find_tables
from decone.models.tables import MemoryTable
from decone.repair.comparison import compare_geometry, geometry, measure_repair, repair_warnings, scale_to_norms
from decone.repair.delta import RowDelta, repair_targets
from decone.repair.directions import remove_directions


def test_geometry_against_loops() -> None:
    table = cone(30)
    found = geometry(table)
    unit = [row / row.norm() for row in table.double()]
    pairs = [float(unit[i] @ unit[j]) for i in range(30) for j in range(30) if i != j]
    lengths = sorted(float(row.double().norm()) for row in table)
    assert abs(found.mean_cosine - sum(pairs) / len(pairs)) < 1e-12
    assert abs(found.norms["mean"] - sum(lengths) / 30) < 1e-12
    assert found.norms["1"] == pytest.approx(lengths[-1])
    assert found.isotropy == isotropy(table).raw
    assert found.rows == 30


def test_shrinking_alone_gains_nothing_over_the_control() -> None:
    table = cone()
    found = compare_geometry(table, table * 0.25)
    assert found.after.isotropy > found.before.isotropy + 0.1  # the trap
    assert abs(found.after.isotropy - found.control.isotropy) < 1e-6
    assert found.cosine == 1
    assert found.norm_ratio == pytest.approx(0.25)


def test_the_control_has_the_lengths_of_one_table_and_the_directions_of_the_other() -> None:
    before, after = cone(), cone(seed=4).double()
    before[7] = 0
    control = scale_to_norms(before, after)
    for row in range(V):
        if row == 7:
            assert not control[row].any()
            continue
        assert float(control[row].norm()) == pytest.approx(float(after[row].norm()), rel=1e-6)
        assert float(torch.cosine_similarity(control[row], before[row], dim=0)) == pytest.approx(1, abs=1e-6)


def test_a_repair_of_some_rows(tmp_path: Path) -> None:
    (target,) = repair_targets(find_tables(str(llama(tmp_path / "m"))))
    ids = torch.tensor([2, 9, 60, 61, 90])
    change, found = remove_directions(target, ids, 2, "kept")
    assert found["components"] == 2
    assert 0 < found["energy"] < 1
    report = measure_repair(change, [f"token {row}" for row in range(V)], listed=3)
    assert set(report.groups) == {"all", "changed"}
    assert report.groups["changed"].before.rows == 5
    assert len(report.tokens) == 3
    assert {token.id for token in report.tokens} <= set(ids.tolist())
    table, new = target.table.read(), target.table.read().clone()
    new[ids] = change.rows.read()
    for token in report.tokens:
        old = table[token.id]
        assert token.token == f"token {token.id}"
        assert token.norm_before == pytest.approx(float(old.norm()))
        assert token.cosine == pytest.approx(float(torch.cosine_similarity(old, new[token.id], dim=0)), abs=1e-6)
        for weight, near in ((table, token.neighbours_before), (new, token.neighbours_after)):
            cosine = torch.cosine_similarity(weight.double(), weight[token.id].double(), dim=1)
            cosine[token.id] = -2
            assert [other.id for other in near] == cosine.topk(5).indices.tolist()
    assert measure_repair(change, None, 3, seed=1).tokens != report.tokens
    assert measure_repair(change, None, 0).tokens == []


def test_rows_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    table = cone()
    table[5] = torch.nan
    (target,) = repair_targets(find_tables(str(llama(tmp_path / "m", table=table))))
    report = measure_repair(RowDelta(target, torch.tensor([3]), MemoryTable("w", cone(1))))
    assert report.groups["all"].before.rows == V - 1


def test_warnings(tmp_path: Path) -> None:
    (target,) = repair_targets(find_tables(str(llama(tmp_path / "m"))))
    everything = torch.arange(V)
    table = target.table.read()
    collapsed = RowDelta(target, everything, MemoryTable("w", 0.4 * table.mean(0).expand(V, -1).contiguous()))
    first, second = repair_warnings(measure_repair(collapsed))
    assert "no higher than" in first
    assert "of their length" in second
    better = remove_directions(target, everything, 0)[0]
    assert repair_warnings(measure_repair(better)) == []
