"""Deltas: what they hold, the tensors they touch, where they may lie, and what is refused."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.repair.checkpoints import INPUT, OUTPUT, V, cone, contents, llama
from torch import Tensor

from decone.files.safetensors import read_header
from decone.models import tables as blocks_of
from decone.models.find_tables import find_tables
from decone.models.tables import MemoryTable, ModelTables
from decone.repair.delta import RowDelta, model_path, read_delta, repair_targets, require_vacant_delta, write_delta

IDS = torch.tensor([0, 3, 60, 119])
OUT = Path("d.safetensors")


def change(model_tables: ModelTables, ids: Tensor = IDS, rows: Tensor | None = None) -> RowDelta:
    (target,) = repair_targets(model_tables)
    rows = cone(len(ids), dtype=target.full_table.dtype, seed=5) if rows is None else rows
    return RowDelta(target, ids, MemoryTable("new", rows))


@pytest.fixture
def model_tables(tmp_path: Path) -> ModelTables:
    return find_tables(str(llama(tmp_path / "m")))


def written(model_tables: ModelTables, path: Path = OUT, **given: Any) -> Path:
    write_delta(
        path, model_tables, "by-hand", {"k": 3}, [change(model_tables, **given)], {"input": {"x": 1.5}}, ["a note"]
    )
    return path


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_it_holds_old_and_new_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(blocks_of, "BLOCK", 17 * 8)
    table = cone(dtype=dtype)
    table[3, 0] = torch.nan  # bytes are kept whatever they mean
    source = find_tables(str(llama(tmp_path / "m", table=table)))
    before = contents(tmp_path / "m")
    path = written(source)
    tensors = load_file(path)
    assert tensors["0.ids"].tolist() == IDS.tolist()
    assert torch.equal(tensors["0.old"].view(torch.uint8), table[IDS].view(torch.uint8))
    assert torch.equal(tensors["0.new"], cone(4, dtype=dtype, seed=5))
    opened = read_delta(path)
    (facts,) = opened.facts.tables
    assert (opened.facts.method, opened.facts.settings, opened.facts.notes) == ("by-hand", {"k": 3}, ["a note"])
    assert (opened.facts.model, facts.tensors, facts.changed, facts.role) == ("m", [INPUT], 4, "input")
    assert opened.facts.decone
    assert opened.facts.date
    assert "versions" in opened.facts.provenance
    after = table.clone()
    after[IDS] = tensors["0.new"]
    for digest, weight in ((facts.before, table), (facts.after, after)):
        assert digest == hashlib.sha256(weight.view(torch.uint8).numpy().tobytes()).hexdigest()
    assert contents(tmp_path / "m") == before  # the model is not changed


def test_the_header_is_what_the_library_reads(model_tables: ModelTables) -> None:
    path = written(model_tables)
    metadata, found = read_header(path)
    assert set(metadata) == {"decone.delta"}
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(found) == {"0.ids", "0.old", "0.new"}
    assert all(place.begin % 8 == 0 for place in found.values())


@pytest.mark.parametrize("ids", [[], [3, 3], [5, 4], [-1, 2], [5, 120]])
def test_ids_out_of_order_or_range(model_tables: ModelTables, ids: list[int]) -> None:
    with pytest.raises(ValueError, match="rising rows"):
        written(model_tables, ids=torch.tensor(ids, dtype=torch.int64), rows=torch.zeros(len(ids), 8))
    assert not OUT.exists()


@pytest.mark.parametrize("rows", [torch.zeros(3, 8), torch.zeros(4, 7), torch.zeros(4, 8).half()])
def test_rows_of_another_shape(model_tables: ModelTables, rows: Tensor) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        written(model_tables, rows=rows)
    assert not OUT.exists()


def test_places_that_are_taken(model_tables: ModelTables, tmp_path: Path) -> None:
    written(model_tables)
    kept = OUT.read_bytes()
    with pytest.raises(ValueError, match="exists"):
        written(model_tables)
    assert OUT.read_bytes() == kept
    for name, said in (
        ("d.bin", "end in .safetensors"),
        ("m/d.safetensors", "own folder"),
        ("m/x/d.safetensors", "own"),
    ):
        with pytest.raises(ValueError, match=said):
            require_vacant_delta(tmp_path / name, model_tables)
    (tmp_path / "link").symlink_to(tmp_path / "m")
    with pytest.raises(ValueError, match="own folder"):
        require_vacant_delta(tmp_path / "link" / "d.safetensors", model_tables)


def test_a_full_disk_leaves_nothing(model_tables: ModelTables, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents(Path())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left"):
        written(model_tables)
    assert contents(Path()) == before


def test_rows_that_cannot_be_made_leave_nothing(model_tables: ModelTables) -> None:
    class Broken(MemoryTable):
        def read(self, start: int = 0, stop: int | None = None) -> Tensor:
            raise ValueError("cannot be made")

    (target,) = repair_targets(model_tables)
    before = contents(Path())
    with pytest.raises(ValueError, match="cannot be made"):
        write_delta(OUT, model_tables, "x", {}, [RowDelta(target, IDS, Broken("w", torch.zeros(4, 8)))])
    assert contents(Path()) == before


def changed(path: Path, tensors: dict[str, Tensor] | None = None, **facts: Any) -> Path:
    """The same delta with other tensors or another description."""
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["decone.delta"]) | facts
    save_file(load_file(path) | (tensors or {}), "e.safetensors", metadata={"decone.delta": json.dumps(document)})
    return Path("e.safetensors")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"0.ids": torch.tensor([0, 3, 60, 120])}, "rising rows from 0 to 119"),
        ({"0.ids": torch.tensor([0, 60, 3, 119])}, "rising rows"),
        ({"0.ids": torch.tensor([-1, 3, 60, 119])}, "rising rows"),
        ({"0.ids": torch.tensor([0.0, 3, 60, 119])}, "its ids rows"),
        ({"0.ids": torch.tensor([0, 3, 60])}, "its ids rows"),
        ({"0.new": torch.zeros(4, 7)}, "its new rows"),
        ({"0.old": torch.zeros(4, 8).half()}, "its old rows"),
    ],
)
def test_a_delta_whose_tensors_are_wrong(model_tables: ModelTables, tensors: dict[str, Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_delta(changed(written(model_tables), tensors))


@pytest.mark.parametrize(
    "facts",
    [{"schema": "decone.delta/9"}, {"tables": []}, {"evil\x1b[31m": 1}, {"method": None}, {"tables": [{"role": "x"}]}],
)
def test_a_delta_of_another_version(model_tables: ModelTables, facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no delta of decone that this version can read") as raised:
        read_delta(changed(written(model_tables), **facts))
    assert "\x1b" not in str(raised.value)


def test_truncated_foreign_or_missing(model_tables: ModelTables, tmp_path: Path) -> None:
    whole = written(model_tables).read_bytes()
    for size in (0, 4, 100, len(whole) - 1):
        Path("t.safetensors").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="truncated"):
            read_delta(Path("t.safetensors"))
    with pytest.raises(ValueError, match="no delta of decone"):
        read_delta(tmp_path / "m" / "model-00001-of-00002.safetensors")
    with pytest.raises(ValueError, match="no file"):
        read_delta(Path("absent.safetensors"))
    with pytest.raises(ValueError, match="no file"):
        read_delta(tmp_path)


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
