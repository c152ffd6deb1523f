"""Tables of a downstream study: what their deltas are, and models that they are applied to."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from tests.repair.checkpoints import INPUT, cone, contents, llama

from decone.repair.delta import read_delta
from decone.studies.definitionemb import ROWS
from decone.studies.deltas import MAKERS, make_delta, repaired
from decone.studies.downstream_runs import ORIGINAL


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(llama(tmp_path / "model", tied=True))


def test_every_row_has_a_way_to_be_made() -> None:
    assert {row.name for row in ROWS} == {ORIGINAL, *MAKERS}


def test_directions_are_those_of_the_paper_and_our_default(model: str) -> None:
    table = cone().double()
    centred = table - table.mean(0)
    axes = torch.linalg.svd(centred).Vh
    make_delta("directions-mean", model, Path("mean.safetensors"))
    folder = repaired(model, Path("mean.safetensors"), Path("tables"))
    (shard,) = [path for path in folder.glob("*.safetensors") if INPUT in load_file(path)]
    wanted = centred - (centred @ axes[:1].T) @ axes[:1]
    assert torch.allclose(load_file(shard)[INPUT].double(), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="10 components of a table of width 8"):
        make_delta("directions", model, Path("directions.safetensors"))
    assert not Path("directions.safetensors").exists()


def test_a_delta_and_a_model_are_made_once_and_share_what_is_the_same(model: str) -> None:
    before, delta = contents(Path(model)), Path("runs/tables/d.safetensors")
    make_delta("directions-mean", model, delta)
    content = delta.read_bytes()
    make_delta("directions-mean", model, delta)
    assert delta.read_bytes() == content
    folder = repaired(model, delta, Path("runs/tables"))
    assert folder.name == f"directions-{read_delta(delta).facts.tables[0].after[:16]}"
    stamp = (folder / "config.json").stat()
    assert repaired(model, delta, Path("runs/tables")) == folder and (folder / "config.json").stat() == stamp
    assert os.path.samefile(folder / "config.json", Path(model) / "config.json"), "a hard link takes no space"
    assert contents(Path(model)) == before


def test_definitions_need_their_method(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decone.repair.definition", None)
    with pytest.raises(ValueError, match=r"makes no definition deltas; give one with --delta definitions=FILE"):
        make_delta("definitions", model, Path("d.safetensors"))
    called: list[tuple[str, Path]] = []
    made = ModuleType("decone.repair.definition")
    made.make_delta = lambda model, out: called.append((model, out))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "decone.repair.definition", made)
    make_delta("definitions", model, Path("d.safetensors"))
    assert called == [(model, Path("d.safetensors"))]
