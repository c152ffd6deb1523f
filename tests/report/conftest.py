"""Small made-up results and tables, enough to draw everything."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from decone.data.languages import Languages
from decone.studies.exhibits import Exhibit


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
def exhibit() -> Callable[..., Exhibit]:
    def make(label: str, tokens: Sequence[str], simulated: bool = True, sample: str = "a\nb\x07") -> Exhibit:
        languages = Languages(len(tokens), 0.02 if simulated else 0.0)
        counts = list(range(len(tokens), 0, -1))
        samples = dict.fromkeys(languages.offsets(), sample)
        return Exhibit(
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
