"""The whole engine against the readable one in float64, hook by hook, and its promises: zeros, bits, refusals."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from tests.engines.triton.cases import DEVICES, RULES, doubled, gradients, moved, sample, whole
from torch import Tensor

from decone.engines.contract import PLAIN, Engine, Readout, Request, Tokens, reference
from decone.engines.triton import engine as module
from decone.engines.triton import triton
from decone.objectives import MLE, Objective, Threshold, get

pytestmark = pytest.mark.parametrize("device", DEVICES)
N, V, H = 21, 37, 20  # no multiple of a tile


def close(mine: Tensor, other: Tensor, slack: float = 3e-6) -> None:
    assert mine.shape == other.shape
    error = (mine.double() - other.double()).abs().max() if mine.numel() else 0
    assert error <= slack * max(1.0, float(other.detach().abs().max()) if other.numel() else 0)


def compare(
    rule: Objective,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    tokens: Tokens,
    up: Tensor | None,
    readout: Readout = PLAIN,
    **settings: int,
) -> None:
    """Every number against the oracle's, and the zeros of the table's gradient one by one."""
    ours, mine = gradients(partial(triton, **settings), rule, inputs, tokens, up, readout)
    theirs, other = gradients(reference, rule, doubled(*inputs), tokens, up, readout)
    for a, b in zip((ours.loss, ours.nll, ours.lse, *mine), (theirs.loss, theirs.nll, theirs.lse, *other), strict=True):
        assert a is not None
        assert b is not None
        close(a, b, 1e-5)
    assert ours.support is not None
    assert torch.equal(ours.support, theirs.support)
    assert int(((mine[1] == 0) != (other[1] == 0)).sum()) == 0


@pytest.mark.parametrize("name", RULES)
def test_a_rule_matches_the_oracle(name: str, device: str) -> None:
    *inputs, tokens = sample(N, V, H, device=device)
    compare(RULES[name](V, tokens), tuple(inputs), tokens, None)


@pytest.mark.parametrize("name", RULES)
def test_one_loss_per_target_readout_importance_and_no_bias(name: str, device: str) -> None:
    hidden, weight, _, tokens = sample(N, V, H, seed=1, device=device)
    tokens = replace(tokens, importance=torch.linspace(0.5, 2, N, device=device))
    up = torch.linspace(-1, 2, N, device=device)
    compare(RULES[name](V, tokens), (hidden, weight, None), tokens, up, readout=Readout(1.3, 2.5))


@pytest.mark.parametrize("name", ["gated", "composed"])
def test_chunks_change_nothing_but_the_order_of_sums(name: str, device: str) -> None:
    hidden, weight, bias, tokens = sample(45 if device == "cpu" else 700, V, H, seed=2, device=device)
    rows = 16 if device == "cpu" else 64
    compare(RULES[name](V, tokens), (hidden, weight, bias), tokens, None, chunk_bytes=4 * 64 * rows)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 3), (5, 1, 4), (16, 16, 16), (33, 17, 40)], ids=str)
@pytest.mark.parametrize("name", ["margin 1", "unlikelihood"])
def test_any_shape(name: str, shape: tuple[int, int, int], device: str) -> None:
    *inputs, tokens = sample(*shape, seed=3, device=device)
    compare(RULES[name](shape[1], tokens), tuple(inputs), tokens, None)


@pytest.mark.parametrize(
    ("margin", "dtype"),
    [(0.0, torch.float32), (1.0, torch.float32), (0.0, torch.bfloat16), (1.0, torch.bfloat16), (1.0, torch.float16)],
    ids=str,
)
def test_ties_and_zeros_are_exact(margin: float, dtype: torch.dtype, device: str) -> None:
    hidden, weight, bias, tokens = whole(N, V, 12, device=device)
    weight[5] = weight[tokens.target[0]]  # and a twin of a target
    bias[5] = bias[tokens.target[0]]
    rule = Threshold(margin=margin)
    half = tuple(t.to(dtype) for t in (hidden, weight, bias))
    ours, mine = gradients(triton, rule, half, tokens)
    theirs, other = gradients(reference, rule, doubled(hidden, weight, bias), tokens)
    assert theirs.support is not None
    assert int(theirs.support.sum()) > N  # there are ties to lose
    assert torch.equal(ours.support, theirs.support)
    assert int(((mine[1] == 0) != (other[1] == 0)).sum()) == 0
    assert bool((other[1] == 0).any())
    assert [g.dtype for g in mine] == [dtype] * 3
    assert ours.loss.dtype == torch.float32
    slack = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]
    close(ours.lse, theirs.lse)
    for a, b in zip(mine, other, strict=True):
        close(a, b, slack)


@pytest.mark.parametrize("name", ["margin 1", "shifted", "unlikelihood"])
def test_huge_logits_and_forbidden_rows(name: str, device: str) -> None:
    hidden, weight, bias, tokens = sample(N, V, H, seed=4, device=device)
    weight[3] = hidden[0] * 1e4 / hidden[0].square().sum()  # a logit of 1e4
    padding = next(i for i in range(V) if i not in tokens.target)
    bias[padding] = -math.inf
    rule = RULES[name](V, tokens)
    ours, mine = gradients(triton, rule, (hidden, weight, bias), tokens)
    theirs, other = gradients(reference, rule, doubled(hidden, weight, bias), tokens)
    assert all(bool(g.isfinite().all()) for g in mine)
    assert float(theirs.lse.max()) > 1000
    close(ours.loss, theirs.loss, 1e-6)
    assert torch.equal(ours.support, theirs.support)
    assert not mine[1][padding].any()
    for a, b in zip(mine, other, strict=True):
        close(a, b, 2e-6)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("mle", torch.bfloat16), ("composed", torch.bfloat16), ("agg", torch.float16), ("unlikelihood", torch.float16)],
    ids=str,
)
def test_low_precision_is_summed_in_float32(name: str, dtype: torch.dtype, device: str) -> None:
    inputs, tokens = [t.to(dtype) for t in sample(N, V, H, seed=5, device=device)[:3]], sample(N, V, H, 5, device)[3]
    rule = RULES[name](V, tokens)
    ours, mine = gradients(triton, rule, tuple(inputs), tokens)
    theirs, other = gradients(reference, rule, doubled(*inputs), tokens)
    close(ours.lse, theirs.lse)  # only inputs are rounded, no logit is
    assert torch.equal(ours.support, theirs.support)
    for a, b in zip(mine, other, strict=True):
        close(a, b, 2 * torch.finfo(dtype).eps)


def test_two_runs_have_the_same_bits(device: str) -> None:
    hidden, weight, bias, tokens = sample(N, V, H, seed=6, device=device)
    tokens = replace(tokens, target=tokens.target % 3)  # many positions add to one row
    rule = RULES["composed"](V, tokens)
    for up in (None, torch.linspace(-1, 2, N, device=device)):
        first, second = (gradients(triton, rule, (hidden, weight, bias), tokens, up) for _ in range(2))
        assert all(map(torch.equal, first[1], second[1]))
        assert torch.equal(first[0].loss, second[0].loss)


def test_an_empty_batch(device: str) -> None:
    hidden, weight, bias, tokens = sample(0, V, H, device=device)
    for name in ("mle", "unlikelihood"):
        for up in (None, torch.zeros(0, device=device)):
            found, grads = gradients(triton, RULES[name](V, tokens), (hidden, weight, bias), tokens, up)
            assert found.loss.sum().item() == 0
            assert found.nll is not None
            assert found.nll.shape == (0,)
            assert [g.shape for g in grads] == [hidden.shape, weight.shape, bias.shape]
            assert not any(g.any() for g in grads)


def test_the_target_is_never_dropped(device: str) -> None:
    class Above(Objective):
        def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor:
            return target_logit + 100

    hidden, weight, bias, tokens = sample(N, V, H, device=device)
    found, grads = gradients(triton, Above(), (hidden, weight, bias), tokens)
    assert found.loss.item() == 0
    assert not any(g.any() for g in grads)
    assert found.support is not None
    assert found.support.eq(1).all()
    assert found.live == 0


def test_live_is_the_share_of_columns_the_products_touch(device: str) -> None:
    hidden, weight, bias, tokens = sample(N, V, H, device=device)
    sharp, _ = gradients(triton, Threshold(margin=0.0), (hidden, 3 * weight, bias), tokens)
    loose, _ = gradients(triton, Threshold(margin=100.0), (hidden, weight, bias), tokens)
    plain, _ = gradients(triton, MLE(), (hidden, weight, bias), tokens)
    assert 0 < float(sharp.live) < 1
    assert loose.live == 1
    assert plain.live == 1


def test_gradients_that_are_not_required_are_not_made(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[bool, ...] | None] = []
    evaluate = module.evaluate

    def watched(inputs: module.TiledInputs, requires_grad: tuple[bool, ...], up: Tensor | None, nll: bool) -> Any:
        calls.append(None if up is None else requires_grad)
        return evaluate(inputs, requires_grad, up, nll)

    monkeypatch.setattr(module, "evaluate", watched)
    hidden, weight, _, tokens = sample(N, V, H, device=device)
    weight.requires_grad_()
    with torch.no_grad():
        result = triton(hidden, weight, None, tokens, MLE(), Request(nll=False))
    assert calls == [None]
    assert result[1:] == (None,) * 4
    assert not result.loss.requires_grad
    triton(hidden, weight.detach(), None, tokens, MLE())
    assert calls == [None, None]
    result = triton(hidden.requires_grad_(), weight.detach(), None, tokens, MLE())
    assert calls[2] == (True, False, False)
    result.loss.backward()
    close(hidden.grad, gradients(reference, MLE(), (hidden, weight, None), tokens)[1][0])
    triton(hidden, weight, None, tokens, MLE(), Request(per_token=True))
    assert calls[3] is None


def test_a_graph_that_is_kept_and_no_second_derivative(device: str) -> None:
    hidden, weight, _, tokens = sample(N, V, H, device=device)
    hidden.requires_grad_()
    loss = triton(hidden, weight, None, tokens, Threshold()).loss
    first, second = (torch.autograd.grad(loss * 3, hidden, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert first.any()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, hidden, create_graph=True)


def test_autocast_and_strides(device: str) -> None:
    hidden, weight, bias, tokens = sample(N, V, H, device=device)
    with torch.autocast(device, torch.bfloat16):
        ours, mine = gradients(triton, Threshold(), (hidden, weight, bias), tokens)
    half = tuple(t.bfloat16() for t in (hidden, weight, bias))
    theirs, other = gradients(triton, Threshold(), half, tokens)
    assert torch.equal(ours.loss, theirs.loss)
    assert [g.dtype for g in mine] == [torch.float32] * 3
    for a, b in zip(mine, other, strict=True):
        close(a, b, 8e-3)
    turned = gradients(triton, MLE(), (hidden.T.contiguous().T, weight.T.contiguous().T, bias), tokens)
    straight = gradients(triton, MLE(), (hidden, weight, bias), tokens)
    assert all(map(torch.equal, turned[1], straight[1]))


def test_what_has_no_kernel_is_refused_with_a_way_out(device: str) -> None:
    hidden, weight, _, tokens = sample(N, V, H, device=device)
    with pytest.raises(ValueError, match="no kernels for float64; cast to float32, or pass engine='chunked'"):
        triton(hidden.double(), weight.double(), None, tokens, MLE())
    with pytest.raises(ValueError, match=r"no kernel for Threshold .* pass engine='chunked'"):
        triton(hidden, weight, None, tokens, Threshold(softminus=1.0))
    with pytest.raises(ValueError, match="cast one, or call in"):
        triton(hidden, weight.bfloat16(), None, tokens, MLE())
    with pytest.raises(ValueError, match=r"chunk_bytes must hold \d+ rows .* raise it, or pass engine='chunked'"):
        triton(hidden, weight, None, tokens, MLE(), chunk_bytes=10)


def test_it_is_an_engine_that_objectives_take(device: str) -> None:
    assert isinstance(triton, Engine)
    draw = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(2, 9, 8, generator=draw).to(device), torch.randn(11, 8, generator=draw).to(device)
    target = torch.randint(11, (2, 9), generator=draw).to(device)
    target[0, :3] = -100
    for rule in (get("threshold"), get("unlikelihood")):
        ours = rule(hidden, weight, target, engine=triton, reduction="none", detail=True)
        theirs = rule(hidden, weight, target, engine=reference, reduction="none", detail=True)
        close(ours.tokens, theirs.tokens)
        close(ours.nll, theirs.nll)
        assert torch.equal(ours.support, theirs.support)


def test_an_offset_of_all_logits_costs_no_digits(device: str) -> None:
    hidden, weight, _, tokens = sample(N, V, H, seed=8, device=device)
    bias = torch.full((V,), 100.0, device=device)
    ours, mine = gradients(triton, MLE(), (hidden / 8, weight, bias), tokens)
    # The same rounding of the logits themselves, and nothing else of float32.
    logits = (hidden / 8 @ weight.T + bias).double()
    chance = logits.softmax(1)
    wanted = (chance - torch.nn.functional.one_hot(tokens.target, V)) @ weight.double()
    close(ours.loss, (logits.logsumexp(1) - logits.gather(1, tokens.target[:, None])[:, 0]).sum(), 1e-6)
    close(mine[0], wanted, 8e-6)
    exact = gradients(reference, MLE(), (hidden / 8, weight, bias), tokens)[1][0]
    assert (mine[0] - wanted).abs().max() < 2 * (exact - wanted).abs().max()


def test_a_seen_token_that_dominates(device: str) -> None:
    weight = torch.tensor([[9.0], [0.0], [-1.0], [0.5]], device=device)
    tokens = Tokens(*(torch.tensor(t, device=device) for t in ([0, 2, 1], [0, 0, 0], [0, 1, 2])))
    hidden = torch.tensor([[1.0], [1.0], [0.98]], device=device)
    rule = get("unlikelihood")
    ours, mine = gradients(triton, rule, (hidden, weight, None), tokens, torch.ones(3, device=device))
    theirs, other = gradients(reference, rule, doubled(hidden, weight, None), tokens, torch.ones(3, device=device))
    close(ours.loss, theirs.loss, 3e-7)
    for a, b in zip(mine, other, strict=True):
        close(a, b, 2e-6)


def test_float16_loses_no_row_to_underflow(device: str) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(24, H, generator=draw) / 4, torch.randn(512, H, generator=draw) / 4
    target = torch.randint(8, (24,), generator=draw)
    bias = torch.full((512,), -18.0)
    bias[:8] = 0
    inputs = tuple(t.half().to(device) for t in (hidden, weight, bias))
    tokens = moved(Tokens(target, target * 0, torch.arange(24)), device)
    other = gradients(reference, MLE(), doubled(*inputs), tokens)[1][1]
    assert bool((other != 0).any(1).all())
    scale = 2.0**15  # a gradient scaler's
    for each in (False, True):
        leaves = [t.clone().requires_grad_() for t in inputs]
        loss = triton(*leaves, tokens, MLE(), Request(per_token=each)).loss
        found = torch.autograd.grad(loss.sum() * scale / 64, leaves)
        assert all(bool(t.isfinite().all()) for t in found)
        assert bool((found[1] != 0).any(1).all())
        close(found[1][8:].double() / scale * 64 * 1e6, other[8:] * 1e6, 4e-3)


def test_a_target_that_is_no_row_stops_the_call(device: str) -> None:
    if device == "cuda":
        pytest.skip("an assertion on a GPU ends the process")
    hidden, weight, bias, tokens = sample(N, V, H, device=device)
    for wrong in (-100, V):
        target = tokens.target.clone()
        target[2] = wrong
        with pytest.raises(
            ValueError, match=rf"targets must be ids from 0 to {V - 1}, got .*{wrong}; leave|got {wrong}"
        ):
            triton(hidden, weight, bias, replace(tokens, target=target), MLE())
