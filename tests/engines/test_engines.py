"""Engines against each other at every chunk size, and every hook against loops or a closed form in float64."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.one_row import one_row
from tests.objectives.naive import log_sum_exp, naive
from torch import Tensor

import decone.engines.chunked as chunked_module
from decone.engines.chunk_target_relative import RelativeChunk, relative_chunk
from decone.engines.chunked import chunked
from decone.engines.contract import Engine, Gate, Request, Rule, Shift, Tokens, reference
from decone.engines.sweep import TableInputs
from decone.objectives import MLE, Objective, Threshold


class Gated(Objective):
    """Cross-entropy, thresholded at `margin`, whose push on rows of the table is scaled."""

    def __init__(self, gate: Gate, margin: float = math.inf, temperature: float = 1.0) -> None:
        super().__init__()
        self._gate, self.margin, self.temperature = gate, margin, temperature

    def scale(self) -> float:
        return self.temperature

    def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor:
        return target_logit - self.margin

    def gate(self) -> Gate:
        return self._gate


class Adversarial(Objective):
    """Lowers the target's logit by 0.3 |h||w_y|, and the gradient flows through the norms."""

    vectors = True

    def adjust(self, logits: Tensor, tokens: Tokens) -> Tensor:
        assert tokens.hidden is not None
        assert tokens.target_row is not None
        handicap = 0.3 * tokens.hidden.norm(dim=1) * tokens.target_row.norm(dim=1)
        return logits.scatter_add(1, tokens.target[:, None], -handicap[:, None])


class Capped(Objective):
    """Squashes logits to (-2, 2) before the softmax, after the scale."""

    def scale(self) -> float:
        return 1.5

    def adjust(self, logits: Tensor, tokens: Tokens) -> Tensor:
        return 2 * torch.tanh(logits / 2)


class Confident(Objective):
    """Charges the negative entropy of each position."""

    def extra(self, logprob: Tensor, tokens: Tokens) -> Tensor:
        return (logprob.exp() * logprob).sum(1)


class Everything(Objective):
    """All hooks at once: the order scale, shift, adjust, floor, softmax, extra must be the same in every engine."""

    history = True
    vectors = True

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        share = torch.linspace(0, 1, vocabulary)
        self._gate = Gate(torch.arange(vocabulary) % 2 == 0, share, 1 - share)

    def scale(self) -> float:
        return 0.7

    def shift(self) -> Shift:
        return Shift(earlier=0.4, novel=-0.3)

    def adjust(self, logits: Tensor, tokens: Tokens) -> Tensor:
        assert tokens.hidden is not None
        assert tokens.target_row is not None
        return logits - 0.1 * logits.pow(2) * tokens.hidden.pow(2).mean(1, keepdim=True) + tokens.target_row.sum() * 0

    def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor:
        assert tokens.hidden is not None
        return target_logit - tokens.hidden.norm(dim=1)

    def extra(self, logprob: Tensor, tokens: Tokens) -> Tensor:
        return (logprob.exp() * tokens.earlier_mask()).sum(1)

    def gate(self) -> Gate:
        return self._gate


def sample(N: int, V: int, H: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tokens]:
    draw = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (torch.randn(*shape, generator=draw).double() for shape in ((N, H), (V, H), (V,)))
    target = torch.randint(V, (N,), generator=draw)
    return hidden, weight, bias, Tokens(target, torch.arange(N) // 3, torch.arange(N) % 3)


def gradients(
    engine: Engine, rule: Rule, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tokens, up: Tensor | None
) -> list[Tensor]:
    """Loss, NLL and gradients; with `up`, of the weighted sum of one loss per target."""
    leaves = [t.detach().clone().requires_grad_() for t in (hidden, weight, bias) if t is not None]
    inputs = leaves if bias is not None else [*leaves, None]
    found = engine(*inputs, tokens, rule, Request(per_token=up is not None))
    assert found.nll is not None
    total = found.loss if up is None else (found.loss * up).sum()
    return [found.loss.detach(), found.nll, *torch.autograd.grad(total, leaves)]


@settings(max_examples=60)
@given(
    st.integers(0, 7),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["mle", "threshold", "softminus", "gated", "adversarial", "capped", "confident", "everything"]),
)
def test_engines_agree_at_every_chunk_size(
    N: int, V: int, H: int, rows: int, each: bool, biased: bool, kind: str
) -> None:
    hidden, weight, bias, tokens = sample(N, V, H, seed=N + 10 * V)
    gate = Gate(torch.arange(V) % 3 == 0, torch.linspace(0, 1, V), torch.linspace(2, 0, V))
    rule: Objective = {
        "mle": MLE(),
        "threshold": Threshold(alpha=0.5),
        "softminus": Threshold(margin=0.7, softminus=1.0),
        "gated": Gated(gate, margin=1.0, temperature=0.6),
        "adversarial": Adversarial(),
        "capped": Capped(),
        "confident": Confident(),
        "everything": Everything(V),
    }[kind]
    up = torch.linspace(-1, 2, N).double() if each else None
    b = bias if biased else None
    ours = gradients(partial(chunked, chunk_bytes=4 * V * rows), rule, hidden, weight, b, tokens, up)
    theirs = gradients(reference, rule, hidden, weight, b, tokens, up)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rows", [1, 2, 4, 7, 100])
def test_no_more_logits_live_than_a_chunk_holds(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, _, tokens = sample(7, 5, 3)
    sizes = []

    def watched(inputs: TableInputs, positions: slice, memory: Tensor, plain: bool) -> RelativeChunk | None:
        sizes.append(positions.stop - positions.start)
        assert memory.numel() == 5 * min(rows, 7)
        return relative_chunk(inputs, positions, memory, plain)

    monkeypatch.setattr(chunked_module, "relative_chunk", watched)
    chunked(hidden.requires_grad_(), weight, None, tokens, MLE(), chunk_bytes=4 * 5 * rows + 3).loss.backward()
    assert sizes == [rows] * (7 // rows) + ([7 % rows] if 7 % rows else [])


def test_a_chunk_that_holds_no_position_is_refused() -> None:
    hidden, weight, _, tokens = sample(7, 5, 3)
    with pytest.raises(ValueError, match="does not hold the logits of one position over a vocabulary of 5; give at l"):
        chunked(hidden, weight, None, tokens, MLE(), chunk_bytes=19)


ENGINES = [pytest.param(reference, id="reference"), pytest.param(one_row, id="one-row")]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_gate_splits_the_gradient_and_spares_hidden_states(masked: bool, each: bool, engine: Engine) -> None:
    hidden, weight, bias, tokens = sample(9, 6, 4)
    if masked:  # a padding row that no position may predict
        padding = next(i for i in range(6) if i not in tokens.target)
        bias[padding] = -math.inf
    rare = torch.tensor([True, False, True, False, False, True])
    gate = Gate(rare, torch.rand(6), torch.tensor([0.0, 1.0, 0.5, 0.25, 2.0, 0.1]))
    up = torch.randn(9).double() if each else torch.ones(9).double()
    rule = Gated(gate, margin=2.0, temperature=0.8)
    _, _, *ours = gradients(engine, rule, hidden, weight, bias, tokens, up if each else None)

    expected = [torch.zeros_like(t) for t in (hidden, weight, bias)]
    for n, y in enumerate(tokens.target.tolist()):
        logits = [0.8 * (sum(h * w for h, w in zip(hidden[n], weight[i], strict=True)) + bias[i]) for i in range(6)]
        kept = [i for i in range(6) if logits[i] >= logits[y] - 2.0]
        total = sum(math.exp(logits[i]) for i in kept)
        for i in kept:
            pull = float(up[n]) * 0.8 * (math.exp(logits[i]) / total - (i == y))
            factor = 1.0 if i == y else float((gate.on_rare if rare[y] else gate.on_common)[i])
            expected[0][n] += pull * weight[i]
            expected[1][i] += factor * pull * hidden[n]
            expected[2][i] += factor * pull
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


def test_a_gate_of_ones_changes_nothing_and_of_zeros_leaves_the_pull() -> None:
    hidden, weight, bias, tokens = sample(9, 6, 4)
    nobody = torch.zeros(6, dtype=torch.bool)
    plain = gradients(chunked, MLE(), hidden, weight, bias, tokens, None)
    open_ = gradients(chunked, Gated(Gate(nobody, torch.ones(6), torch.zeros(6))), hidden, weight, bias, tokens, None)
    shut = gradients(chunked, Gated(Gate(~nobody, torch.ones(6), torch.zeros(6))), hidden, weight, bias, tokens, None)
    for mine, other in zip(open_, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
    torch.testing.assert_close(shut[2], plain[2], rtol=0, atol=1e-12)  # hidden states
    absent = [i for i in range(6) if i not in tokens.target]
    assert absent
    assert not shut[3][absent].any()
    assert shut[4][tokens.target].lt(0).all()


def adversarial(h: Tensor, weight: Tensor, bias: Tensor | None, y: int) -> tuple[Tensor, list[bool], float]:
    logits = [(h * row).sum() + (0 if bias is None else bias[i]) for i, row in enumerate(weight)]
    logits[y] = logits[y] - 0.3 * h.pow(2).sum().sqrt() * weight[y].pow(2).sum().sqrt()
    return log_sum_exp(logits) - logits[y], [True] * len(weight), 0.0


def capped(h: Tensor, weight: Tensor, bias: Tensor | None, y: int) -> tuple[Tensor, list[bool], float]:
    raw = [1.5 * ((h * row).sum() + (0 if bias is None else bias[i])) for i, row in enumerate(weight)]
    logits = [2 * (z.exp() - 1) / (z.exp() + 1) for z in raw]  # 2 tanh(z / 2)
    return log_sum_exp(logits) - logits[y], [True] * len(weight), 0.0


def confident(h: Tensor, weight: Tensor, bias: Tensor | None, y: int) -> tuple[Tensor, list[bool], float]:
    logits = [(h * row).sum() + (0 if bias is None else bias[i]) for i, row in enumerate(weight)]
    chance = [(z - log_sum_exp(logits)).exp() for z in logits]
    entropy = -sum(p * p.log() for p in chance)
    return log_sum_exp(logits) - logits[y] - entropy, [True] * len(weight), 0.0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("rule", "one"),
    [(Adversarial(), adversarial), (Capped(), capped), (Confident(), confident)],
    ids=["adversarial", "capped", "confident"],
)
def test_general_hooks_match_loops(rule: Objective, one: Any, dtype: torch.dtype, engine: Engine) -> None:
    hidden, weight, bias, tokens = sample(5, 6, 3)
    hidden, weight, bias = hidden.to(dtype), weight.to(dtype), bias.to(dtype)
    found = gradients(engine, rule, hidden, weight, bias, tokens, None)
    expected = naive(hidden, weight, bias, tokens.target, one=one)
    slack = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 8 * torch.finfo(torch.bfloat16).eps}[dtype]
    wanted = (expected.loss.sum(), expected.hidden, expected.weight, expected.bias)
    for mine, other in zip((found[0], *found[2:]), wanted, strict=True):
        assert other is not None
        assert (mine.double() - other).abs().max() <= slack * other.abs().max().clamp(min=1.0)
    assert [grad.dtype for grad in found[2:]] == [dtype] * 3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_shift_is_added_in_the_precision_of_the_logits(engine: Engine) -> None:
    class Shifted(Objective):
        history = True

        def shift(self) -> Shift:
            return Shift(earlier=math.log(3.0), novel=math.log(0.2))

    hidden, weight, bias, tokens = sample(7, 5, 3)
    found = gradients(engine, Shifted(), hidden, weight, bias, tokens, None)
    total, order = 0.0, tokens.target.tolist()
    for n, y in enumerate(order):
        seen = set(order[3 * (n // 3) : n])  # sequences of three
        odds = [math.exp(hidden[n] @ weight[i] + bias[i]) * (3.0 if i in seen else 0.2) for i in range(5)]
        total -= math.log(odds[y] / sum(odds))
    assert found[0].item() == pytest.approx(total, abs=1e-10)


def test_the_target_is_never_dropped() -> None:
    class Above(Objective):
        def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor:
            return target_logit + 100

    hidden, weight, bias, tokens = sample(4, 5, 3)
    for engine in (reference, chunked):
        loss, _, *grads = gradients(engine, Above(), hidden, weight, bias, tokens, None)
        assert loss.item() == 0
        assert not any(grad.any() for grad in grads)
