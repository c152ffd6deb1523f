"""The command line as a whole: help, exit codes, what stands on stdout and what on stderr."""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decone import __version__, objectives
from decone.cli.console import Watcher, bars, print_json, say
from decone.files.failure import WriteError
from decone.studies.pool import RunJob, StepCounter
from decone.training.config import RunConfig
from decone.training.interrupt import Terminated

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)

COMMANDS = ["compare", "train", "eval", "counts", "scan", "reproduce", "report", "methods", "doctor"]


def test_help_names_every_command(decone: Decone) -> None:
    code, out, err = decone("--help")
    assert (code, err) == (0, "")
    assert all(f"  {command}  " in out for command in COMMANDS)


def test_version(decone: Decone) -> None:
    assert decone("--version") == (0, f"decone {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, decone: Decone) -> None:
    code, out, err = decone(command, "--help")
    assert (code, err) == (0, "")
    assert "--json" in out


def test_no_command_shows_the_help(decone: Decone) -> None:
    code, out, err = decone()
    assert code == 2
    assert "Usage: " in out + err
    assert "compare" in out + err


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ValueError("first\n  second"), 2, "decone: first second\n"),
        (OSError(28, "No space left on device"), 1, "decone: No space left on device\n"),
        (PermissionError(13, "Permission denied", "a.txt"), 2, "decone: a.txt: Permission denied\n"),
        (
            WriteError("a.txt", "Input/output error"),
            1,
            "decone: cannot write a.txt: Input/output error; free space or choose another place\n",
        ),
        (Terminated(signal.SIGTERM), 143, "stopped; the same command resumes\n"),
        (Terminated(signal.SIGHUP), 129, "stopped; the same command resumes\n"),
        (ValueError("[bold]margin[/bold] \\[x]"), 2, "decone: [bold]margin[/bold] \\[x]\n"),
        (ValueError("word " * 60 + "end"), 2, "decone: " + "word " * 60 + "end\n"),
        (KeyboardInterrupt(), 130, "stopped; the same command resumes\n"),
    ],
)
def test_outcomes_are_exit_codes(
    error: BaseException, code: int, sentence: str, decone: Decone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("decone.training.machine.provenance", fail)
    assert decone("doctor") == (code, "", sentence)


def test_a_mistake_of_ours_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from decone.cli.main import main

    def fail() -> None:
        raise TypeError("ours")

    monkeypatch.setattr("decone.training.machine.provenance", fail)
    with pytest.raises(TypeError, match="ours"):
        main(["doctor"])


def test_methods(decone: Decone) -> None:
    code, out, err = decone("methods")
    assert (code, err) == (0, "")
    assert all(name in out for name in objectives.names())
    code, out, err = decone("methods", "--json")
    cards = {card["name"]: card for card in json.loads(out)}
    assert sorted(cards) == objectives.names()
    assert cards["threshold"]["settings"]["margin"] == 1.0
    code, out, err = decone("methods", "threshold")
    assert (code, err) == (0, "")
    assert "margin: distance below" in " ".join(out.split())


def test_doctor(decone: Decone) -> None:
    code, out, err = decone("doctor")
    assert code == 0
    assert "engine on cpu: chunked" in out + err
    assert "torch" in out + err
    code, out, err = decone("doctor", "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert facts["engine"]["name"] == "chunked"
    assert facts["versions"]["torch"]


def test_as_a_module_with_a_reader_that_leaves() -> None:
    """`decone ... | head -1`: no traceback, and the code that a shell gives for it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "decone", "methods", "threshold"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    assert (process.wait(), told) == (141, "")


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [math.nan, math.inf, (1.5, None)], 3: {"ß": -math.inf}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, [1.5, None]], "3": {"ß": None}}


def test_words_are_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("[red]plain[/red] " + "x" * 300)
    assert capsys.readouterr() == ("", "[red]plain[/red] " + "x" * 300 + "\n")


def test_no_bars_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with bars(False) as progress:
        progress.update(progress.add_task("training", total=3), completed=2)
    assert capsys.readouterr() == ("", "")


def test_bars_of_many_runs() -> None:
    jobs = [
        RunJob(f"mle seed {seed}", RunConfig.build({"steps": 10, "seed": seed}), Path(f"{seed}")) for seed in (1, 2)
    ]
    with bars(True) as progress:
        watcher = StepCounter(Watcher(progress).show, 20)
        watcher.watch(jobs[0], 0)
        assert [task.description for task in progress.tasks] == ["all runs"], "no bar before the first line"
        watcher.watch(jobs[0], 4)
        watcher.watch(jobs[1], 3)
        assert [(task.description, task.completed) for task in progress.tasks] == [
            ("all runs", 7),
            ("mle seed 1", 4),
            ("mle seed 2", 3),
        ]
        watcher.done(jobs[0], 10)
        watcher.done(jobs[0], 10)
        assert [(task.description, task.completed) for task in progress.tasks] == [("all runs", 13), ("mle seed 2", 3)]
