"""The log: appended, cut back to the step resumed from, readable after a kill."""

import sys
from pathlib import Path

import pytest

from decone.training import run

RUN = Path()
FILE = Path("metrics.jsonl")


def written(*steps: int) -> None:
    with run.RunLog(RUN, 0) as file:
        for step in steps:
            file.write("train", step, {"loss": 1.0 / step})


def steps() -> list[int]:
    return [line["step"] for line in run.read_log(RUN)]


def test_lines_are_there_as_soon_as_they_are_written() -> None:
    with run.RunLog(RUN, 0) as file:
        file.write("train", 1, {"loss": 0.5})
        assert list(run.read_log(RUN)) == [{"kind": "train", "step": 1, "loss": 0.5}]
        file.write("validation", 2, {"loss": float("inf")})
        assert steps() == [1, 2]


@pytest.mark.parametrize("step", [0, 1, 5, 99])
def test_lines_after_the_step_resumed_from_go(step: int) -> None:
    written(1, 5, 5, 10)
    with run.RunLog(RUN, step) as file:
        file.write("train", step + 1, {})
    assert steps() == [number for number in (1, 5, 5, 10) if number <= step] + [step + 1]
    assert [path.name for path in RUN.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("end", ['{"kind": "tr', "3", "[]", '{"kind": "train"}', '{"step": "x"}', "\x00\x00", "\xff"])
def test_a_damaged_end_is_left_out(end: str) -> None:
    written(1, 2)
    with FILE.open("a", encoding="latin-1") as file:
        file.write(end)
    assert steps() == [1, 2]
    written_again = run.RunLog(RUN, 2)
    with written_again as again:
        again.write("train", 3, {})
    assert steps() == [1, 2, 3]


def test_there_may_be_none() -> None:
    assert list(run.read_log(RUN)) == []


def test_tensorboard_writes_the_same_numbers() -> None:
    pytest.importorskip("tensorboard")
    with run.RunLog(RUN, 0, tensorboard=True) as file:
        file.write("validation", 7, {"loss": 2.5})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("tensorboard")
    events.Reload()
    (event,) = events.Scalars("validation/loss")
    assert (event.step, event.value) == (7, 2.5)


def test_tensorboard_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"machine\.tensorboard needs the package: pip install"):
        run.RunLog(RUN, 0, tensorboard=True)
