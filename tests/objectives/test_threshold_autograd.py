"""Thresholding as autograd sees it: no gradients wanted, twice, half of them, again, or of gradients."""

from typing import Any

import pytest
import torch
from tests.objectives.cases import ENGINES, VARIANTS, far, leaves, sample, title
from tests.objectives.naive import naive
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import decone.engines.chunked as chunked_module
from decone.engines import chunk_target_relative
from decone.objectives import Threshold


@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[5], VARIANTS[9]], ids=title)
@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("quiet", [torch.no_grad, torch.inference_mode])
def test_without_gradients_none_are_made(
    quiet: Any, reduction: Any, variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, weight, bias, target, expected = sample(variant, torch.float64)
    monkeypatch.setattr(chunked_module, "zero_gradients", None)
    for chunks in (chunk_target_relative, chunked_module):
        monkeypatch.setattr(chunks, "_add_products", None)
    h, w, b = leaves(hidden, weight, bias)
    for inputs in ((hidden, weight, bias), (h, w, b)):
        with quiet():
            loss = Threshold(**variant)(
                inputs[0], inputs[1], target, bias=inputs[2], engine="chunked", reduction=reduction
            )
        assert not loss.tokens.requires_grad
        torch.testing.assert_close(loss.tokens.sum(), expected.loss.sum(), rtol=0, atol=1e-10)
    with quiet():
        assert Threshold(**variant)(h * 1, w * 1, target, bias=b * 1, engine="chunked").tokens.isfinite()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[9], VARIANTS[15]], ids=title)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_autograd_manners(reduction: Any, variant: dict[str, Any], engine: str) -> None:
    hidden, weight, bias, target, _ = sample(variant, torch.float64)
    objective = Threshold(**variant)

    def total(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return objective(h, w, target, bias=b, engine=engine, reduction=reduction).tokens.sum()

    whole = leaves(hidden, weight, bias)
    loss = total(*whole)
    loss.backward(retain_graph=True)
    once = [leaf.grad.clone() for leaf in whole if leaf.grad is not None]
    loss.backward()
    for leaf, grad in zip(whole, once, strict=True):
        torch.testing.assert_close(leaf.grad, 2 * grad)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()

    for wanted in range(3):  # one input alone
        some = [t.clone().requires_grad_(i == wanted) for i, t in enumerate((hidden, weight, bias))]
        total(*some).backward()
        assert [leaf.grad is not None for leaf in some] == [i == wanted for i in range(3)]
        torch.testing.assert_close(some[wanted].grad, once[wanted])

    for reentrant in (True, False):  # evaluated again during the backward pass
        again = leaves(hidden, weight, bias)
        checkpoint(total, *again, use_reentrant=reentrant).backward()
        for leaf, grad in zip(again, once, strict=True):
            torch.testing.assert_close(leaf.grad, grad)


@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[15]], ids=title)
def test_tied_table(variant: dict[str, Any]) -> None:
    ids, target = torch.tensor([0, 3, 3, 5]), torch.tensor([3, 3, 5, 1])
    table = torch.randn(9, 4, dtype=torch.float64)
    grads = []
    for engine in ENGINES:
        (w,) = leaves(table)
        Threshold(**variant)(torch.tanh(F.embedding(ids, w)), w, target, engine=engine).mean().backward()
        grads.append(w.grad)
    head = naive(torch.tanh(table[ids]), table, None, target, up=torch.full((4,), 0.25), **variant)
    through = head.hidden * (1 - torch.tanh(table[ids]) ** 2)
    for grad in grads:
        torch.testing.assert_close(grad, head.weight.index_add(0, ids, through), rtol=0, atol=1e-10)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_second_derivatives_come_from_the_reference_or_not_at_all(reduction: Any) -> None:
    hidden, weight, _, target, _ = sample({"margin": 1.0}, torch.float64, shape=(2,))
    h, w = leaves(hidden, weight)

    def loss(h: Tensor, w: Tensor, engine: str = "reference") -> Tensor:
        return Threshold(margin=1.0)(h, w, target, engine=engine, reduction=reduction).tokens.sum()

    assert torch.autograd.gradgradcheck(loss, (h, w))
    with pytest.raises(RuntimeError, match=r"second derivative.*engine='reference'"):
        torch.autograd.grad(loss(h, w, "chunked"), h, create_graph=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_changed_before_the_backward_pass_is_noticed(engine: str) -> None:
    h, w = leaves(torch.randn(2, 3), torch.randn(4, 3))
    loss = Threshold()(h, w, torch.tensor([1, 2]), engine=engine, reduction="none").tokens.sum()
    with torch.no_grad():
        w += 1
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_autocast_leaves_float64_alone(reduction: Any, engine: str) -> None:
    hidden, weight, bias, target, expected = sample(VARIANTS[1], torch.float64)
    h, w, b = leaves(hidden, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        loss = Threshold(**VARIANTS[1])(h, w, target, bias=b, engine=engine, reduction=reduction)
    loss.tokens.sum().backward()
    torch.testing.assert_close(loss.tokens.sum(), expected.loss.sum(), rtol=0, atol=1e-10)
    torch.testing.assert_close(w.grad, expected.weight, rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[5], VARIANTS[10], VARIANTS[18]], ids=title)
def test_autocast_multiplies_in_bfloat16_and_returns_the_type_of_the_parameters(
    variant: dict[str, Any], engine: str
) -> None:
    hidden, weight, bias, target, expected = sample(variant, torch.float32, distance=0.1)
    h, w, b = leaves(hidden, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        loss = Threshold(**variant)(h, w, target, bias=b, engine=engine)
    loss.tokens.backward()
    for ours, theirs in ((loss.tokens, expected.loss.sum()), (h.grad, expected.hidden), (w.grad, expected.weight)):
        assert ours is not None
        assert ours.dtype == torch.float32
        assert 1e-6 < far(ours, theirs) <= 8 * torch.finfo(torch.bfloat16).eps


def test_float16_sums_do_not_overflow_before_the_mean() -> None:
    N = 120_000  # the sum of the gradients, 0.75 N, is beyond float16
    h, w = leaves(torch.ones(N, 1, dtype=torch.float16), torch.zeros(4, 1, dtype=torch.float16))
    Threshold()(h, w, torch.zeros(N, dtype=torch.long), engine="chunked").mean().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad.flatten(), torch.tensor([-0.75, 0.25, 0.25, 0.25]).half(), rtol=1e-3, atol=0)
