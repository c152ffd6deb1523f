"""The folder of a run: claimed once, opened again, never shared with anything else; and the log in it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from decone.files.safetensors import write_tensors
from decone.models.nano import Nano
from decone.training.config import RunConfig
from decone.training.inputs import train_tokenizer
from decone.training.run import Run, RunLog, read_log, read_result, require_creatable

OUT, LOGGED = Path("run"), Path()
CONFIG = RunConfig.build({"model": {"width": 16, "layers": 1, "heads": 2, "context": 16}})
SCORES = {
    "perplexity": 2.0,
    "best_perplexity": 1.5,
    "best_temperature": 0.9,
    "accuracy": 0.5,
    "recall": {"5": 0.75},
    "mrr": 0.6,
    "count": 16,
    "groups": {"rare": {"tokens": 3, "count": 0, "perplexity": None, "accuracy": None}},
    "curve": [[1.0, 2.0]],
    "isotropy": {"raw": 0.5},
}
RESULT: dict[str, Any] = {
    "method": "mle",
    "seed": 1337,
    "config": CONFIG.model_dump(),
    "identity": CONFIG.identity(),
    "select": "best",
    "corpus": {"name": "tiny.txt"},
    "vocabulary": 3,
    "parameters": 100,
    "seconds": 1.5,
    "measured": {name: {"step": 8, "languages": {"HR": SCORES}, "alignment": 0.5} for name in ("last", "best")},
    "history": [{"kind": "validation", "step": 4, "loss": 2.5}],
    "versions": {"decone": None},
    "machine": {"cores": 2},
    "date": "2026-01-01T00:00:00+00:00",
    "commit": None,
}


def test_a_folder_is_claimed_and_opened_again() -> None:
    run = Run.create(OUT, CONFIG)
    assert [path.name for path in OUT.iterdir()] == ["config.toml"]
    assert RunConfig.read(OUT / "config.toml") == CONFIG == run.config == Run.open(OUT).config
    assert run.tokenizer() is None
    assert run.result() is None
    assert run.log_lines() == []


def test_planning_writes_nothing() -> None:
    Run.plan(OUT / "deep", CONFIG)
    assert not OUT.exists()


def test_the_machine_may_change() -> None:
    Run.create(OUT, CONFIG)
    other = RunConfig.build({**CONFIG.model_dump(), "machine": {"threads": 3}})
    assert Run.create(OUT, other).config.machine.threads == 3


def test_another_configuration_is_refused() -> None:
    Run.create(OUT, CONFIG)
    with pytest.raises(ValueError, match="run holds a run of another configuration; choose another --out"):
        Run.create(OUT, RunConfig.build({**CONFIG.model_dump(), "seed": 1}))
    assert Run.open(OUT).config == CONFIG


@pytest.mark.parametrize("left", ["config.toml.123.writing", "probe.7.writing"])
def test_what_a_killed_or_simultaneous_claim_leaves_does_not_matter(left: str) -> None:
    OUT.mkdir()
    (OUT / left).touch()
    assert Run.create(OUT, CONFIG).config == CONFIG


def spoil_file() -> None:
    OUT.write_text("text")


def spoil_content() -> None:
    OUT.mkdir()
    (OUT / "thesis.tex").touch()


def spoil_above() -> None:
    Path("file").touch()
    OUT.symlink_to(Path("file") / "run")


@pytest.mark.parametrize(
    ("spoil", "path", "message"),
    [
        (spoil_file, OUT, "--out run is a file; name a folder"),
        (spoil_content, OUT, "--out run is not empty and holds no decone run; choose another folder"),
        (spoil_file, OUT / "below" / "it", "--out run/below/it lies below .*run, which is a file"),
    ],
)
@pytest.mark.parametrize("method", [Run.plan, Run.create])
def test_a_folder_that_cannot_be_is_refused(
    spoil: Callable[[], None], path: Path, message: str, method: Callable[..., Run]
) -> None:
    spoil()
    before = sorted(Path().rglob("*"))
    with pytest.raises(ValueError, match=message):
        method(path, CONFIG)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
def test_a_place_where_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot write to /proc/decone: .*choose another folder"):
        Run.create(Path("/proc/decone"), CONFIG)


def test_a_place_without_permission_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # the superuser may write anywhere
    with pytest.raises(
        ValueError, match=r"cannot write to --out deep/run: no permission for .*; choose another folder"
    ):
        require_creatable(Path("deep/run"))


def test_what_is_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="no run at run; name the folder given as --out"):
        Run.open(OUT)
    OUT.mkdir()
    with pytest.raises(ValueError, match="run holds no decone run"):
        Run.open(OUT)
    (OUT / "config.toml").write_text("stps = 3")
    with pytest.raises(ValueError, match="unknown key 'stps'; did you mean 'steps'"):
        Run.open(OUT)


def test_a_result_is_read() -> None:
    run = Run.create(OUT, CONFIG)
    run.result_path.write_text(json.dumps(RESULT))
    result = run.result()
    assert result is not None
    assert json.dumps(result.to_dict()) == json.dumps(RESULT)
    assert result.path == OUT
    assert result.scores["HR"].best_temperature == 0.9


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"measured": ',
        "[]",
        "3",
        "{}",
        json.dumps({**RESULT, "measured": {"last": RESULT["measured"]["last"]}}),
        json.dumps({**RESULT, "measured": {"best": {}, "last": {}}}),
        json.dumps({**RESULT, "measured": {"best": {"languages": {}}, "last": {"languages": {}}}}),
        json.dumps({**RESULT, "measured": 3}),
        json.dumps({"measured": RESULT["measured"]}),
        json.dumps({**RESULT, "config": {"stps": 3}}),
    ],
)
def test_a_damaged_result_is_refused(content: str) -> None:
    Path("result.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"result\.json is damaged \(.+\); remove it to measure the run again"
    ) as error:
        read_result(Path("result.json"))
    assert "\n" not in str(error.value)


def finished(**changes: Any) -> tuple[Run, Nano]:
    run = Run.create(OUT, CONFIG)
    tokenizer = train_tokenizer(CONFIG, "abcabc")
    run.save_tokenizer(tokenizer)
    model = Nano(CONFIG.model.model_copy(update={"vocabulary": 6, **changes}))
    write_tensors(run.model_path, model.state_dict())
    return run, model


def test_the_model_comes_back() -> None:
    run, model = finished()
    found, ids = run.model(), torch.tensor([[0, 1, 2]])
    assert torch.equal(found.logits(ids), model.logits(ids))
    assert not found.training
    assert found.vocabulary == 6


def test_a_model_that_is_not_there_or_not_this_one_is_refused() -> None:
    run = Run.create(OUT, CONFIG)
    with pytest.raises(ValueError, match="the run run is not done; finish it with: decone train --resume run"):
        run.model()
    run, _ = finished(width=8)
    with pytest.raises(ValueError, match=r"does not fit its config\.toml") as error:
        run.model()
    assert "\n" not in str(error.value)
    run.model_path.write_bytes(b"\x00" * 50)
    with pytest.raises(ValueError, match=r"cannot read .*model\.safetensors"):
        run.model()
    write_tensors(run.model_path, {"wte": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"holds no embedding\.weight"):
        run.model()


def test_beaten_weights_go() -> None:
    run = Run.create(OUT, CONFIG)
    for step in (5, 10, 15):
        run.best(step).touch()
    run.forget_best(except_step=10)
    assert [path.name for path in OUT.glob("best-*")] == ["best-00000010.safetensors"]


def test_unfinished_files_go() -> None:
    run = Run.create(OUT, CONFIG)
    (OUT / "metrics.jsonl.99.writing").touch()
    run.forget_unfinished()
    assert [path.name for path in OUT.iterdir()] == ["config.toml"]


def written(*steps: int) -> None:
    with RunLog(LOGGED, 0) as file:
        for step in steps:
            file.write("train", step, {"loss": 1.0 / step})


def steps() -> list[int]:
    return [line["step"] for line in read_log(LOGGED)]


def test_lines_are_there_as_soon_as_they_are_written() -> None:
    with RunLog(LOGGED, 0) as file:
        file.write("train", 1, {"loss": 0.5})
        assert list(read_log(LOGGED)) == [{"kind": "train", "step": 1, "loss": 0.5}]
        file.write("validation", 2, {"loss": float("inf")})
        assert steps() == [1, 2]


@pytest.mark.parametrize("step", [0, 1, 5, 99])
def test_lines_after_the_step_resumed_from_go(step: int) -> None:
    written(1, 5, 5, 10)
    with RunLog(LOGGED, step) as file:
        file.write("train", step + 1, {})
    assert steps() == [number for number in (1, 5, 5, 10) if number <= step] + [step + 1]
    assert [path.name for path in LOGGED.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("end", ['{"kind": "tr', "3", "[]", '{"kind": "train"}', '{"step": "x"}', "\x00\x00", "\xff"])
def test_a_damaged_end_is_left_out(end: str) -> None:
    written(1, 2)
    with Path("metrics.jsonl").open("a", encoding="latin-1") as file:
        file.write(end)
    assert steps() == [1, 2]
    written_again = RunLog(LOGGED, 2)
    with written_again as again:
        again.write("train", 3, {})
    assert steps() == [1, 2, 3]


def test_there_may_be_none() -> None:
    assert list(read_log(LOGGED)) == []


def test_tensorboard_writes_the_same_numbers() -> None:
    pytest.importorskip("tensorboard")
    with RunLog(LOGGED, 0, tensorboard=True) as file:
        file.write("validation", 7, {"loss": 2.5})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("tensorboard")
    events.Reload()
    (event,) = events.Scalars("validation/loss")
    assert (event.step, event.value) == (7, 2.5)


def test_tensorboard_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"machine\.tensorboard needs the package: pip install"):
        RunLog(LOGGED, 0, tensorboard=True)
