"""Label smoothing against torch's own, and where logits are masked."""

import math
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.objectives.naive_history import found, sample
from torch import Tensor
from torch.nn import functional as F

from decone.objectives import MLE
from decone.objectives.label_smoothing import LabelSmoothing

ENGINES = ("reference", "chunked")


@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 9), st.floats(0, 0.99), st.booleans(), st.sampled_from(ENGINES)
)
def test_any_shape_equals_torch(B: int, T: int, V: int, eps: float, each: bool, engine: str) -> None:
    hidden, weight, bias, target = sample(B, T, V, 3, seed=B + 7 * T)
    up = torch.randn(target.shape).double() if each else None
    loss, grads = found(LabelSmoothing(eps), hidden, weight, bias, target, up=up, engine=engine)
    h, w, b = (t.clone().requires_grad_() for t in (hidden, weight, bias))
    plain = F.cross_entropy(
        F.linear(h, w, b).flatten(0, 1), target.flatten(), reduction="none", label_smoothing=eps
    ).view(target.shape)
    torch.testing.assert_close(loss, plain.detach() if each else plain.detach().sum(), rtol=0, atol=1e-10)
    theirs = torch.autograd.grad((plain * (1.0 if up is None else up)).sum(), (h, w, b))
    for mine, other in zip(grads, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_masked_columns_take_no_share(engine: str) -> None:
    hidden, weight, bias, target = sample()
    target.clamp_(max=4)
    bias[5] = -math.inf
    loss, grads = found(LabelSmoothing(0.2), hidden, weight, bias, target, engine=engine)
    short = found(LabelSmoothing(0.2), hidden, weight[:5], bias[:5], target, engine=engine)
    torch.testing.assert_close(loss, short[0])
    torch.testing.assert_close(grads[1][:5], short[1][1])
    assert not grads[1][5].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_eps_0_is_plain_cross_entropy_to_the_bit(dtype: torch.dtype, engine: str) -> None:
    hidden, weight, bias, target = sample(dtype=dtype)
    ours = found(LabelSmoothing(eps=0.0), hidden, weight, bias, target, engine=engine)
    plain = found(MLE(), hidden, weight, bias, target, engine=engine)
    assert torch.equal(ours[0], plain[0])
    assert all(map(torch.equal, ours[1], plain[1]))


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_by_finite_differences_and_tied_tables(engine: str) -> None:
    hidden, weight, _, target = sample(1, 4, 5, 3)

    def loss(table: Tensor) -> Tensor:
        states = torch.tanh(hidden + table[target.clamp(min=0)])
        total: Tensor = LabelSmoothing(0.3)(states, table, target, engine=engine).tokens
        return total

    assert torch.autograd.gradcheck(loss, weight.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize(("wrong", "mend"), [(-0.1, "0 is plain"), (1.0, "got 1.0"), (math.nan, "got nan")])
def test_wrong_settings(wrong: Any, mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=mend):
        LabelSmoothing(wrong)
