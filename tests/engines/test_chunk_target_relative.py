"""Chunks relative to the target's logit: blocks, rows left out, ties, overflow, softcaps, against the reference."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decone import objectives
from decone.engines import chunk_target_relative
from decone.engines.chunked import chunked
from decone.engines.contract import Evaluation, Gate, Readout, Request, Shift, Tokens, reference
from decone.objectives import Compose, Objective, Threshold

V, H = 300, 6  # several blocks of 64 rows


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_target_relative, "BLOCK", 1)
        patch.setattr(chunk_target_relative, "SMALL", 0)
        yield


class HalfGated(Objective):
    """Every second row gets less; thresholded."""

    def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor:
        return target_logit - 1.5

    def gate(self) -> Gate:
        share = torch.linspace(0, 1, V)
        return Gate(torch.arange(V) % 2 == 0, share, 1 - share)


RULES: dict[str, Any] = {
    "mle": lambda: objectives.get("mle"),
    "threshold": lambda: Threshold(margin=1.0),
    "temperature": lambda: Threshold(margin=0.7, temperature=0.6),
    "alpha": lambda: Threshold(alpha=0.4),
    "scalegrad": lambda: objectives.get("scalegrad", gamma=0.3),
    "unlikelihood": lambda: objectives.get("unlikelihood"),
    "gated": HalfGated,
    "all": lambda: Compose(
        Threshold(margin=1.0), objectives.get("scalegrad", gamma=0.3), objectives.get("unlikelihood")
    ),
}


def sample(N: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tokens]:
    """Positions of which some are easy and some are not, so that chunks differ in how much they keep."""
    draw = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randn(*shape, generator=draw).double() for shape in ((V, H), (V,)))
    target = torch.randint(20, (N,), generator=draw) if seed % 2 else torch.randint(V, (N,), generator=draw)
    hidden = torch.randn(N, H, generator=draw).double() + torch.linspace(-1, 3, max(N, 1))[:N, None] * weight[target]
    importance = torch.rand(N, generator=draw).to(dtype) if seed % 3 == 0 else None
    tokens = Tokens(target, torch.arange(N) // 4, torch.arange(N) % 4, importance=importance)
    return hidden.to(dtype), weight.to(dtype), bias.to(dtype), tokens


def evaluate(
    engine: Any, rule: Any, h: Tensor, w: Tensor, b: Tensor | None, tokens: Tokens, **settings: Any
) -> tuple[Evaluation, list[Tensor]]:
    leaves = [t.detach().clone().requires_grad_() for t in (h, w, b) if t is not None]
    found = engine(*leaves, *[None] * (3 - len(leaves)), tokens, rule, Request(**settings))
    up = torch.linspace(-1, 2, len(h)).to(h.dtype)
    total = (found.loss * up).sum() if settings.get("per_token") else found.loss * 0.7
    return found, list(torch.autograd.grad(total, leaves))


@settings(max_examples=80)
@given(
    st.integers(0, 11),
    st.integers(0, 10**6),
    st.sampled_from(sorted(RULES)),
    st.sampled_from([1, 3, 100]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([Readout(), Readout(scale=0.5), Readout(softcap=2.5), Readout(scale=-1.2, softcap=4.0)]),
)
def test_equal_to_the_reference(
    N: int, seed: int, kind: str, rows: int, each: bool, biased: bool, readout: Readout
) -> None:
    hidden, weight, bias, tokens = sample(N, seed)
    rule, b = RULES[kind](), bias if biased else None
    settings = {"per_token": each, "detail": True, "readout": readout}
    ours, mine = evaluate(partial(chunked, chunk_bytes=4 * V * rows), rule, hidden, weight, b, tokens, **settings)
    theirs, others = evaluate(reference, rule, hidden, weight, b, tokens, **settings)
    for one, other in zip(
        (ours.loss, ours.nll, ours.lse, *mine), (theirs.loss, theirs.nll, theirs.lse, *others), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)
    assert torch.equal(ours.support, theirs.support)
    assert torch.equal(mine[1] == 0, others[1] == 0), "the rows nobody keeps are the same"
    assert ours.live is not None
    assert 0 <= ours.live <= 1


def test_rows_that_nobody_keeps_are_left_out_and_counted() -> None:
    hidden, weight, _, tokens = sample(40, 1)
    hidden = hidden + 1.5 * weight[tokens.target]
    ours, grads = evaluate(
        partial(chunked, chunk_bytes=4 * V * 10), Threshold(margin=0.5), hidden, weight, None, tokens, detail=True
    )
    assert 0.05 < ours.live < 0.9
    plain, _ = evaluate(chunked, objectives.get("mle"), hidden, weight, None, tokens, detail=True)
    assert plain.live == 1
    assert bool((plain.support == V).all())
    kept = (hidden @ weight.T) >= (hidden * weight[tokens.target]).sum(1, keepdim=True) - 0.5
    assert torch.equal(ours.support, kept.sum(1))
    dropped = ~kept.any(0)
    dropped[tokens.target] = False
    assert dropped.any()
    assert not grads[1][dropped].any()
    assert grads[1][~dropped].any(1).all()


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_ties_stay(margin: float, dtype: torch.dtype) -> None:
    """Numbers on a lattice, whose products are exact, with twins of the target and logits right on the floor."""
    draw = torch.Generator().manual_seed(3)
    weight = torch.randint(-2, 3, (V, H), generator=draw).to(dtype) / 2
    weight[100:200] = weight[:100]
    hidden = torch.randint(-2, 3, (30, H), generator=draw).to(dtype)
    tokens = Tokens(torch.randint(100, (30,), generator=draw), torch.arange(30), torch.zeros(30, dtype=torch.long))
    logits = hidden.double() @ weight.double().T
    kept = logits >= logits.gather(1, tokens.target[:, None]) - margin
    assert (logits == logits.gather(1, tokens.target[:, None]) - margin).sum() > 60
    for rows in (1, 7, 30):
        ours, grads = evaluate(
            partial(chunked, chunk_bytes=4 * V * rows),
            Threshold(margin=margin),
            hidden,
            weight,
            None,
            tokens,
            detail=True,
        )
        assert torch.equal(ours.support, kept.sum(1))
        dropped = ~kept.any(0)
        assert not grads[1][dropped].any()


@pytest.mark.parametrize("margin", [0.0, 1.0, 5.0])
def test_zero_entries_are_those_of_the_oracle_in_float32(margin: float) -> None:
    differ = 0
    for seed in range(5):
        hidden, weight, _, tokens = sample(200, 6 * seed + 1, torch.float32)
        _, ours = evaluate(
            partial(chunked, chunk_bytes=4 * V * 16), Threshold(margin=margin), hidden, weight, None, tokens
        )
        doubles = hidden.double(), weight.double()
        _, oracle = evaluate(reference, Threshold(margin=margin), *doubles, None, tokens)
        differ += int(((ours[1] == 0) != (oracle[1] == 0)).sum())
        for mine, other in zip(ours, oracle, strict=True):
            assert (mine - other).abs().max() <= 2e-6 * other.abs().max()
    assert differ == 0


@pytest.mark.parametrize("kind", sorted(RULES))
def test_the_same_bits_twice(kind: str) -> None:
    hidden, weight, bias, tokens = sample(50, 1, torch.float32)
    first, grads = evaluate(chunked, RULES[kind](), hidden, weight, bias, tokens)
    again, others = evaluate(chunked, RULES[kind](), hidden, weight, bias, tokens)
    assert torch.equal(first.loss, again.loss)
    assert all(torch.equal(a, b) for a, b in zip(grads, others, strict=True))


@pytest.mark.parametrize("kind", ["mle", "threshold", "scalegrad", "unlikelihood"])
def test_logits_that_exp_cannot_take_go_the_other_way(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, bias, tokens = sample(9, 2, torch.float32)
    hidden[4] = -1e3 * weight[tokens.target[4]]
    bias[7] = -math.inf
    ways = []
    relative_chunk = chunk_target_relative.relative_chunk

    def watched(*given: Any) -> Any:
        made = relative_chunk(*given)
        ways.append(made is not None)
        return made

    monkeypatch.setattr("decone.engines.chunked.relative_chunk", watched)
    ours, mine = evaluate(partial(chunked, chunk_bytes=4 * V), RULES[kind](), hidden, weight, bias, tokens)
    assert set(ways) == {True, False}, "one position overflows, the others do not"
    theirs, others = evaluate(reference, RULES[kind](), hidden, weight, bias, tokens)
    for one, other in zip((ours.loss, ours.nll, *mine), (theirs.loss, theirs.nll, *others), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)


def test_a_number_that_is_none_is_not_hidden() -> None:
    hidden, weight, _, tokens = sample(9, 2, torch.float32)
    hidden[4, 0] = math.nan
    found, _ = evaluate(partial(chunked, chunk_bytes=4 * V), Threshold(), hidden, weight, None, tokens, per_token=True)
    assert found.loss.isnan().tolist() == [False] * 4 + [True] + [False] * 4


def test_confident_predictions_keep_their_digits() -> None:
    weight = torch.tensor([[20.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    hidden = torch.tensor([[1.0, 0.0]])
    tokens = Tokens(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    found, grads = evaluate(chunked, objectives.get("mle"), hidden, weight, None, tokens)
    oracle, others = evaluate(reference, objectives.get("mle"), hidden.double(), weight.double(), None, tokens)
    # log(1 + 2 exp(-20)): in float32 the sum is 1 before the logarithm sees it.
    assert found.loss.item() == pytest.approx(oracle.loss.item(), rel=1e-6)
    for mine, other in zip(grads, others, strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-6, atol=0)


def test_a_broken_row_is_not_left_out() -> None:
    hidden, weight, _, tokens = sample(20, 1, torch.float32)
    hidden = hidden + 1.5 * weight[tokens.target]
    weight[250, 0] = math.nan
    found, grads = evaluate(chunked, Threshold(margin=0.5), hidden, weight, None, tokens, nll=False)
    assert found.loss.isnan()
    assert grads[1].isnan().any()


@pytest.mark.parametrize("gap", [0.0, 3.0, 8.0, 10.0, 11.0])
def test_a_seen_token_that_dominates_is_charged_in_full_digits(gap: float) -> None:
    """Unlikelihood is about just these: 1 - p must not be lost."""
    weight = torch.tensor([[0.0, 0.0], [gap, 0.3], [-1.0, 0.2]])
    hidden = torch.ones(2, 2)
    tokens = Tokens(torch.tensor([1, 0]), torch.tensor([0, 0]), torch.tensor([0, 1]))
    rule = objectives.get("unlikelihood")
    ours, mine = evaluate(chunked, rule, hidden, weight, None, tokens)
    oracle, exact = evaluate(reference, rule, hidden.double(), weight.double(), None, tokens)
    assert ours.loss.item() == pytest.approx(oracle.loss.item(), rel=2e-6)
    for one, other in zip(mine, exact, strict=True):
        assert (one - other).abs().max() <= 2e-6 * other.abs().max()


class Charging(Objective):
    """Charges the probability of every token seen before, the target's own too, behind a shut gate."""

    history = True

    def charge(self, logprob: Tensor, pairs: Any) -> Tensor:
        return logprob.exp()

    def gate(self) -> Gate:
        return Gate(torch.zeros(V, dtype=torch.bool), torch.zeros(V), torch.zeros(V))


def test_a_charge_on_the_target_is_never_gated() -> None:
    hidden, weight, _, _ = sample(8, 1)
    target = torch.tensor([3, 3, 5, 3, 5, 5, 3, 5])
    tokens = Tokens(target, torch.zeros(8, dtype=torch.long), torch.arange(8))
    ours, mine = evaluate(chunked, Charging(), hidden, weight, None, tokens)
    theirs, others = evaluate(reference, Charging(), hidden, weight, None, tokens)
    for one, other in zip((ours.loss, *mine), (theirs.loss, *others), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_a_shift_far_below_leaves_finite_numbers() -> None:
    class Sunk(Objective):
        history = True

        def shift(self) -> Shift:
            return Shift(earlier=-100.0)

    hidden, weight, _, _ = sample(4, 1, torch.float32)
    tokens = Tokens(torch.tensor([3, 3, 3, 5]), torch.zeros(4, dtype=torch.long), torch.arange(4))
    ours, mine = evaluate(chunked, Sunk(), hidden, weight, None, tokens)
    theirs, others = evaluate(reference, Sunk(), hidden, weight, None, tokens)
    for one, other in zip((ours.loss, *mine), (theirs.loss, *others), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_float16_keeps_slopes_that_a_loss_scale_will_need() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, hidden = torch.randn(V, H, generator=draw).half(), torch.randn(12, H, generator=draw).half()
    bias = torch.full((V,), -18.0).half()
    bias[:4] = 0.0
    tokens = Tokens(torch.randint(4, (12,), generator=draw), torch.arange(12), torch.zeros(12, dtype=torch.long))
    leaves = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
    chunked(*leaves, tokens, objectives.get("mle")).loss.mul(65536.0 / 12).backward()
    doubles = [t.double().requires_grad_() for t in (hidden, weight, bias)]
    reference(*doubles, tokens, objectives.get("mle")).loss.mul(65536.0 / 12).backward()
    ours, exact = leaves[1].grad, doubles[1].grad
    assert ours is not None
    assert exact is not None
    assert ours[4:].any(1).all()
    assert (ours.double() - exact).abs().max() <= 2e-2 * exact.abs().max()
    assert (ours[4:].double() - exact[4:]).abs().max() <= 2e-2 * exact[4:].abs().max()


def test_what_was_kept_is_counted_without_masked_rows() -> None:
    hidden, weight, bias, tokens = sample(9, 1)
    bias[[200, 250]] = -math.inf
    for rule in (objectives.get("mle"), Threshold(margin=50.0)):
        ours, _ = evaluate(chunked, rule, hidden, weight, bias, tokens, detail=True)
        theirs, _ = evaluate(reference, rule, hidden, weight, bias, tokens, detail=True)
        assert torch.equal(ours.support, theirs.support)
        assert int(ours.support.max()) <= V - 2
