"""Contrastive tying against the sum over all positions of the batch, duplicates included."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.objectives.naive import log_sum_exp
from tests.objectives.naive_history import found, sample
from torch import Tensor
from torch.nn import functional as F

from decone.engines import chunked
from decone.objectives import MLE
from decone.objectives.contrastive_tying import ContrastiveTying

ENGINES = ("reference", "chunked")


def in_batch(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, up: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    h, w = hidden.detach().double().flatten(0, -2).requires_grad_(), weight.detach().double().requires_grad_()
    b = torch.zeros(len(w)).double() if bias is None else bias.detach().double()
    b.requires_grad_()
    counted = [(n, y) for n, y in enumerate(target.flatten().tolist()) if y != -100]
    losses, total = torch.zeros(target.numel()).double(), 0 * (h.sum() + w.sum() + b.sum())
    for n, y in counted:
        scores = [(h[n] * w[c]).sum() + b[c] for _, c in counted]
        loss = log_sum_exp(scores) - ((h[n] * w[y]).sum() + b[y])
        losses[n] = loss.detach()
        total = total + (1.0 if up is None else float(up.flatten()[n])) * loss
    return losses, list(torch.autograd.grad(total, [h, w] if bias is None else [h, w, b]))


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 9), st.booleans(), st.booleans(), st.sampled_from(ENGINES))
def test_the_sum_over_the_batch(B: int, T: int, V: int, each: bool, biased: bool, engine: str) -> None:
    hidden, weight, bias, target = sample(B, T, V, 3, seed=B + 7 * T)
    given_bias, up = bias if biased else None, torch.randn(target.shape).double() if each else None
    expected, theirs = in_batch(hidden, weight, given_bias, target, up)
    loss, grads = found(ContrastiveTying(), hidden, weight, given_bias, target, up=up, engine=engine)
    torch.testing.assert_close(loss.flatten(), expected if each else expected.sum().view(1), rtol=0, atol=1e-10)
    for mine, other in zip(grads, theirs, strict=True):
        torch.testing.assert_close(mine, other.view(mine.shape), rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)], ids=str)
def test_lower_precision(dtype: torch.dtype, slack: float, engine: str) -> None:
    hidden, weight, _, target = sample(dtype=dtype)
    expected, theirs = in_batch(hidden, weight, None, target, None)
    loss, grads = found(ContrastiveTying(), hidden, weight, None, target, engine=engine)
    torch.testing.assert_close(loss.double(), expected.sum(), rtol=slack, atol=slack)
    for mine, other in zip(grads, theirs, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), other.view(mine.shape), rtol=slack, atol=slack)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_plain_nll_knows_the_whole_vocabulary_and_absent_rows_get_nothing(engine: str) -> None:
    hidden, weight, bias, target = sample()
    target.clamp_(max=3)
    loss = ContrastiveTying()(hidden, weight.requires_grad_(), target, bias=bias, engine=engine)
    plain = F.cross_entropy(F.linear(hidden, weight, bias).flatten(0, 1), target.flatten(), reduction="sum")
    assert loss.nll is not None
    assert not loss.nll.requires_grad
    assert int(loss.count) == int((target >= 0).sum())
    torch.testing.assert_close(loss.nll, plain.detach())
    loss.mean().backward()
    assert weight.grad is not None
    assert not weight.grad[4:].any()
    assert weight.grad[target[target >= 0]].any()
    assert ContrastiveTying()(hidden, weight, target, engine=engine, nll=False).nll is None


def test_a_batch_of_every_token_once_is_plain_cross_entropy() -> None:
    hidden, weight, bias, _ = sample(1, 6)
    target = torch.tensor([[3, 1, 0, 5, 4, 2]])
    ours, plain = (found(rule, hidden, weight, bias, target) for rule in (ContrastiveTying(), MLE()))
    for mine, other in zip((ours[0], *ours[1]), (plain[0], *plain[1]), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_logits_are_no_wider_than_the_distinct_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []

    def linear(*given: Any) -> Tensor:
        made = F.linear(*given)
        widths.append(made.size(1))
        return made

    monkeypatch.setattr(chunked, "F", SimpleNamespace(linear=linear))
    target = torch.tensor([4, 4, 4, 1, 99])
    ContrastiveTying()(torch.randn(5, 3), torch.randn(1000, 3), target, engine="chunked", nll=False)
    assert set(widths) == {3}


@pytest.mark.parametrize("engine", ENGINES)
def test_large_scores_stay_finite_where_the_published_form_overflows(engine: str) -> None:
    hidden, weight = torch.tensor([[100.0], [-100.0]]), torch.tensor([[100.0], [-100.0]])
    assert ContrastiveTying()(hidden, weight, torch.tensor([0, 1]), engine=engine).mean().item() == 0
    wrong = ContrastiveTying()(hidden, weight, torch.tensor([1, 0]), engine=engine).mean().item()
    assert wrong == 20_000
    assert math.isfinite(wrong)


@pytest.mark.parametrize("engine", ENGINES)
def test_tied_tables_by_finite_differences_and_nothing_to_count(engine: str) -> None:
    hidden, weight, _, target = sample(1, 5, 5, 3)

    def loss(table: Tensor) -> Tensor:
        states = torch.tanh(hidden + table[target.clamp(min=0)])
        total: Tensor = ContrastiveTying()(states, table, target, engine=engine).tokens
        return total

    assert torch.autograd.gradcheck(loss, weight.requires_grad_(), fast_mode=True)
    h = hidden.clone().requires_grad_()
    ContrastiveTying()(h, weight, torch.full((1, 5), -100), engine=engine).mean().backward()
    assert h.grad is not None
    assert not h.grad.any()
