"""Whatever stops a run, and however often: resumed, it ends in the same bits as an undisturbed one."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from decone.cli.main import main
from decone.files import safetensors
from decone.training import checkpoint, loop
from decone.training.config import RunConfig
from decone.training.loop import Interrupted, Trainer
from decone.training.run import Run

Build = Callable[..., RunConfig]
slow = pytest.mark.slow
METHODS = ["mle", "threshold:margin=0.05+row-adamw"]
PATIENCE = 120.0  # seconds, on a machine with much else to do


def train(config: RunConfig, name: str, **options: Any) -> dict[str, Any]:
    return Trainer(config, Run.create(Path(name), config)).train(**options)


def traces(folder: str) -> dict[str, Any]:
    """All that must not depend on interruptions."""
    path = Path(folder)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((path / "result.json").read_text())
    return {
        "model": (path / "model.safetensors").read_bytes(),
        "tokenizer": (path / "tokenizer.json").read_bytes(),
        "log": [{key: value for key, value in line.items() if key != "seconds"} for line in lines],
        "measured": result["measured"],
        "history": result["history"],
        "files": sorted(str(file.relative_to(path)) for file in path.rglob("*")),
    }


def assert_same(folder: str, undisturbed: str) -> None:
    found, wanted = traces(folder), traces(undisturbed)
    for name in wanted:
        assert found[name] == wanted[name], name


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.0005)


def reached(folder: Path) -> int:
    """Step of the newest checkpoint, 0 if there is none."""
    try:
        steps = [int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*")]
    except FileNotFoundError:
        return 0
    return max(steps, default=0)


@pytest.mark.parametrize("method", METHODS)
def test_five_kills_change_nothing(method: str, build: Build, nursery: ForkServerContext) -> None:
    config = build(method=method, steps=120, evaluation__every=15, model__dropout=0.1)
    train(config, "undisturbed")
    folder, draw = Path("killed"), random.Random()
    Run.create(folder, config)
    kills = []
    # Five moments: before the first checkpoint, while one is written, between two, at any step.
    for earliest in (0, 10, 30, 50, 70):
        process = nursery.Process(target=main, args=(["train", "--resume", "killed", "--quiet"],))
        process.start()
        while reached(folder) < earliest and process.is_alive():
            time.sleep(0.0005)
        time.sleep(draw.uniform(0, 0.03))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            kills.append(reached(folder))
    assert kills, "no kill came in time"
    main_quietly(["train", "--resume", "killed", "--quiet"])
    assert_same("killed", "undisturbed")


def main_quietly(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert not stop.value.code


@pytest.mark.parametrize(
    ("method", "stops"),
    [
        ("mle", [7, 8, 23]),
        (METHODS[1], [1, 10, 20, 39]),
        ("agg:alpha=3,window=7+row-adamw", [3, 12, 28]),
        pytest.param("mle", range(1, 40), marks=pytest.mark.slow),
        pytest.param(METHODS[1], range(1, 40), marks=pytest.mark.slow),
        pytest.param("agg:alpha=3,window=7+row-adamw", range(1, 40), marks=pytest.mark.slow),
    ],
)
def test_stops_at_any_step_change_nothing(stops: list[int], method: str, build: Build) -> None:
    config = build(method=method, model__dropout=0.1)
    train(config, "undisturbed")
    for step in stops:
        with pytest.raises(Interrupted, match=f"stopped after step {step}; resume with: decone train --resume stopped"):
            train(config, "stopped", **until(step))
    train(config, "stopped")
    assert_same("stopped", "undisturbed")


def until(last: int) -> dict[str, Any]:
    """A wish to stop that arises at a step."""
    now = [0]
    return {"progress": lambda step, fields: now.__setitem__(0, step), "stop": lambda: now[0] == last}


class Killed(BaseException):
    """What nothing in the program catches, like SIGKILL."""


@pytest.mark.parametrize("name", ["save_file", "fsync", "replace", "rename"])
@pytest.mark.parametrize("number", [0, 1, 2, 4, 7, 9])
def test_a_kill_between_the_files_changes_nothing(
    name: str, number: int, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build(steps=20, evaluation__every=4)
    train(config, "undisturbed")
    owner: Any = {"save_file": safetensors, "fsync": os}.get(name, Path)
    real, calls = getattr(owner, name), iter(range(1000))

    def killing(*args: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise Killed
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killing)
        try:
            train(config, "killed")
        except Killed:
            folder = checkpoint.latest(Path("killed"))
            if folder is not None:
                assert checkpoint.load(folder)[0] % 5 == 0
    train(config, "killed")
    assert_same("killed", "undisturbed")


def test_a_kill_before_the_result_is_made_up_for(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build(steps=20, evaluation__every=4)
    train(config, "undisturbed")

    def killed(made: Trainer) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_measure", killed)
        with pytest.raises(Killed):
            train(config, "killed")
    assert checkpoint.load(Path("killed/checkpoints/step-00000020"))[0] == 20
    train(config, "killed")
    assert_same("killed", "undisturbed")


def test_ctrl_c_while_measuring_says_how_to_go_on(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build(steps=5)

    def pressed(made: Trainer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_measure", pressed)
        with pytest.raises(Interrupted, match="stopped after step 5; resume with: decone train --resume run"):
            train(config, "run")
    assert train(config, "run")["measured"]["last"]["step"] == 5


def test_a_folder_with_blanks_is_quoted(build: Build) -> None:
    with pytest.raises(Interrupted, match="decone train --resume 'my run'"):
        train(build(), "my run", stop=lambda: True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), pytest.param(signal.SIGHUP, 129, marks=slow)]
)
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(number: int, code: int, build: Build) -> None:
    config = build(steps=200, evaluation__every=50, machine__checkpoint_every=10)
    train(config, "undisturbed")
    Path("config.toml").write_text(config.dump())
    command = [sys.executable, "-m", "decone", "train", "config.toml", "--out", "run"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: reached(Path("run")) >= 10 or process.poll() is not None)
    process.send_signal(number)
    told, error = process.communicate(timeout=PATIENCE)
    assert (process.returncode, told) == (code, ""), error
    stopped = re.fullmatch(r"stopped after step (\d+); resume with: decone train --resume run\n", error)
    assert stopped, error
    assert reached(Path("run")) == int(stopped[1]) < 200
    assert not Path("run/result.json").exists()
    main_quietly(["train", "--resume", "run", "--quiet"])
    assert_same("run", "undisturbed")


@pytest.mark.slow
def test_nohup_is_respected(build: Build) -> None:
    """What `nohup` starts ignores SIGHUP, and goes on when its terminal is closed."""
    Path("config.toml").write_text(build(steps=200, machine__checkpoint_every=10).dump())
    command = [sys.executable, "-m", "decone", "train", "config.toml", "--out", "run", "--quiet"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(lambda: reached(Path("run")) >= 10 or process.poll() is not None)
    process.send_signal(signal.SIGHUP)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
    assert Path("run/result.json").is_file()


def test_a_second_ctrl_c_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with loop.catch_interrupt() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(interrupted.is_set)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(PATIENCE)
    assert signal.getsignal(signal.SIGINT) is before
