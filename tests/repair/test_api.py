"""Repairs as functions: what they return, what they write, and that a model stays as it is."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.repair.checkpoints import contents, llama
from tests.repair.definitions.worlds import glosses, saved, tsv

from decone.repair.api import (
    apply_delta,
    lexicon_coverage,
    read_delta,
    rebuild_definitions,
    repair_directions,
    repair_with,
    undo_delta,
)

DELTA = Path("d.safetensors")


def test_directions_from_measuring_to_undoing() -> None:
    model = llama(Path("m"))
    before = contents(Path())
    measured = repair_directions(str(model), components=2, tokens=3)
    assert contents(Path()) == before
    assert measured.delta is None
    stages: list[str] = []
    report = repair_directions(
        model, components=2, tokens=3, out=DELTA, progress=lambda stage, *_: stages.append(stage)
    )
    assert report.tables == measured.tables
    assert report.delta == str(DELTA)
    assert report.bytes == DELTA.stat().st_size
    assert stages == ["tables", "directions of the input table", "geometry of the input table", "writing"]
    facts = read_delta(str(DELTA)).facts
    assert facts.settings == report.settings
    assert facts.results == report.results
    assert apply_delta(model, str(DELTA), "n").rewritten
    undo_delta("n", DELTA, "b")
    assert contents(Path("b")) == contents(model) != contents(Path("n"))


def test_a_dry_run_refuses_what_could_not_be_written() -> None:
    model = llama(Path("m"))
    assert repair_directions(model, out=DELTA, dry_run=True).delta is None
    assert not DELTA.exists()
    with pytest.raises(ValueError, match=r"end in \.safetensors"):
        repair_directions(model, out=Path("d"), dry_run=True)


def test_rows_by_share_and_counts() -> None:
    model = llama(Path("m"))
    Path("counts.tsv").write_text("".join(f"{row}\t{row % 3}\n" for row in range(120)))
    repair_directions(model, rows="seen:0.05", counts=Path("counts.tsv"), centre="kept", out=DELTA)
    assert load_file(DELTA)["0.ids"].tolist() == [109, 112, 115, 118]
    report = repair_directions(model, rows="rare:0.05", centre="kept")
    assert "rare is what has a high id" in " ".join(report.notes)


def test_definitions_as_data_and_as_a_document() -> None:
    model = saved("bert", Path("m"))
    lexicon = tsv(Path("words.tsv"), glosses())
    report = rebuild_definitions(
        "m", lexicon, rows="rare", settings={"ridge": 10, "noise": (1, 0, 0)}, device="cpu", out=DELTA
    )
    recipe = report.settings["recipe"]
    assert (recipe["ridge"], recipe["noise"]) == (10.0, [1.0, 0.0, 0.0])
    assert report.tables[0].changed == 8
    content = report.to_dict()
    assert content["schema"] == "decone.repair/1"
    assert content["found"]["input"]["rebuilt"] == 8
    html = report._repr_html_()
    assert "rows that were not learned from" in html
    assert model.is_dir()


def test_coverage_of_a_lexicon() -> None:
    saved("bert", Path("m"))
    tsv(Path("words.tsv"), glosses())
    report = lexicon_coverage("m", "words.tsv", out="c.json")
    assert report.covered == 40
    assert report.to_dict()["ways"] == {"exact": 40}
    assert "40 of 104 tokens have a definition" in report._repr_html_()
    assert type(report).model_validate_json(Path("c.json").read_text()) == report
    with pytest.raises(ValueError, match="name a lexicon"):
        lexicon_coverage("m", [])


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("direction", {}, "unknown repair 'direction'; did you mean 'directions'"),
        ("directions", {"component": 1}, "has no setting 'component'; did you mean 'components'"),
        ("definitions", {}, "needs the setting 'lexicon'"),
        ("directions", {"rows": "most"}, "no file most; --rows takes rare"),
    ],
)
def test_mistakes(method: str, settings: dict[str, object], message: str) -> None:
    model = llama(Path("m"))
    with pytest.raises(ValueError, match=message):
        repair_with(method, model, **settings)
