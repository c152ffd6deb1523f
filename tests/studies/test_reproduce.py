"""Published tables: filled bit by bit, never with a result of another configuration."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decone.studies import pool, reproduce
from decone.studies.reproduce import PaperRow, PaperStudy, PaperTable, load_tables
from decone.studies.table import MEASURES
from decone.training.config import RunConfig
from decone.training.run import Run

Build = Callable[..., RunConfig]
NUMBERS = {
    language: {measure.key: float(first + index) for index, measure in enumerate(MEASURES)}
    for language, first in (("HR", 1), ("LR", 2))
}
TABLES = load_tables("stop_jostling")
ROWS = (
    PaperRow("base", "Baseline", "mle", NUMBERS),
    PaperRow("short", "Short", "threshold:margin=0.05", NUMBERS, {"steps": 5, "model.tied": False}),
)


@pytest.fixture
def table(build: Build) -> PaperTable:
    base = build(steps=10, evaluation__every=5).model_dump(exclude={"method", "seed"})
    return PaperTable("tiny", "table1", "A tiny table", base, ROWS, ("a note",))


def study(table: PaperTable, seeds: list[int], rows: str | None = None) -> PaperStudy:
    return PaperStudy(table, table.select(rows), seeds, Path("results"), Path("runs"), "cpu")


def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the jobs that are carried out from now on."""
    names: list[str] = []
    real = reproduce.run_all

    def counting(jobs: Any, *others: Any) -> Any:
        names.extend(job.name for job in jobs)
        return real(jobs, *others)

    monkeypatch.setattr(reproduce, "run_all", counting)
    return names


def test_rows_by_name(table: PaperTable) -> None:
    assert table.select(None) == list(ROWS)
    assert table.select(" short , base ,short") == [ROWS[1], ROWS[0]]
    with pytest.raises(ValueError, match="tiny:table1 has no row 'shrt'; its rows: base, short"):
        table.select("base,shrt")
    for empty in ("", " , "):
        with pytest.raises(ValueError, match="--rows is empty; tiny:table1 has base, short"):
            table.select(empty)


def test_configurations_of_rows(table: PaperTable) -> None:
    config = table.config(ROWS[1], 7, "cpu")
    assert (config.method, config.seed, config.steps) == ("threshold:margin=0.05", 7, 5)
    assert not config.model.tied
    assert config.model.width == 16
    assert table.config(ROWS[0], 7).model.tied, "overrides of one row stay with it"


@pytest.mark.usefixtures("workers")
def test_what_is_missing_is_filled(table: PaperTable, monkeypatch: pytest.MonkeyPatch) -> None:
    names = made(monkeypatch)
    assert study(table, [1]).results() == {"Baseline": {}, "Short": {}}
    calls: list[tuple[str, int]] = []
    study(table, [1], "base").run(done=lambda job, step: calls.append((job.name, step)))
    assert names == ["base seed 1"]
    assert calls == [("base seed 1", 10)]
    files = sorted(str(path) for path in Path("results").rglob("*") if path.is_file())
    assert files == ["results/tiny/base-seed-1.json"]
    names.clear()
    study(table, [1, 2]).run()
    assert names == ["short seed 1", "base seed 2", "short seed 2"], "seeds go outermost"
    names.clear()
    study(table, [1, 2]).run()
    assert names == []
    found = study(table, [9]).results()
    assert {label: list(seeds) for label, seeds in found.items()} == {"Baseline": [1, 2], "Short": [1, 2]}
    finished = Run.open(Path("runs/tiny/short/seed-2")).result()
    assert finished is not None
    assert found["Short"][2][""] == finished.to_dict()
    rendered = study(table, [9]).render("last")
    assert (rendered.title, rendered.notes, rendered.select) == ("A tiny table", ["a note"], "last")
    cell = rendered.rows[1].cells["perplexity"]
    assert (rendered.rows[1].language, cell.published, sorted(cell.seeds)) == ("LR", 2, [1, 2])
    assert cell.seeds[1] == found["Baseline"][1][""]["measured"]["last"]["languages"]["LR"]["perplexity"]


@pytest.mark.usefixtures("workers")
def test_a_finished_run_whose_result_got_lost_is_not_made_again(
    table: PaperTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(table, [1], "short").run()
    result = Path("results/tiny/short-seed-1.json")
    content = result.read_bytes()
    result.unlink()
    monkeypatch.setattr(pool, "ProcessPoolExecutor", None)
    study(table, [1], "short").run()
    assert result.read_bytes() == content


@pytest.mark.usefixtures("workers")
def test_results_that_do_not_belong_are_refused(table: PaperTable, monkeypatch: pytest.MonkeyPatch) -> None:
    study(table, [1], "short").run()
    path = Path("results/tiny/short-seed-1.json")
    good = path.read_text()
    names = made(monkeypatch)
    for change, message in (
        (lambda result: result["config"]["model"].update(width=32), "was made with another configuration than 'Short'"),
        (lambda result: result["config"].update(seed=2), "was made with another configuration than 'Short'"),
        (lambda result: result["config"].update(depth=2), r"is damaged \(unknown key 'depth'"),
        (lambda result: result.pop("measured"), r"is damaged \('measured'\)"),
    ):
        result = json.loads(good)
        change(result)
        path.write_text(json.dumps(result))
        for use in (study(table, [1]).run, study(table, [1]).results, study(table, [1]).render):
            with pytest.raises(ValueError, match=message) as error:
                use()
            assert "\n" not in str(error.value)
    path.write_text(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"short-seed-1\.json is damaged"):
        study(table, [1]).run()
    assert names == []
    assert not Path("runs/tiny/base").exists()
    machine = json.loads(good)
    machine["config"]["machine"]["threads"] = 5
    path.write_text(json.dumps(machine))
    assert list(study(table, [1]).results()["Short"]) == [1], "another machine is no other configuration"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: Path("results").touch(), "--out results/tiny lies below .*results, which is a file"),
        (lambda: Path("runs").touch(), "--out runs is a file"),
        (lambda: Path("tiny.txt").unlink(), r"no file tiny\.txt"),
        (lambda: Path("tiny.txt").write_text("short"), "the text is too short"),
    ],
)
def test_what_cannot_be_run_leaves_nothing(spoil: Callable[[], object], message: str, table: PaperTable) -> None:
    spoil()
    before = sorted(Path().rglob("*"))
    with pytest.raises(ValueError, match=message):
        study(table, [1]).run()
    assert sorted(Path().rglob("*")) == before


def test_files_of_other_kinds_do_not_matter(table: PaperTable) -> None:
    folder = Path("results/tiny")
    folder.mkdir(parents=True)
    for name in ("base-seed-x.json", "base-seed-.json", "other-seed-1.json", "table1.md"):
        (folder / name).write_text("?")
    assert study(table, [1]).results() == {"Baseline": {}, "Short": {}}


PUBLISHED_ROWS = [(table, row) for table in TABLES.values() for row in table.rows]


@pytest.mark.parametrize(("table", "row"), PUBLISHED_ROWS, ids=lambda item: item.name)
def test_every_row_can_be_run(table, row) -> None:  # type: ignore[no-untyped-def]
    config = table.config(row, 1337, "cpu")
    assert config.method == row.method
    assert config.seed == 1337
    assert (config.optimizer.warmup, config.steps) in ((100, 8000), (2, 160))
    # The defaults are the paper's setting, so a row's configuration differs from them only where it must.
    values = {"method": row.method, "corpus": {"name": "shakespeare"}}
    if "untied" in row.name:
        values["model"] = {"tied": False}
    if row.name == "monolingual":
        values |= {"language": {"low_resource": 1.0}, "steps": 160, "optimizer": {"warmup": 2}}
    assert config.identity() == RunConfig.build(values).identity()


@pytest.mark.parametrize(("table", "row"), PUBLISHED_ROWS, ids=lambda item: item.name)
def test_published_numbers_make_sense(table, row) -> None:  # type: ignore[no-untyped-def]
    for numbers in row.published.values():
        assert list(numbers) == [measure.key for measure in MEASURES]
        assert 1 < numbers["best_perplexity"] <= numbers["perplexity"] < 25
        assert 0.3 < numbers["best_temperature"] < 1.2
        assert 0 < numbers["accuracy"] < numbers["mrr"] < numbers["recall"] < 1
        assert 0 < numbers["isotropy"] < 1
    assert list(row.published) == (["LR"] if row.name == "monolingual" else ["HR", "LR"])


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_rows_have_names_of_their_own(table) -> None:  # type: ignore[no-untyped-def]
    for names in ([row.name for row in table.rows], [row.label for row in table.rows]):
        assert len(set(names)) == len(names)
    assert len({table.config(row, 1).identity() for row in table.rows}) == len(table.rows)


def test_a_run_is_not_made_twice_for_two_tables() -> None:
    """Rows of different tables share a folder of results by name, so equal names must be equal runs."""
    identities: dict[tuple[str, str], str] = {}
    for table, row in PUBLISHED_ROWS:
        identity = table.config(row, 1).identity()
        assert identities.setdefault((table.study, row.name), identity) == identity
