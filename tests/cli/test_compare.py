"""`decone compare` and `decone report`: a table and a page, filled up, added to, stopped and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from decone.studies import pool
from decone.studies.exhibits import exhibit
from decone.training import checkpoint
from decone.training.config import RunConfig
from decone.training.loop import Trainer
from decone.training.run import Run

pytest.importorskip("plotly")
pytestmark = pytest.mark.usefixtures("tiny")

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)

PAIR = "mle,threshold:margin=0.05+row-adamw"
COMPARE = ("compare", "--config", "tiny.toml", "--seeds", "2", "--out", "out", "--jobs", "2")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample text of a few characters; writing it takes longer than the runs."""
    monkeypatch.setattr("decone.studies.exhibits.exhibit", partial(exhibit, length=5))


@pytest.mark.usefixtures("workers", "brief")
def test_from_nothing_to_a_page(decone: Decone, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = decone(*COMPARE, "--methods", PAIR)
    assert (code, err) == (0, "the page is out/report.html\n")
    assert "2 methods, 2 seeds, 20 steps on tiny.txt" in out
    assert "PPL best" in out
    assert all(method in out for method in PAIR.split(","))
    assert "…" not in out
    assert "2 methods, 2 seeds, 20 steps on tiny.txt" in Path("out/table.md").read_text()
    page = Path("out/report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "threshold:margin=0.05+row-adamw" in page
    found = {path.name: json.loads(path.read_text()) for path in Path("out/results").iterdir()}
    assert sorted(found) == [
        f"{name}-seed-{seed}.json" for name in ("mle", "threshold-margin=0.05+row-adamw") for seed in (1, 1337)
    ]
    mean = sum(
        found[f"mle-seed-{seed}.json"]["measured"]["best"]["languages"]["HR"]["perplexity"] for seed in (1, 1337)
    )
    assert f"{mean / 2:.2f}" in out

    # A second time nothing is run, and the same is shown.
    with monkeypatch.context() as patch:
        patch.setattr(pool, "ProcessPoolExecutor", None)
        assert decone(*COMPARE, "--methods", PAIR) == (code, out, err)
        told = decone(*COMPARE, "--methods", PAIR, "--json")
        assert told.code == 0
        assert json.loads(told.out) == {
            "mle": [found["mle-seed-1337.json"], found["mle-seed-1.json"]],
            "threshold:margin=0.05+row-adamw": [
                found["threshold-margin=0.05+row-adamw-seed-1337.json"],
                found["threshold-margin=0.05+row-adamw-seed-1.json"],
            ],
        }

    # Other settings are refused and change nothing.
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    for other in (("--steps", "21"), ("--set", "model.width=8"), ("--corpus", "default")):
        code, refused, sentence = decone(*COMPARE, "--methods", PAIR, *other)
        assert (code, refused) == (2, "")
        assert sentence == "decone: out holds a comparison with other settings; choose another --out\n"
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before

    # The page is drawn again from what is on disk.
    for name in ("table.md", "report.html"):
        Path("out", name).unlink()
    code, again, err = decone("report", "out")
    assert (code, again, err) == (0, out, "the page is out/report.html\n")
    assert Path("out/table.md").read_bytes() == before[Path("out/table.md")]
    assert Path("out/report.html").is_file()
    told = decone("report", "out", "--json")
    assert list(json.loads(told.out)) == PAIR.split(",")
    assert decone("report", "out", "--quiet").out == ""

    # A method is added; what was there stays.
    code, out, err = decone(*COMPARE, "--methods", f"{PAIR},threshold:margin=1")
    assert code == 0
    assert "3 methods, 2 seeds" in out
    assert len(list(Path("out/results").iterdir())) == 6
    for path, content in before.items():
        if path.parts[1] in ("runs", "results"):
            assert path.read_bytes() == content, path


@pytest.mark.usefixtures("workers", "brief")
def test_one_language_and_one_seed(decone: Decone) -> None:
    sets = ("--set", "language.low_resource=0", "--set", "evaluation.select=last")
    code, out, err = decone("compare", "--config", "tiny.toml", "--seeds", "5,", "--steps", "3", *sets, "--out", "out")
    assert code == 0, err
    assert "3 methods, 1 seeds, 3 steps on tiny.txt" in out
    assert sorted(path.name for path in Path("out/results").iterdir())[0] == "mle-seed-5.json"


def test_the_file_holds_where_the_command_line_is_silent(decone: Decone, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RunConfig] = []

    def noting(self: Any) -> None:
        seen.append(self.config)
        raise KeyboardInterrupt

    monkeypatch.setattr("decone.studies.compare.Comparison.lock", noting)
    for arguments in ((), ("--steps", "7", "--corpus", "shakespeare", "--device", "auto"), ("--set", "steps=9")):
        assert decone("compare", "--config", "tiny.toml", *arguments).code == 130
    assert decone("compare").code == 130
    found = [(config.steps, config.corpus.name, config.machine.device) for config in seen]
    assert found == [
        (20, "tiny.txt", "cpu"),
        (7, "shakespeare", "auto"),
        (9, "tiny.txt", "cpu"),
        (1000, "default", "auto"),
    ]


def test_a_missing_plotly_is_noticed_before_the_training(decone: Decone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    code, out, err = decone(*COMPARE)
    assert (code, out, err) == (2, "", 'decone: the page needs plotly: pip install "decone[report]"\n')
    assert not Path("out").exists()


def begun(folders: list[Path]) -> bool:
    return all(checkpoint.latest(folder) is not None for folder in folders)


@pytest.mark.usefixtures("workers", "brief")
@pytest.mark.parametrize("moment", ["starting", "training"])
def test_ctrl_c_and_the_same_command_again(moment: str, decone: Decone) -> None:
    """With the workers that users have, not those of the nursery: a signal may meet them before they can handle it."""
    options = ("--methods", PAIR, "--steps", "300", "--set", "evaluation.every=100", "--seeds", "1", "--out", "out")
    arguments = ("compare", "--config", "tiny.toml", "--jobs", "2", *options)
    runs = [Path("out/runs/mle/seed-1337"), Path("out/runs/threshold-margin=0.05+row-adamw/seed-1337")]
    process = subprocess.Popen(
        [sys.executable, "-m", "decone", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (begun(runs) if moment == "training" else (runs[1] / "config.toml").exists()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, for the whole group
    told = process.communicate(timeout=120)
    assert (process.returncode, told) == (130, ("", "stopped; the same command resumes\n"))
    assert not any((run / "result.json").exists() for run in runs)
    assert begun(runs) or moment == "starting"
    assert decone(*arguments).code == 0
    for run in runs:
        found = Run.open(run)
        undisturbed = Run.create(Path("alone") / run.parent.name, found.config)
        measured = Trainer(found.config, undisturbed).train()["measured"]
        result = found.result()
        assert result is not None
        assert result.to_dict()["measured"] == measured
        assert found.model_path.read_bytes() == undisturbed.model_path.read_bytes()
