"""Downstream comparisons: filled bit by bit, never with what was made otherwise. The pool has tests of its own."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.training.finetuning.tiny import SCORES, TASK, bert, examples, pairs

from decone.data import glue
from decone.data.published import Published
from decone.studies import downstream_runs
from decone.studies import glue as suite
from decone.studies.definitionemb import GLUE
from decone.studies.deltas import make_delta
from decone.studies.downstream_runs import Downstream, Finetuning
from decone.studies.study import Wish
from decone.training.interrupt import Stopped

TINY = {"epochs": "2", "lr": "3e-3", "batch": "16"}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two small tasks in place of GLUE, and one process; gives the names of what is run."""
    tasks = {"RTE": (TASK, examples), "STS-B": (SCORES, pairs)}
    for name, (task, _) in tasks.items():
        monkeypatch.setitem(glue.TASKS, name, task)
    sizes = {"train": 48, "dev": 20}
    monkeypatch.setattr(glue, "load", lambda name, part: tasks[name][1](sizes[part], len(part)))
    monkeypatch.setitem(suite.PRESETS, "minilm", suite.Preset(lambda: "model"))
    names: list[str] = []

    def serial(pieces: Sequence[Finetuning], work: Any, keep: Any, processes: int, watch: Any) -> None:
        for piece in pieces:
            names.append(piece.name)
            keep(piece, work(piece, 1, lambda: False))

    monkeypatch.setattr(downstream_runs, "work_off", serial)
    bert(Path("model"), width=32)
    return names


def study(seeds: Sequence[int] = (1,), **values: Any) -> Downstream:
    wish = {"rows": "original,directions", "tasks": "RTE", "device": "cpu", "settings": TINY, **values}
    return GLUE.plan(Wish(seeds=seeds, out=Path("results"), runs=Path("runs"), **wish))


def test_what_is_missing_is_filled(ran: list[str]) -> None:
    assert study().steps() == 2 * 6
    calls: list[tuple[str, int]] = []
    study(rows="original").run(done=lambda piece, step: calls.append((piece.name, step)))
    assert ran == ["original RTE seed 1"]
    assert calls == [("original RTE seed 1", 6)]
    ran.clear()
    study([1, 2], tasks="RTE,STS-B").run()
    assert ran == [
        "directions RTE seed 1",
        "original STS-B seed 1",
        "directions STS-B seed 1",
        "original RTE seed 2",
        "directions RTE seed 2",
        "original STS-B seed 2",
        "directions STS-B seed 2",
    ], "seeds go outermost, and what is compared stands together"
    ran.clear()
    study([1, 2]).run()
    assert ran == []
    assert study([1, 2]).steps() == 0
    result = json.loads(Path("results/definitionemb/glue/minilm/directions-STS-B-seed-2.json").read_text())
    assert (result["row"], result["task"], result["seed"], result["config"]["lr"]) == ("directions", "STS-B", 2, 3e-3)
    assert result["delta"]["settings"]["centre"] == "released"
    assert len(result["delta"]["sha256"]) == 64
    assert [epoch["epoch"] for epoch in result["epochs"]] == [1, 2]
    assert set(result["epochs"][0]["seconds"])
    assert result["versions"]["transformers"]
    assert result["date"]
    assert result["machine"]
    assert result["seconds"] > 0
    assert -1 <= result["untuned"] <= 1
    assert result["examples"] == {"train": 48, "dev": 20}
    table = study([9], tasks="RTE,STS-B").render()
    assert [row.label for row in table.rows] == ["Original table", "DelDirection, as released"]
    cell = table.rows[1].cells["RTE.accuracy"]
    assert sorted(cell.seeds) == [1, 2]
    assert cell.difference is not None
    assert cell.difference.count == 2
    average = table.rows[1].cells["average"].seeds
    scores = [100 * number for number in result["epochs"][-1]["measured"].values()]
    assert average[2] == pytest.approx((cell.seeds[2] + sum(scores) / 2) / 2)
    assert "minilm" in table.title
    assert any(note.startswith("None found") for note in table.notes)
    assert {label: len(found) for label, found in study(tasks="RTE,STS-B").documents().items()} == {
        "Original table": 4,
        "DelDirection, as released": 4,
    }


def test_pairs_differ_in_the_table_alone(ran: list[str]) -> None:
    """A delta of no effect gives the very numbers of the original: same head, same order, same dropout."""
    study(rows="original,directions").run()
    source = Path("runs/definitionemb/glue/minilm/tables")
    (folder,) = source.glob("directions-*/")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(Path("model/model.safetensors").read_bytes())
    Path("results/definitionemb/glue/minilm/directions-RTE-seed-1.json").unlink()
    study().run()
    one, other = (found[0]["epochs"] for found in study().documents().values())
    assert [epoch["loss"] for epoch in one] == [epoch["loss"] for epoch in other]
    assert [epoch["measured"] for epoch in one] == [epoch["measured"] for epoch in other]


def test_a_stop_leaves_what_is_done(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = downstream_runs.work_off

    def stopped(pieces: Sequence[Finetuning], *others: Any) -> None:
        real(pieces[:1], *others)
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(downstream_runs, "work_off", stopped)
        study().run()
    assert len(study().missing()) == 1
    study().run()
    assert ran == ["original RTE seed 1", "directions RTE seed 1"]


def test_a_delta_of_the_user_takes_the_place_of_ours(ran: list[str]) -> None:
    make_delta("directions-mean", "model", Path("mine.safetensors"))
    given = {"rows": "original,definitions", "deltas": {"definitions": Path("mine.safetensors")}}
    study(**given).run()
    found = study(rows="definitions").documents()["DefinitionEMB"][0]
    assert found["delta"]["settings"]["centre"] == "mean"
    make_delta("directions", "model", Path("other.safetensors"))
    other = {**given, "deltas": {"definitions": Path("other.safetensors")}}
    with pytest.raises(
        ValueError, match=r"definitions-RTE-seed-1\.json was made with another delta \(settings differs"
    ):
        study([1, 2], **other).run()
    with pytest.raises(ValueError, match=r"no file nowhere\.safetensors"):
        study([3], **{**given, "deltas": {"definitions": Path("nowhere.safetensors")}}).run()
    assert ran == ["original RTE seed 1", "definitions RTE seed 1"]


def change(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda result: result.update(values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(epochs=[]), r"is damaged \(0 of 2 epochs\); remove it to run it again"),
        (change(schema="x"), "is damaged .not this program's format"),
        (change(delta=None), "is damaged .its delta does not fit its row"),
        (lambda result: result["epochs"][0]["measured"].update(accuracy=float("nan")), "a measure is no number"),
        (lambda result: result["config"].update(lr=1.0), r"was made with lr=1\.0, not 0\.003; choose another --out"),
        (lambda result: result.pop("config"), "is damaged"),
    ],
)
def test_results_that_do_not_belong_are_refused(
    damage: Callable[[dict[str, Any]], None], message: str, ran: list[str]
) -> None:
    study(rows="directions").run()
    path = Path("results/definitionemb/glue/minilm/directions-RTE-seed-1.json")
    result = json.loads(path.read_text())
    damage(result)
    path.write_text(json.dumps(result))
    for act in (study().run, study().render, study().documents):
        with pytest.raises(
            ValueError, match=f"directions-RTE-seed-1.json {message}" if message[0] in "iw" else message
        ):
            act()
    path.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        study().render()


def test_wishes_that_make_no_sense(ran: list[str]) -> None:
    for values, message in (
        ({"select": "best"}, "counts the last epoch and chooses none; leave --select best out"),
        ({"rows": "x"}, "has no row 'x'; its rows: original, directions, definitions, directions-mean"),
        ({"tasks": "WNLI"}, "has no task 'WNLI'"),
        ({"deltas": {"original": Path("x")}}, "--delta names the row 'original'; rows of this run .*: directions"),
        ({"settings": {"seed": "3"}}, "--set seed is not free here; use --seeds"),
        ({"settings": {"lr": "-1"}}, "lr = '-1'"),
    ):
        with pytest.raises(ValueError, match=message):
            study(**values)
    with pytest.raises(ValueError, match="device 'x'"):
        study(device="x").run()
    with pytest.raises(ValueError, match="cannot load nowhere to be fine-tuned"):
        study(model="nowhere", rows="original").run()
    assert not list(Path("results").rglob("*.json"))


def test_a_folder_of_ones_own_is_named_by_its_last_part_alone(ran: list[str], tmp_path: Path) -> None:
    study(model=str(tmp_path / "model"), rows="original").run()
    path = Path("results/definitionemb/glue/model/original-RTE-seed-1.json")
    assert str(tmp_path) not in path.read_text(), "no path of this machine in a result"
    assert study(model="org/name").label == "org--name"


def test_data_that_is_not_here_is_told_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DECONE_DATA", raising=False)
    assert isinstance(glue.TASKS["MRPC"].train, Published)
    with pytest.raises(ValueError, match="put it at DIR/glue/MRPC"):
        GLUE.plan(Wish("original", [1], Path("results"), Path("runs"), "cpu", tasks="MRPC", settings=TINY)).run()
    assert not Path("runs").exists()
    assert not Path("results").exists()
