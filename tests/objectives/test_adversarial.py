"""Adversarial output noise against the inner maximisation itself and against loops, every radius."""

import math
from functools import partial
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.objectives.naive import length, log_sum_exp, naive
from tests.objectives.naive_history import found, sample
from torch import Tensor
from torch.nn import functional as F

from decone.objectives import MLE
from decone.objectives.adversarial import Adversarial

ENGINES = ("reference", "chunked")
RADII = ("relative", "aligned", "fixed")


def lowered(
    h: Tensor, weight: Tensor, bias: Tensor | None, y: int, alpha: float, radius: str
) -> tuple[Tensor, list[bool], float]:
    logits = [(h * row).sum() + (0 if bias is None else bias[i]) for i, row in enumerate(weight)]
    eps = alpha if radius == "fixed" else alpha * float(length(weight[y].detach()))
    if radius == "aligned" and (h * weight[y]).sum().item() <= 0:
        eps = 0.0
    logits[y] = logits[y] - eps * length(h)
    return log_sum_exp(logits) - logits[y], [True] * len(weight), math.inf


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("alpha", [0.005, 0.7])
def test_loops(alpha: float, radius: Any, each: bool, engine: str) -> None:
    hidden, weight, bias, target = sample()
    up = torch.randn(target.shape).double() if each else None
    expected = naive(hidden, weight, bias, target, up=up, one=partial(lowered, alpha=alpha, radius=radius))
    loss, grads = found(Adversarial(alpha, radius), hidden, weight, bias, target, up=up, engine=engine)
    torch.testing.assert_close(
        loss.flatten(), expected.loss if each else expected.loss.sum().view(1), rtol=0, atol=1e-10
    )
    for mine, other in zip(grads, (expected.hidden, expected.weight, expected.bias), strict=True):
        assert other is not None
        torch.testing.assert_close(mine, other.view(mine.shape), rtol=0, atol=1e-10)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 3), st.sampled_from(RADII))
def test_engines_agree_on_any_shape(B: int, T: int, V: int, H: int, radius: Any) -> None:
    hidden, weight, _, target = sample(B, T, V, H, seed=B + 7 * T)
    one, two = (found(Adversarial(0.3, radius), hidden, weight, None, target, engine=engine) for engine in ENGINES)
    for mine, other in zip((one[0], *one[1]), (two[0], *two[1]), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


def test_no_noise_of_that_length_is_worse() -> None:
    h, weight, y = torch.randn(4).double(), torch.randn(6, 4).double(), torch.tensor([2])
    eps = 0.3
    worst = Adversarial(eps, "fixed")(h[None], weight, y).tokens
    for _ in range(200):
        noise = F.normalize(torch.randn(4).double(), dim=0) * eps
        noisy = weight.clone()
        noisy[2] += noise
        assert F.cross_entropy(F.linear(h[None], noisy), y) <= worst + 1e-12
    noisy = weight.clone()
    noisy[2] -= eps * h / h.norm()
    torch.testing.assert_close(F.cross_entropy(F.linear(h[None], noisy), y), worst)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_alpha_0_is_plain_cross_entropy_to_the_bit(dtype: torch.dtype, engine: str) -> None:
    hidden, weight, bias, target = sample(dtype=dtype)
    ours = found(Adversarial(alpha=0.0), hidden, weight, bias, target, engine=engine)
    plain = found(MLE(), hidden, weight, bias, target, engine=engine)
    assert torch.equal(ours[0], plain[0])
    assert all(map(torch.equal, ours[1], plain[1]))


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_by_finite_differences_and_tied_tables(engine: str) -> None:
    """With a fixed radius nothing is detached."""
    hidden, weight, _, target = sample(1, 4, 5, 3)

    def loss(table: Tensor) -> Tensor:
        states = torch.tanh(hidden + table[target.clamp(min=0)])
        total: Tensor = Adversarial(0.4, "fixed")(states, table, target, engine=engine).tokens
        return total

    assert torch.autograd.gradcheck(loss, weight.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"alpha": -1.0}, "0 is plain"),
        ({"alpha": math.nan}, "got nan"),
        ({"radius": "wide"}, "choose relative, aligned or fixed"),
    ],
)
def test_wrong_settings(wrong: dict[str, Any], mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=mend):
        Adversarial(**wrong)
