"""Which tensors a repair touches."""

from pathlib import Path

import pytest
from safetensors.torch import save_file
from tests.repair.checkpoints import INPUT, OUTPUT, V, cone, llama

from decone.models.find_tables import find_tables
from decone.models.tables import MemoryTable, ModelTables
from decone.repair.tables import model_path, repair_targets


def test_untied(tmp_path: Path) -> None:
    model_tables = find_tables(str(llama(tmp_path / "m", head=cone(seed=1))))
    assert not model_tables.tied
    assert [(found.role, found.names) for found in repair_targets(model_tables)] == [("input", (INPUT,))]
    assert [(found.role, found.names) for found in repair_targets(model_tables, "output")] == [("output", (OUTPUT,))]
    assert [found.role for found in repair_targets(model_tables, "both")] == ["input", "output"]
    assert model_path(model_tables) == tmp_path / "m"


def test_tied_is_one_table_whatever_is_asked(tmp_path: Path) -> None:
    model_tables = find_tables(str(llama(tmp_path / "m", tied=True)))
    assert model_tables.tied
    for which in ("input", "output", "both"):
        assert [found.names for found in repair_targets(model_tables, which)] == [(INPUT,)]


def test_tied_but_stored_twice_names_both_tensors(tmp_path: Path) -> None:
    model_tables = find_tables(str(llama(tmp_path / "m", head=cone(), tied=True)))
    assert model_tables.tied
    assert model_tables.head is None
    assert [found.names for found in repair_targets(model_tables, "both")] == [(INPUT, OUTPUT)]


def test_a_padded_table_keeps_its_whole_length(tmp_path: Path) -> None:
    (target,) = repair_targets(find_tables(str(llama(tmp_path / "m", table=cone(V + 4), head=cone(seed=1)))))
    assert (target.table.shape[0], target.full_table.shape[0]) == (V, V + 4)


def test_without_an_output(tmp_path: Path) -> None:
    folder = llama(tmp_path / "m")
    save_file({"embeddings.weight": cone()}, tmp_path / "bare.safetensors")
    for model_tables in (
        find_tables(str(folder)),
        find_tables(str(tmp_path / "bare.safetensors"), embedding="embeddings.weight"),
    ):
        for which in ("output", "both"):
            with pytest.raises(ValueError, match="no output table"):
                repair_targets(model_tables, which)
    with pytest.raises(ValueError, match="not in a file"):
        repair_targets(ModelTables("m", "bert", "encoder", MemoryTable("w", cone())))
