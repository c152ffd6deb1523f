"""`decone train`: from the first step to the last, in one go or in several, for people and for programs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decone.training.config import RunConfig
from decone.training.run import Run

pytestmark = pytest.mark.usefixtures("tiny")

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)


def test_a_run_from_a_file(decone: Decone) -> None:
    code, out, err = decone("train", "tiny.toml", "--out", "runs/first", "--set", "method=threshold:margin=0.05")
    assert (code, out) == (0, "")
    result = Run.open(Path("runs/first")).result()
    assert result is not None
    lines = err.splitlines()
    for line, (name, scores) in zip(lines, result.measured["best"].languages.items(), strict=False):
        assert line.startswith(f"{name}: PPL {scores.perplexity:.2f}, PPL best {scores.best_perplexity:.2f}")
        assert line.endswith(f"accuracy {scores.accuracy:.4f}")
    assert lines[2:] == [
        "the run is in runs/first; its model is model.safetensors, its numbers are in result.json",
    ]
    config = RunConfig.read(Path("runs/first/config.toml"))
    assert config == RunConfig.read(Path("tiny.toml"), {"method": "threshold:margin=0.05"})


def test_a_run_without_a_file(decone: Decone) -> None:
    sets = ("corpus.name=tiny.txt", "steps=2", "model.width=16", "model.context=16", "machine.threads=1")
    options = [word for text in sets for word in ("--set", text)]
    assert decone("train", "--out", "run", *options, "--seed", "7", "--device", "cpu").code == 0
    config = RunConfig.read(Path("run/config.toml"))
    assert (config.seed, config.machine.device, config.optimizer.lr) == (7, "cpu", 1e-3)


def test_json_alone_on_stdout(decone: Decone) -> None:
    code, out, err = decone("train", "tiny.toml", "--out", "run", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(Path("run/result.json").read_text())


def test_a_finished_run_is_shown_again(decone: Decone, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decone("train", "tiny.toml", "--out", "run")
    monkeypatch.setattr("decone.training.session.Trainer", None)  # nothing is to be trained any more
    assert decone("train", "tiny.toml", "--out", "run") == first
    assert decone("train", "--resume", "run") == first
    assert decone("train", "tiny.toml", "--resume", "run", "--set", "machine.threads=2", "--out", "run") == first


def test_the_machine_may_change_between_the_parts_of_a_run(decone: Decone, monkeypatch: pytest.MonkeyPatch) -> None:
    Run.create(Path("run"), RunConfig.read(Path("tiny.toml")))
    seen = []

    def noting(config: RunConfig, run: Run) -> None:
        seen.append((config.machine.checkpoint_every, config.steps))
        raise KeyboardInterrupt

    monkeypatch.setattr("decone.training.session.Trainer", noting)
    assert decone("train", "--resume", "run", "--set", "machine.checkpoint_every=3").code == 130
    assert decone("train", "tiny.toml", "--out", "run", "--set", "machine.checkpoint_every=4").code == 130
    assert seen == [(3, 20), (4, 20)]


def test_ctrl_c_before_the_first_step(decone: Decone, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("decone.training.inputs.read", pressed)
    assert decone("train", "tiny.toml", "--out", "run") == (130, "", "stopped; the same command resumes\n")
    assert not Path("run").exists()


def test_a_loss_that_is_no_number_is_one_sentence(decone: Decone) -> None:
    sets = ("--set", "optimizer.lr=1e30", "--set", "optimizer.warmup=0")
    code, out, err = decone("train", "tiny.toml", "--out", "run", *sets)
    assert (code, out) == (2, "")
    assert err == "decone: the loss is nan at step 10; lower optimizer.lr or check the method\n"


def test_a_full_disk_is_one_sentence(decone: Decone, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("decone.files.safetensors.save_file", full)
    code, out, err = decone("train", "tiny.toml", "--out", "run")
    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"decone: cannot write run/\S+: No space left on device; free space and run the same command again; "
        r"there was no checkpoint yet\n",
        err,
    )
    monkeypatch.undo()
    assert decone("train", "--resume", str(Path(Path.cwd(), "run"))).code in (0, 2)
