"""GLUE as a suite: presets that are settings, columns, averages."""

import pytest

from decone.data.glue import TASKS
from decone.studies.glue import HEADINGS, Glue

SUITE = Glue()


def result(untuned: float | None = None, **measured: float) -> dict[str, object]:
    return {"epochs": [{"measured": {}}, {"measured": measured}], "untuned": untuned}


def test_presets_are_settings_of_every_task() -> None:
    assert set(HEADINGS) == set(SUITE.tasks) == set(TASKS)
    assert next(iter(SUITE.presets)) == "minilm"
    for name, preset in SUITE.presets.items():
        for task in SUITE.tasks:
            settings = {**preset.settings, **preset.tasks.get(task, {})}
            config = SUITE.build({**settings, "model": name, "task": task})
            assert config.epochs >= 2
            assert preset.find()
    with pytest.raises(ValueError, match="unknown key 'epoch'; did you mean 'epochs'"):
        SUITE.build({"model": "m", "task": "RTE", "epoch": 3})


def test_the_last_epoch_counts_and_the_average_is_over_tasks() -> None:
    results = {"MRPC": result(f1=0.9, accuracy=0.7), "RTE": result(accuracy=0.6)}
    values = SUITE.values(results, ["MRPC", "RTE"])  # type: ignore[arg-type]
    assert values == pytest.approx({"MRPC.f1": 90, "MRPC.accuracy": 70, "RTE.accuracy": 60, "average": 70})
    assert "average" not in SUITE.values(results, ["MRPC", "RTE", "CoLA"]), "a task is missing"  # type: ignore[arg-type]
    similar = {"STS-B": result(0.8, pearson=0.5, spearman=0.3)}
    assert SUITE.values(similar, ["STS-B"])["untuned"] == pytest.approx(80)  # type: ignore[arg-type]
    assert SUITE.values({}, ["STS-B"]) == {}


def test_columns() -> None:
    assert [one.heading for one in SUITE.measures(["RTE"])] == ["RTE acc"]
    found = SUITE.measures(SUITE.usual)
    assert [one.heading for one in found][-3:] == ["STS-B ρ", "Average", "Untuned ρ"]
    assert [one.key for one in found if not one.seeded] == ["untuned"]
