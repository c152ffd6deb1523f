"""`decone reproduce`: the paper's numbers beside ours, filled bit by bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.training.tiny import bert

from decone.studies import pool
from decone.studies.reproduce import PaperRow, PaperTable, load_tables
from decone.studies.table import MEASURES
from decone.training.config import RunConfig

pytestmark = pytest.mark.usefixtures("tiny")

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)

TABLES = load_tables("stop_jostling")
NUMBERS = {"HR": (5.25, 5.5, 1.0, 0.5, 0.75, 0.625, 0.875), "LR": (10.25, 10.5, 1.0, 0.25, 0.5, 0.375, 0.125)}
PUBLISHED = {
    language: {measure.key: number for measure, number in zip(MEASURES, numbers, strict=True)}
    for language, numbers in NUMBERS.items()
}


@pytest.fixture
def tables(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that takes seconds in the place of the published ones."""
    base = RunConfig.read(tiny).model_dump(exclude={"method", "seed"})
    rows = (
        PaperRow("base", "Baseline", "mle", PUBLISHED),
        PaperRow("short", "Short", "threshold:margin=0.05", PUBLISHED, {"steps": 5}),
    )
    monkeypatch.setattr(
        "decone.studies.reproduce.EXHIBITS", {"tiny:table1": PaperTable("tiny", "table1", "A tiny table", base, rows)}
    )


def test_all_tables_are_named(decone: Decone) -> None:
    code, out, err = decone("reproduce", "--list")
    assert (code, err) == (0, "")
    for name, table in TABLES.items():
        assert f"{name}  {table.title}" in " ".join(out.split()).replace("  ", " ").replace(name + " ", name + "  ")
        assert all(row.name in out for row in table.rows)


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_folder_shows_the_published_numbers(name: str, decone: Decone) -> None:
    code, out, err = decone("reproduce", name, "--show")
    assert (code, err) == (0, "")
    for row in TABLES[name].rows:
        assert row.label.split()[0] in out
        assert all(f"{numbers['perplexity']:.2f}" in out for numbers in row.published.values())
    assert "not run" in out
    code, out, err = decone("reproduce", name, "--show", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {row.label: [] for row in TABLES[name].rows}
    assert not Path("results").exists(), "showing writes nothing"
    assert not Path("runs").exists(), "showing writes nothing"


@pytest.mark.usefixtures("tables", "workers")
def test_a_table_is_filled_bit_by_bit(decone: Decone, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = decone("reproduce", "tiny:table1", "--seeds", "1", "--rows", "short", "--device", "cpu")
    assert (code, err) == (0, "the table is results/tiny/table1.md\n")
    assert "A tiny table" in out
    assert "Short" in out
    assert "Baseline" not in out
    assert "5.25" in out
    first = Path("results/tiny/short-seed-1337.json")
    content = first.read_bytes()
    assert [path.name for path in Path("results/tiny").glob("*.json")] == [first.name]
    Path("runs/tiny/short/seed-1337/result.json").unlink()  # the result is enough
    assert decone("reproduce", "tiny:table1", "--seeds", "2", "--jobs", "1", "--device", "cpu").code == 0
    assert first.read_bytes() == content
    assert not Path("runs/tiny/short/seed-1337/result.json").exists(), "it has not been made again"
    assert sorted(path.name for path in Path("results/tiny").glob("*.json")) == [
        f"{name}-seed-{seed}.json" for name in ("base", "short") for seed in (1, 1337)
    ]
    monkeypatch.setattr(pool, "ProcessPoolExecutor", None)
    code, out, err = decone("reproduce", "tiny:table1", "--seeds", "2")
    assert code == 0
    assert "Baseline" in out
    assert "not run" not in out
    assert "Baseline" in Path("results/tiny/table1.md").read_text()
    shown = decone("reproduce", "tiny:table1", "--show")
    assert shown == (0, out, ""), "showing takes all seeds that are there"
    last = decone("reproduce", "tiny:table1", "--show", "--select", "last")
    assert last.code == 0
    found = json.loads(decone("reproduce", "tiny:table1", "--show", "--json").out)
    assert {label: [result["seed"] for result in results] for label, results in found.items()} == {
        "Baseline": [1, 1337],
        "Short": [1, 1337],
    }


@pytest.mark.usefixtures("tables", "workers")
def test_other_folders(decone: Decone) -> None:
    options = ("--out", "kept", "--runs", "scratch", "--seeds", "3,", "--rows", "short", "--device", "cpu")
    assert decone("reproduce", "tiny:table1", *options, "--quiet").code == 0
    assert sorted(path.name for path in Path("kept/tiny").iterdir()) == ["short-seed-3.json", "table1.md"]
    assert Path("scratch/tiny/short/seed-3/model.safetensors").is_file()
    assert not Path("results").exists()


def test_a_table_is_fine_tuned_in_processes_of_its_own(
    decone: Decone, data: Path, workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers of the nursery have the environment of its first day, but the folder of today.
    Path("shared").mkdir()
    Path("shared/data").symlink_to(data)
    Path("checkout").mkdir()
    monkeypatch.chdir("checkout")
    bert(Path("model"), width=32)
    options = ("--model", "model", "--rows", "original,directions", "--tasks", "CoLA", "--device", "cpu")
    options = (*options, "--set", "examples=32", "--set", "epochs=1", "--set", "length=16")
    code, out, err = decone("reproduce", "definitionemb:glue", *options, "--seeds", "2")
    assert (code, err) == (0, "the table is results/definitionemb/glue/model.md\n")
    assert "CoLA MCC" in out
    assert "DelDirection" in out
    assert "paper: none found" in out
    names = [f"{row}-CoLA-seed-{seed}.json" for row in ("directions", "original") for seed in (1, 1337)]
    assert sorted(path.name for path in Path("results/definitionemb/glue/model").iterdir()) == names
    assert decone("reproduce", "definitionemb:glue", *options, "--show") == (0, out, "")
    found = json.loads(decone("reproduce", "definitionemb:glue", *options, "--show", "--json").out)
    assert [result["seed"] for result in found["Original table"]] == [1, 1337]
    wrong = decone("reproduce", "definitionemb:glue", "--delta", "x")
    assert wrong == (2, "", "decone: --delta 'x' is not key=value; write e.g. --delta definitions=FILE\n")
