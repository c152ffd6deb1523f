"""Summarisation as a suite: presets that are settings, the search of a task, columns, averages."""

from typing import Any

import pytest

from decone.data.summaries import SOURCES
from decone.studies.summaries import HEADINGS, Summaries

SUITE = Summaries()


def result(**measured: float) -> dict[str, Any]:
    return {"epochs": [{"measured": {}}, {"measured": measured}]}


def test_presets_are_settings_of_every_task() -> None:
    assert set(HEADINGS) == set(SUITE.tasks) == set(SOURCES)
    assert next(iter(SUITE.presets)) == "bart-large"
    for name, preset in SUITE.presets.items():
        for task in SUITE.tasks:
            config = SUITE.build({**preset.settings, "model": name, "task": task})
            assert config.longest > config.shortest
            assert preset.find().endswith(name)
            assert config.target >= config.longest, "training summaries are not cut below what may be written"


def test_the_search_is_that_of_the_task_unless_it_is_said() -> None:
    short, long = (SUITE.build({"model": "m", "task": task}) for task in SUITE.tasks)
    assert (short.beams, short.longest, long.beams, long.longest) == (6, 60, 4, 140)
    assert SUITE.build({"model": "m", "task": "dialogsum", "longest": "80"}).longest == 80
    with pytest.raises(ValueError, match="longest = 20 is below shortest = 55"):
        SUITE.build({"model": "m", "task": "cnn_dailymail", "longest": "20"})
    assert type(long).build(long.model_dump()) == long, "a result says all of its settings"


def test_the_last_epoch_counts_and_the_average_is_over_tasks() -> None:
    results = {
        "dialogsum": result(rouge1=0.4, rouge2=0.1, rougeL=0.3),
        "cnn_dailymail": result(rouge1=0.2, rouge2=0.0, rougeL=0.1),
    }
    values = SUITE.values(results, SUITE.tasks)
    assert values["dialogsum.rouge1"] == pytest.approx(40)
    assert values["average"] == pytest.approx(100 * (0.8 / 3 + 0.3 / 3) / 2)
    del results["dialogsum"]
    assert "average" not in SUITE.values(results, SUITE.tasks)
    headings = [one.heading for one in SUITE.measures(SUITE.tasks)]
    assert headings[:3] == ["DialogSum R-1", "DialogSum R-2", "DialogSum R-L"]
    assert headings[-1] == "Average"
    assert [one.key for one in SUITE.measures(["dialogsum"])] == [f"dialogsum.rouge{kind}" for kind in "12L"]
