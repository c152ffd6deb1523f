"""A tiny text and configurations of runs that take a fraction of a second."""

import multiprocessing
import random
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from decone.files.settings import merge_settings
from decone.training.config import RunConfig

Build = Callable[..., RunConfig]
WORDS = ("the", "a", "cat", "dog", "sat", "on", "mat", "and", "then", "ran", "over", "hill", "by", "sea", "home")

TINY: dict[str, Any] = {
    "steps": 40,
    "corpus": {"name": "tiny.txt"},
    "language": {"low_resource": 0.25},
    "model": {"width": 16, "layers": 1, "heads": 2, "context": 16},
    "batch": {"size": 6},
    "optimizer": {"lr": 0.01, "lr_min": 0.001, "warmup": 5},
    "evaluation": {"every": 10, "batches": 2},
    "machine": {"threads": 1, "checkpoint_every": 5, "device": "cpu"},
}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text of 3,000 characters, named by a relative path as on a command line."""
    draw = random.Random(3)
    words = "".join(draw.choice(WORDS) + draw.choice((" ", " ", " ", ".\n")) for _ in range(1000))
    path = tmp_path / "tiny.txt"
    path.write_text(words[:3000])
    return path


@pytest.fixture
def build(text: Path) -> Build:
    """Makes a configuration on the tiny text from dotted keys."""

    def made(**overrides: Any) -> RunConfig:
        return RunConfig.build(
            merge_settings(TINY, {key.replace("__", "."): value for key, value in overrides.items()})
        )

    return made


@pytest.fixture(scope="session")
def nursery() -> ForkServerContext:
    """Processes that are born with everything imported, so that killing many of them takes no minutes."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("no forkserver here")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["decone.cli.main", "torch._dynamo"])  # the first optimiser imports the latter
    return context
