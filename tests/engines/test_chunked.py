"""How the chunked engine behaves as a part of autograd: compiled, checkpointed, retained, frozen, within its budget."""

import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from decone.engines import chunked as chunked_module
from decone.engines import sweep
from decone.engines.chunked import chunked
from decone.objectives import MLE, Threshold

RULES = [MLE(), Threshold(margin=1.0), Threshold(margin=1.0, softminus=1.0)]


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    draw, dtype = torch.Generator().manual_seed(0), torch.float64
    hidden, weight = torch.randn(2, 9, 4, generator=draw, dtype=dtype), torch.randn(30, 4, generator=draw, dtype=dtype)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(30, (2, 9), generator=draw)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_graph_kept_for_another_pass_gives_the_same_again(rule: Any, reduction: str) -> None:
    hidden, weight, target = leaves()
    total = rule(hidden, weight, target, engine="chunked", reduction=reduction).tokens.sum()
    first = torch.autograd.grad(total, (hidden, weight), retain_graph=True)
    kept = [grad.clone() for grad in first]
    again = torch.autograd.grad(3 * total, (hidden, weight))
    for one, two, copy in zip(first, again, kept, strict=True):
        torch.testing.assert_close(3 * one, two, rtol=1e-12, atol=1e-12)
        assert torch.equal(one, copy), "what was handed out is left alone"


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_it_works_in_a_checkpoint(rule: Any) -> None:
    hidden, weight, target = leaves()

    def loss(h: Tensor, w: Tensor) -> Tensor:
        value: Tensor = rule(torch.tanh(h), w, target, engine="chunked").mean()
        return value

    plain = torch.autograd.grad(loss(hidden, weight), (hidden, weight))
    saved = torch.autograd.grad(checkpoint(loss, hidden, weight, use_reentrant=False), (hidden, weight))
    for one, other in zip(plain, saved, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


COMPILED = """
import torch
from decone.objectives import Threshold
hidden, weight = torch.randn(2, 9, 4, requires_grad=True), torch.randn(30, 4, requires_grad=True)
target, layer = torch.randint(30, (2, 9)), torch.nn.Linear(4, 4)
def loss(hidden, weight):
    return Threshold(margin=1.0)(torch.tanh(layer(hidden)), weight, target, engine="chunked").mean()
plain = torch.autograd.grad(loss(hidden, weight), (hidden, weight))
compiled = torch.autograd.grad(torch.compile(loss)(hidden, weight), (hidden, weight))
for one, other in zip(plain, compiled):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
"""


@pytest.mark.slow
def test_it_works_beside_what_is_compiled() -> None:
    # In a process without the tests' type checks, which the compiler cannot read.
    subprocess.run([sys.executable, "-c", COMPILED], check=True, capture_output=True)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_is_frozen_costs_no_product(frozen: str, rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, target = leaves()
    expected = torch.autograd.grad(rule(hidden, weight, target, engine="chunked").mean(), (hidden, weight))
    made = []

    def watched(*arguments: Any) -> sweep.SweepGradients:
        made.append(sweep.zero_gradients(*arguments))
        return made[-1]

    monkeypatch.setattr(chunked_module, "zero_gradients", watched)
    free = {"hidden": weight, "weight": hidden}[frozen]
    inputs = (hidden.detach(), weight) if frozen == "hidden" else (hidden, weight.detach())
    (grad,) = torch.autograd.grad(rule(*inputs, target, engine="chunked").mean(), free)
    torch.testing.assert_close(grad, expected[0 if frozen == "weight" else 1], rtol=0, atol=1e-15)
    assert (made[0].hidden is None) == (frozen == "hidden")
    assert (made[0].table is None) == (frozen == "weight")


@pytest.mark.parametrize("rule", [MLE(), Threshold(margin=1.0)], ids=str)
def test_importance_is_a_factor_on_each_loss(rule: Any) -> None:
    hidden, weight, target = leaves()
    target[0, 3] = -100
    share = torch.rand(2, 9, dtype=torch.float64)
    each = rule(hidden, weight, target, engine="reference", reduction="none").tokens
    for engine in ("chunked", "reference"):
        loss = rule(hidden, weight, target, engine=engine, importance=share)
        torch.testing.assert_close(loss.tokens, (each * share).sum(), rtol=1e-12, atol=0)
        ours = torch.autograd.grad(loss.tokens, (hidden, weight))
        theirs = torch.autograd.grad((each * share).sum(), (hidden, weight), retain_graph=True)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match=r"importance .* must hold one floating number per target"):
        rule(hidden, weight, target, importance=share[0])


def test_details_stand_where_their_targets_do() -> None:
    hidden, weight, target = leaves()
    target[1, :4] = -100
    loss = Threshold(margin=1.0)(hidden, weight, target, detail=True, engine=partial(chunked, chunk_bytes=480))
    logits = hidden @ weight.T
    own = logits.gather(2, target.clamp(min=0)[..., None])
    kept = logits >= own - 1.0
    assert loss.support is not None
    assert loss.lse is not None
    assert loss.live is not None
    assert torch.equal(loss.support, kept.sum(2) * (target >= 0))
    lse = logits.masked_fill(~kept, -torch.inf).logsumexp(2) * (target >= 0)
    torch.testing.assert_close(loss.lse, lse, rtol=1e-12, atol=1e-12)
    assert loss.lse.requires_grad is False
    assert loss.live == 1


@pytest.mark.parametrize(("V", "budget", "most"), [(32768, None, 128), (262144, None, 128), (1000, 40000, 10)])
def test_a_chunk_fits_its_budget(V: int, budget: int | None, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def stop(inputs: Any, positions: slice, memory: Tensor, plain: bool) -> None:
        sizes.append(positions.stop - positions.start)
        raise InterruptedError

    monkeypatch.setattr(chunked_module, "relative_chunk", stop)
    with pytest.raises(InterruptedError):
        MLE()(
            torch.zeros(500, 1),
            torch.zeros(V, 1),
            torch.zeros(500, dtype=torch.long),
            engine=partial(chunked, chunk_bytes=budget),
        )
    assert sizes == [most]
