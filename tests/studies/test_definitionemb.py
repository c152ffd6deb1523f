"""Tables of a downstream study: what their deltas are, and models that they are applied to."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.repair.checkpoints import INPUT, cone, contents, llama
from tests.repair.vocabularies import build

from decone.data import published
from decone.models.find_tables import find_tables
from decone.repair.delta import read_delta
from decone.repair.methods.base import repair_variants
from decone.studies.definitionemb import ROWS
from decone.studies.downstream import ORIGINAL, make_delta, repaired_model


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(llama(tmp_path / "model", tied=True))


def test_every_row_has_a_way_to_be_made() -> None:
    assert {row.name for row in ROWS} == {ORIGINAL, *repair_variants()}


def test_directions_are_those_of_the_paper_and_our_default(model: str) -> None:
    table = cone().double()
    centred = table - table.mean(0)
    axes = torch.linalg.svd(centred).Vh
    make_delta("directions-mean", model, Path("mean.safetensors"))
    folder = repaired_model(model, Path("mean.safetensors"), Path("tables"))
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
    folder = repaired_model(model, delta, Path("runs/tables"))
    assert folder.name == f"directions-{read_delta(delta).facts.tables[0].after[:16]}"
    stamp = (folder / "config.json").stat()
    assert repaired_model(model, delta, Path("runs/tables")) == folder
    assert (folder / "config.json").stat() == stamp
    assert os.path.samefile(folder / "config.json", Path(model) / "config.json"), "a hard link takes no space"
    assert contents(Path(model)) == before


def test_definitions_come_from_the_published_lexicon(monkeypatch: pytest.MonkeyPatch) -> None:
    source = build("bert", Path("m"))
    monkeypatch.setenv("DECONE_DATA", str(Path("nowhere").absolute()))
    with pytest.raises(ValueError, match=r"Open English WordNet.*wordnet/oewn_lemma_glosses\.tsv and set DECONE_DATA"):
        make_delta("definitions", "m", Path("d.safetensors"))
    words = ("the", "a", "cat", "on", "mat", "sat", *"bcdeghilmnoprstuvwy")
    Path("words.tsv").write_text("".join(f"{word}\tthe {word} that sat {place}\n" for place, word in enumerate(words)))
    monkeypatch.setattr(published, "find", lambda public, name: (b"", Path("words.tsv")))
    make_delta("definitions", "m", Path("d.safetensors"))
    opened = read_delta(Path("d.safetensors"))
    assert opened.facts.method == "definitions"
    assert opened.facts.results["input"]["held_out"]["tokens"] > 2
    assert 0 < len(opened.tables[0].ids) <= len(words) // 4
    before, after = (
        find_tables(str(place)).embedding.read()
        for place in (source, repaired_model("m", Path("d.safetensors"), Path("t")))
    )
    changed = (before != after).any(1).nonzero().squeeze(1)
    assert changed.tolist() == opened.tables[0].ids.tolist()
