"""Variants of thresholding, random inputs with their naive answers, and how answers are compared."""

import math
from functools import cache
from typing import Any

import torch
from tests.objectives.naive import Naive, naive
from torch import Tensor

ENGINES = ("reference", "chunked", "one-row")
VARIANTS: list[dict[str, Any]] = [
    {"margin": 0.0},
    {"margin": 0.6},
    {"margin": 3.5},
    {"margin": math.inf},
    {"margin": 1.0, "temperature": 0.46},
    {"alpha": 0.25},
    {"alpha": 0.3, "norms": "target"},
    {"alpha": 0.3, "norms": "hidden"},
    {"alpha": 0.25, "temperature": 1.7},
    {"margin": 1.0, "softminus": 1.0},
    {"margin": 1.0, "softminus": 1.0, "detach": True},
    {"margin": 2.0, "softminus": 5.0},
    {"margin": 5.0, "softminus": 5.0, "detach": True},
    {"margin": 0.0, "softminus": 1.0},
    {"margin": 0.6, "softminus": 1.0, "temperature": 0.5, "detach": True},
    {"alpha": 0.4, "softminus": 1.0},
    {"alpha": 0.8, "softminus": 1.0, "norms": "target", "temperature": 1.3},
    {"alpha": 0.8, "softminus": 5.0, "norms": "hidden", "detach": True},
    {"margin": 0.6, "below": "detached"},
    {"alpha": 0.25, "below": "detached", "temperature": 1.5},
]
TRUE_GRADIENTS = [v for v in VARIANTS if not v.get("detach") and v.get("below") != "detached"]

Case = tuple[Tensor, Tensor, Tensor, Tensor, Naive]


def title(variant: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in variant.items())


def sample(
    variant: dict[str, Any], dtype: torch.dtype, *, shape: tuple[int, ...] = (2, 3), distance: float = 0.02
) -> Case:
    """Random inputs no logit of which is near its threshold, where formats may rightly disagree."""
    return _sample(tuple(variant.items()), dtype, shape, distance)


@cache  # the loops are slow, and every engine is held against the same case
def _sample(items: tuple[tuple[str, Any], ...], dtype: torch.dtype, shape: tuple[int, ...], distance: float) -> Case:
    variant = dict(items)
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        hidden = torch.randn(*shape, 4, generator=draw, dtype=torch.float64).to(dtype)
        weight = torch.randn(9, 4, generator=draw, dtype=torch.float64).to(dtype)
        bias = torch.randn(9, generator=draw, dtype=torch.float64).to(dtype)
        target = torch.randint(9, shape, generator=draw)
        target.view(-1)[1:2] = -100
        expected = naive(hidden, weight, bias, target, **variant)
        if expected.distance > distance:
            return hidden, weight, bias, target, expected
    raise AssertionError("no sample far enough from the threshold")


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().clone().requires_grad_() for t in tensors]


def far(ours: Tensor | None, expected: Tensor | None) -> float:
    """Largest difference, relative to the largest expected number."""
    assert ours is not None
    assert expected is not None
    return ((ours.double() - expected.reshape(ours.shape)).abs().max() / expected.abs().max().clamp(min=1e-9)).item()


def zero_rows(gradient: Tensor | None) -> list[bool]:
    assert gradient is not None
    return (gradient == 0).all(1).tolist()
