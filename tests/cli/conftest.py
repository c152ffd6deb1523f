"""A tiny text, the command line in this process, and worker processes that start at once."""

import multiprocessing
import random
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import NamedTuple

import pytest

from decone.cli.main import main
from decone.studies import pool

WORDS = ("the", "a", "cat", "dog", "sat", "on", "mat", "and", "then", "ran", "over", "hill", "by", "sea", "home")

TINY = """
steps = 20
[corpus]
name = "tiny.txt"
[language]
low_resource = 0.25
[model]
width = 16
layers = 1
heads = 2
context = 16
[batch]
size = 6
[optimizer]
lr = 0.01
warmup = 5
[evaluation]
every = 10
batches = 2
[machine]
threads = 1
checkpoint_every = 5
device = "cpu"
"""


class Told(NamedTuple):
    """What a command did: its exit code, its stdout, its stderr."""

    code: int
    out: str
    err: str


Decone = Callable[..., Told]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text of 3,000 characters, named by a relative path as on a command line."""
    draw = random.Random(3)
    words = "".join(draw.choice(WORDS) + draw.choice((" ", " ", " ", ".\n")) for _ in range(1000))
    path = tmp_path / "tiny.txt"
    path.write_text(words[:3000])
    return path


@pytest.fixture
def tiny(text: Path) -> Path:
    """A configuration on the tiny text, tiny.toml."""
    path = text.with_name("tiny.toml")
    path.write_text(TINY)
    return path


@pytest.fixture
def decone(capfd: pytest.CaptureFixture[str]) -> Decone:
    """Runs a command line in this process."""

    def run(*arguments: str) -> Told:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        told = capfd.readouterr()
        assert stop.value.code is None or isinstance(stop.value.code, int)
        return Told(stop.value.code or 0, told.out, told.err)

    return run


@pytest.fixture(scope="session")
def nursery() -> ForkServerContext:
    """Processes that are born with everything imported, so that killing many of them takes no minutes."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("no forkserver here")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["decone.cli.main", "torch._dynamo"])  # the first optimiser imports the latter
    return context


@pytest.fixture
def workers(nursery: ForkServerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the pool's workers be born in the nursery instead of importing everything for seconds."""
    monkeypatch.setattr(pool.multiprocessing, "get_context", lambda method: nursery)
    monkeypatch.setattr(pool, "POLL", 0.01)
