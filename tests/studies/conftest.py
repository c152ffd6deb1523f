"""A tiny text, configurations of short runs, made-up results and tables, and worker processes that start at once."""

import multiprocessing
import random
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from decone.data.tokens import Languages
from decone.files.settings import merge_settings
from decone.studies import pool
from decone.studies.exhibits import ModelExhibit
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


@pytest.fixture
def result() -> Callable[..., dict[str, Any]]:
    def make(
        seed: int, perplexity: float, accuracy: float, alignment: float | None, method: str = "mle"
    ) -> dict[str, Any]:
        names = ["all"] if alignment is None else ["HR", "LR"]
        scores = {
            "perplexity": perplexity * 1.5,
            "best_perplexity": perplexity,
            "best_temperature": 0.5,
            "accuracy": accuracy,
            "recall": {"5": 0.7},
            "mrr": 0.6,
            "isotropy": {"raw": 0.5},
            "curve": [[0.01, float("inf")], [0.5, perplexity], [1.0, perplexity * 1.5], [2.0, perplexity * 9]],
        }
        measured = {"step": 20, "languages": dict.fromkeys(names, scores)}
        line = {"kind": "validation", "step": 20, "loss": 2.5}
        if alignment is not None:
            measured["alignment"] = line["alignment"] = alignment
        return {
            "config": {"method": method, "seed": seed, "steps": 20, "evaluation": {"every": 10}},
            "corpus": {"name": "tiny", "sha256": "ab" * 32, "source": "https://example.org/tiny", "tokens": 900},
            "measured": {"best": measured, "last": measured},
            "history": [{"kind": "validation", "step": 10, "loss": 3.5}, line],
            "seconds": 60.0,
            "versions": {"torch": "2.13"},
            "machine": {"processor": "abacus", "cores": 2},
            "date": "2026-01-02T03:04:05+00:00",
        }

    return make


@pytest.fixture
def three(result: Callable[..., dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    """mle, a method that is clearly better in perplexity and not clear in accuracy, and one not run."""
    better = [(6.9, 0.50, 0.9), (7.1, 0.36, 0.2), (7.0, 0.41, 0.8)]
    return {
        "mle": {seed: result(seed, 9.0 + seed / 10, 0.40, 0.1) for seed in (1, 2, 3)},
        "threshold": {seed: result(seed, *numbers, "threshold") for seed, numbers in enumerate(better, 1)},
        "later": {},
    }


@pytest.fixture
def exhibit() -> Callable[..., ModelExhibit]:
    def make(label: str, tokens: Sequence[str], simulated: bool = True, sample: str = "a\nb\x07") -> ModelExhibit:
        languages = Languages(len(tokens), 0.02 if simulated else 0.0)
        counts = list(range(len(tokens), 0, -1))
        samples = dict.fromkeys(languages.offsets(), sample)
        return ModelExhibit(
            label,
            1,
            list(tokens),
            languages,
            torch.randn(languages.vocabulary, 4),
            counts,
            samples,
            dict.fromkeys(samples, 0.5),
        )

    return make


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
