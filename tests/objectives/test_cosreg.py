"""Cosine regularisation against a double loop over all pairs of rows."""

import math
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decone.objectives import MLE
from decone.objectives.cosreg import CosReg

ENGINES = ("reference", "chunked")


def pairs(weight: Tensor, gamma: float) -> Tensor:
    """gamma / V^2 times the sum of cosines over ordered pairs of different rows; a zero row has cosine 0."""
    total = weight.new_zeros(())
    for i, one in enumerate(weight):
        for j, other in enumerate(weight):
            if i != j and one.any() and other.any():
                total = total + (one @ other) / (one @ one).sqrt() / (other @ other).sqrt()
    return gamma * total / len(weight) ** 2


@given(V=st.integers(1, 9), H=st.integers(1, 5), zeros=st.sets(st.integers(0, 8)), seed=st.integers(0, 2**20))
def test_the_penalty_is_the_sum_over_pairs(V: int, H: int, zeros: set[int], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(V, H, generator=draw).double() * torch.rand(V, 1, generator=draw).double().exp()
    weight[[z for z in zeros if z < V]] = 0
    ours, naive = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    mine, other = CosReg(gamma=0.7).matrix(ours), pairs(naive, 0.7)
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
    mine.backward()
    if other.requires_grad:
        other.backward()
    expected = torch.zeros_like(weight) if naive.grad is None else naive.grad
    torch.testing.assert_close(ours.grad, expected, rtol=0, atol=1e-12)
    assert ours.grad is not None
    assert not ours.grad[weight.eq(0).all(1)].any()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e30])
def test_the_length_of_rows_does_not_matter(scale: float) -> None:
    weight = torch.randn(6, 4)
    torch.testing.assert_close(CosReg().matrix(scale * weight), CosReg().matrix(weight), rtol=1e-5, atol=1e-6)


def test_known_values() -> None:
    assert CosReg().matrix(torch.eye(4)).item() == 0
    assert CosReg().matrix(torch.ones(4, 3)).item() == pytest.approx(12 / 16)
    assert CosReg(2.0).matrix(torch.tensor([[1.0], [-1.0]])).item() == pytest.approx(-1.0)
    assert CosReg().matrix(torch.zeros(3, 2)).item() == 0


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(CosReg().matrix, torch.randn(5, 3).double().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_low_precision_tables_are_summed_in_float32(dtype: torch.dtype) -> None:
    weight = torch.randn(3000, 8).to(dtype) + 1
    leaf = weight.clone().requires_grad_()
    loss = CosReg().matrix(leaf)
    loss.backward()
    torch.testing.assert_close(loss, CosReg().matrix(weight.double()).float(), rtol=1e-5, atol=1e-6)
    assert leaf.grad is not None
    assert leaf.grad.dtype == dtype
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_the_penalty_stands_beside_plain_cross_entropy(engine: str, tied: bool, reduction: str) -> None:
    table, free = torch.randn(6, 3).double(), torch.randn(2, 3, 3).double()
    target = torch.tensor([[0, 5, -100], [2, 2, 1]])
    grads = []
    for objective in (CosReg(0.5), MLE(), CosReg(0.0)):
        w = table.clone().requires_grad_()
        h = torch.tanh(w[target.clamp(min=0)]) if tied else free
        loss = objective(h, w, target, engine=engine, reduction=reduction)
        total = loss.mean() + (pairs(w, 0.5) if isinstance(objective, MLE) else 0)
        total.backward()
        grads.append(w.grad)
        plain = loss.tokens.sum().item()
        if isinstance(objective, CosReg) and objective.gamma == 0:
            w = table.clone().requires_grad_()
            h = torch.tanh(w[target.clamp(min=0)]) if tied else free
            MLE()(h, w, target, engine=engine, reduction=reduction).mean().backward()
            assert torch.equal(grads[-1], w.grad)
        assert plain == pytest.approx(MLE()(h, w, target, engine="reference").tokens.item(), abs=1e-12)
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("gamma", [-1.0, math.nan, math.inf])
def test_wrong_strengths_are_refused(gamma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    wrong: dict[str, Any] = {"gamma": gamma}
    with pytest.raises(ValueError, match="0 is plain cross-entropy"):
        CosReg(**wrong)
