"""Downstream comparisons: filled bit by bit, never with what was made otherwise. The pool has tests of its own."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.training.tiny import SCORES, TASK, bert, examples, pairs

from decone.data.published import Published
from decone.studies import downstream
from decone.studies.definitionemb import GLUE, GLUE_PRESETS, SUMMARIZATION
from decone.studies.downstream import DownstreamStudy, FinetuneJob, Preset, make_delta
from decone.studies.store import FinetuneRequest, StudyRequest
from decone.training.interrupt import Stopped
from decone.training.tasks import glue
from decone.training.tasks import tasks as all_tasks
from decone.training.tasks.summarization import SOURCES, SummaryConfig

TINY = {"epochs": "2", "lr": "3e-3", "batch": "16"}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two small tasks in place of GLUE, and one process; gives the names of what is run."""
    makers = {"RTE": examples, "STS-B": pairs}
    for task in (TASK, SCORES):
        monkeypatch.setitem(all_tasks(), task.name, task)
    sizes = {"train": 48, "dev": 20}
    monkeypatch.setattr(glue, "load", lambda source, part: makers[source.name](sizes[part], len(part)))
    monkeypatch.setitem(GLUE_PRESETS, "minilm", Preset(lambda: "model"))
    names: list[str] = []

    def serial(jobs: Sequence[FinetuneJob], work: Any, keep: Any, processes: int, watch: Any) -> None:
        for job in jobs:
            names.append(job.name)
            keep(job, work(job, 1, lambda: False))

    monkeypatch.setattr(downstream, "work_off", serial)
    bert(Path("model"), width=32)
    return names


def study(
    seeds: Sequence[int] = (1,),
    rows: str = "original,directions",
    device: str = "cpu",
    select: str | None = None,
    **values: Any,
) -> DownstreamStudy:
    request = StudyRequest(rows, seeds, Path("results"), Path("runs"), device, select)
    return GLUE.plan(request, FinetuneRequest(**{"tasks": "RTE", "settings": TINY, **values}))


def test_what_is_missing_is_filled(ran: list[str]) -> None:
    assert study().steps() == 2 * 6
    calls: list[tuple[str, int]] = []
    study(rows="original").run(done=lambda job, step: calls.append((job.name, step)))
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
    real = downstream.work_off

    def stopped(jobs: Sequence[FinetuneJob], *others: Any) -> None:
        real(jobs[:1], *others)
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(downstream, "work_off", stopped)
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
    assert isinstance(next(task for task in glue.TASKS if task.name == "MRPC").train, Published)
    with pytest.raises(ValueError, match="put it at DIR/glue/MRPC"):
        study(rows="original", tasks="MRPC").run()
    assert not Path("runs").exists()
    assert not Path("results").exists()


def glue_result(untuned: float | None = None, **measured: float) -> dict[str, Any]:
    return {"epochs": [{"measured": {}}, {"measured": measured}], "untuned": untuned}


def test_presets_for_glue_are_settings_of_every_task() -> None:
    assert set(GLUE.suite.tasks) == {task.name for task in glue.TASKS}
    assert next(iter(GLUE.suite.presets)) == "minilm"
    for name, preset in GLUE.suite.presets.items():
        for task in GLUE.suite.tasks:
            settings = {**preset.settings, **preset.tasks.get(task, {})}
            config = all_tasks()[task].build({**settings, "model": name})
            assert config.epochs >= 2
            assert preset.find()
    with pytest.raises(ValueError, match="unknown key 'epoch'; did you mean 'epochs'"):
        all_tasks()["RTE"].build({"model": "m", "epoch": 3})


def test_the_last_epoch_of_glue_counts_and_the_average_is_over_tasks() -> None:
    results = {"MRPC": glue_result(f1=0.9, accuracy=0.7), "RTE": glue_result(accuracy=0.6)}
    values = GLUE.suite.values(results, ["MRPC", "RTE"])
    assert values == pytest.approx({"MRPC.f1": 90, "MRPC.accuracy": 70, "RTE.accuracy": 60, "average": 70})
    assert "average" not in GLUE.suite.values(results, ["MRPC", "RTE", "CoLA"]), "a task is missing"
    similar = {"STS-B": glue_result(0.8, pearson=0.5, spearman=0.3)}
    assert GLUE.suite.values(similar, ["STS-B"])["untuned"] == pytest.approx(80)
    assert GLUE.suite.values({}, ["STS-B"]) == {}


def test_columns_of_glue() -> None:
    assert [one.heading for one in GLUE.suite.measures(["RTE"])] == ["RTE acc"]
    found = GLUE.suite.measures(GLUE.suite.usual)
    assert [one.heading for one in found][-3:] == ["STS-B ρ", "Average", "Untuned ρ"]
    assert [one.key for one in found if not one.seeded] == ["untuned"]


def summary_config(task: str, **values: Any) -> SummaryConfig:
    config = all_tasks()[task].build({"model": "m", **values})
    assert isinstance(config, SummaryConfig)
    return config


def summary_result(**measured: float) -> dict[str, Any]:
    return {"epochs": [{"measured": {}}, {"measured": measured}]}


def test_presets_for_summaries_are_settings_of_every_task() -> None:
    assert set(SUMMARIZATION.suite.tasks) == set(SOURCES)
    assert next(iter(SUMMARIZATION.suite.presets)) == "bart-large"
    for name, preset in SUMMARIZATION.suite.presets.items():
        for task in SUMMARIZATION.suite.tasks:
            config = summary_config(task, model=name, **preset.settings)
            assert config.longest > config.shortest
            assert preset.find().endswith(name)
            assert config.target >= config.longest, "training summaries are not cut below what may be written"


def test_the_search_is_that_of_the_task_unless_it_is_said() -> None:
    short, long = (summary_config(task) for task in SUMMARIZATION.suite.tasks)
    assert (short.beams, short.longest, long.beams, long.longest) == (6, 60, 4, 140)
    assert summary_config("dialogsum", longest="80").longest == 80
    with pytest.raises(ValueError, match="longest = 20 is below shortest = 55"):
        summary_config("cnn_dailymail", longest="20")
    assert type(long).build(long.model_dump()) == long, "a result says all of its settings"


def test_the_last_epoch_of_summaries_counts_and_the_average_is_over_tasks() -> None:
    results = {
        "dialogsum": summary_result(rouge1=0.4, rouge2=0.1, rougeL=0.3),
        "cnn_dailymail": summary_result(rouge1=0.2, rouge2=0.0, rougeL=0.1),
    }
    values = SUMMARIZATION.suite.values(results, SUMMARIZATION.suite.tasks)
    assert values["dialogsum.rouge1"] == pytest.approx(40)
    assert values["average"] == pytest.approx(100 * (0.8 / 3 + 0.3 / 3) / 2)
    del results["dialogsum"]
    assert "average" not in SUMMARIZATION.suite.values(results, SUMMARIZATION.suite.tasks)
    headings = [one.heading for one in SUMMARIZATION.suite.measures(SUMMARIZATION.suite.tasks)]
    assert headings[:3] == ["DialogSum R-1", "DialogSum R-2", "DialogSum R-L"]
    assert headings[-1] == "Average"
    assert [one.key for one in SUMMARIZATION.suite.measures(["dialogsum"])] == [
        f"dialogsum.rouge{kind}" for kind in "12L"
    ]
