"""Small problems, rules, and gradients of any engine, for the tests of the kernels."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from decone.engines.contract import PLAIN, Engine, Evaluation, Gate, Pairs, Readout, Request, Rule, Shift, Tokens
from decone.engines.triton.triton_compat import compiler, interpreted
from decone.objectives import MLE, Compose, Objective, Threshold, get
from decone.objectives.agg import AGG

_ABSENT = pytest.mark.skipif(compiler is None, reason="the package triton is not installed")
_COMPILED = pytest.mark.skipif(not interpreted(), reason="Triton compiles here; its interpreter is for the CPU")
DEVICES = [
    pytest.param("cpu", marks=[_ABSENT, _COMPILED]),
    pytest.param("cuda", marks=[pytest.mark.gpu, _ABSENT]),
]


class Gated(Objective):
    """Cross-entropy, thresholded at `margin`, whose push on rows of the table is scaled."""

    def __init__(self, gate: Gate, margin: float = math.inf) -> None:
        super().__init__()
        self._gate, self.margin = gate, margin

    def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor | None:
        return None if self.margin == math.inf else target_logit - self.margin

    def gate(self) -> Gate:
        return self._gate


class Shifted(Objective):
    """Constants on seen and on novel ids."""

    history = True

    def shift(self) -> Shift:
        return Shift(earlier=0.8, novel=-0.3)


class Steep(Objective):
    """Charges every earlier target, the position's own too."""

    history = True

    def charge(self, logprob: Tensor, pairs: Pairs) -> Tensor:
        return torch.sin(logprob) * (1 + pairs.token / 10)


def gate(V: int, device: str = "cpu") -> Gate:
    return Gate(
        torch.arange(V, device=device) % 3 == 0,
        torch.linspace(0, 1, V, device=device),
        torch.linspace(2, 0, V, device=device),
    )


def agg(V: int, tokens: Tokens) -> Objective:
    rule = AGG(alpha=1.5)
    rule.prepare(V)
    rule.observe(tokens.target)
    assert rule.gate() is not None
    return rule.to(tokens.target.device)


RULES: dict[str, Callable[[int, Tokens], Objective]] = {
    "mle": lambda V, tokens: MLE(),
    "margin 1": lambda V, tokens: Threshold(margin=1.0),
    "margin 0": lambda V, tokens: Threshold(margin=0.0),
    "margin inf": lambda V, tokens: Threshold(margin=math.inf),
    "temperature": lambda V, tokens: Threshold(margin=1.0, temperature=0.46),
    "norms": lambda V, tokens: Threshold(alpha=0.2),
    "agg": agg,
    "gated": lambda V, tokens: Gated(gate(V, str(tokens.target.device)), margin=1.0),
    "scalegrad": lambda V, tokens: get("scalegrad", gamma=0.3),
    "shifted": lambda V, tokens: Shifted(),
    "unlikelihood": lambda V, tokens: get("unlikelihood", alpha=0.7),
    "steep": lambda V, tokens: Steep(),
    "composed": lambda V, tokens: Compose(
        Threshold(margin=0.5, temperature=0.8), get("scalegrad", gamma=0.5), get("unlikelihood"), agg(V, tokens)
    ),
}


def sample(
    N: int, V: int, H: int, seed: int = 0, device: str = "cpu", sequence: int = 7
) -> tuple[Tensor, Tensor, Tensor, Tokens]:
    draw = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (torch.randn(*shape, generator=draw) for shape in ((N, H), (V, H), (V,)))
    place = torch.arange(N)
    tokens = Tokens(torch.randint(V, (N,), generator=draw), place // sequence, place % sequence)
    return hidden.to(device), (weight / H**0.5 * 2).to(device), bias.to(device), moved(tokens, device)


def whole(N: int, V: int, H: int, seed: int = 0, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tokens]:
    """Whole numbers, exact in every precision: many logits are equal, and many stand exactly on a whole margin."""
    draw = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randint(-1, 2, s, generator=draw).float() for s in ((V, H), (V,)))
    hidden = torch.randint(1, 3, (N, H), generator=draw).float()  # above zero: no sum of kept entries is zero by chance
    tokens = sample(N, V, H, seed, device)[3]
    bias[[v for v in range(V) if v not in tokens.target and v % 2]] -= 40.0
    return hidden.to(device), weight.to(device), bias.to(device), tokens


def moved(tokens: Tokens, device: str) -> Tokens:
    return Tokens(tokens.target.to(device), tokens.sequence.to(device), tokens.offset.to(device))


def gradients(
    engine: Engine,
    rule: Rule,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    tokens: Tokens,
    up: Tensor | None = None,
    readout: Readout = PLAIN,
) -> tuple[Evaluation, list[Tensor]]:
    """What the engine finds, and the gradients of hidden states, table and bias; with `up`, of the weighted losses."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs if t is not None]
    given = leaves if len(leaves) == 3 else [*leaves, None]
    found = engine(*given, tokens, rule, Request(up is not None, detail=True, readout=readout))
    total = found.loss if up is None else (found.loss * up).sum()
    return found, list(torch.autograd.grad(total, leaves))


def doubled(*inputs: Tensor | None) -> tuple[Any, ...]:
    return tuple(None if t is None else t.double() for t in inputs)
