"""Workloads: shapes of language models, and hidden states whose difficulty is that of a language model.

Random hidden states and random targets say nothing about losses that drop logits: nothing would be dropped. So states
are planted. Targets follow a Zipf law; a logit is a Zipf prior (one coordinate), plus noise, plus a share of the
target's own row of the table, as large as it must be for the target's negative log-likelihood to be the drawn one.
That is drawn from a Gamma law of shape 0.8 and a mean of 3.3: most
targets are easy and a few are very hard, as in text.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 128  # rows of one block, for shares of live columns
HARDEST = 20.0  # largest planted negative log-likelihood
NEWTON = 5  # steps to the drawn likelihood; four leave an error of 1e-4


class Inputs(NamedTuple):
    """What every way to compute a loss is given."""

    hidden: Float[Tensor, "B T H"]
    weight: Float[Tensor, "V H"]
    target: Int[Tensor, "B T"]

    def fresh(self) -> "Inputs":
        """The same values as new leaves that ask for gradients."""
        return Inputs(self.hidden.detach().requires_grad_(), self.weight.detach().requires_grad_(), self.target)


@dataclass(frozen=True)
class Workload:
    """A shape, a precision, and where hidden states come from: planted, untrained or trained."""

    name: str
    B: int
    T: int
    H: int
    V: int
    dtype: str = "float32"
    states: str = "planted"
    device: str = "cpu"
    mean_nll: float = 3.3
    seed: int = 0
    quick: bool = False

    @property
    def N(self) -> int:  # noqa: N802
        return self.B * self.T

    def describe(self) -> dict[str, Any]:
        """The workload for a row of results."""
        return asdict(self) | {"N": self.N}

    def smaller(self) -> "Workload":
        """A tenth of the logits, for a smoke test."""
        return replace(self, B=max(1, self.B // 2), V=max(640, self.V // 5 // 64 * 64), quick=True)

    def reduced(self) -> "Workload":
        """The same kind of inputs at a size at which float64 can be the judge."""
        return replace(self, B=2, T=128, V=min(self.V, 4096))


WORKLOADS = {
    load.name: load
    for load in (
        Workload("W1", 8, 256, 256, 32768),
        Workload("W1-untrained", 8, 256, 256, 32768, states="untrained"),
        Workload("W2", 16, 128, 128, 8192, states="trained"),
        Workload("W3", 16, 1024, 768, 50304, "bfloat16", device="cuda"),  # GPT-2
        Workload("W4", 8, 1024, 4096, 128256, "bfloat16", device="cuda"),  # Llama 3 8B
        Workload("W5", 8, 1024, 2304, 256000, "bfloat16", device="cuda"),  # Gemma 2 2B
        Workload("W6", 16, 1024, 2048, 248320, "bfloat16", device="cuda"),  # Qwen 3.5
    )
}


def generate(load: Workload) -> Inputs:
    """Inputs of a planted or untrained workload; equal seeds give equal inputs on one kind of device."""
    if load.states not in ("planted", "untrained"):
        raise ValueError(f"{load.states} hidden states are not generated; see the module trained")
    draw = torch.Generator(load.device).manual_seed(load.seed)
    rank = torch.arange(1, load.V + 1, dtype=torch.float32, device=load.device)
    target = torch.multinomial(1 / rank, load.N, replacement=True, generator=draw)
    if load.states == "planted":
        hidden, weight = _planted(load, target, rank, draw)
    else:  # a table at its initial scale behind a layer norm
        hidden = torch.randn(load.N, load.H, generator=draw, device=load.device)
        weight = 0.02 * torch.randn(load.V, load.H, generator=draw, device=load.device)
    kind = getattr(torch, load.dtype)
    shape = load.B, load.T
    return Inputs(hidden.to(kind).view(*shape, load.H), weight.to(kind), target.view(shape))


def _planted(load: Workload, target: Tensor, rank: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    weight = torch.randn(load.V, load.H, generator=draw, device=load.device) / math.sqrt(load.H)
    prior = -rank.log()
    weight[:, 0] = (prior - prior.mean()) / math.sqrt(load.H)
    hidden = 2.2 * torch.randn(load.N, load.H, generator=draw, device=load.device)
    hidden[:, 0] = math.sqrt(load.H)
    nll = _gamma(load, draw).clamp(1e-3, HARDEST)
    for start in range(0, load.N, 2 * BLOCK):
        part = slice(start, start + 2 * BLOCK)
        hidden[part] += _push(hidden[part], weight, target[part], nll[part])
    return hidden, weight


def _gamma(load: Workload, draw: torch.Generator) -> Tensor:
    """Gamma draws of shape 0.8 from uniform ones (torch's own sampler knows no generator), by the rejections of
    Marsaglia and Tsang, who lift a shape below 1 by one and shrink the draw by a power of a uniform number."""
    shape, size = 0.8, (16, load.N)  # sixteen proposals each; one is accepted with probability above 0.95
    d = shape + 1 - 1 / 3
    normal = torch.randn(size, generator=draw, device=load.device)
    uniform, lift = (torch.rand(size, generator=draw, device=load.device) for _ in range(2))
    v = (1 + normal / math.sqrt(9 * d)).clamp(min=1e-6) ** 3
    accepted = uniform.log() < 0.5 * normal.square() + d - d * v + d * v.log()
    first = accepted.to(torch.uint8).argmax(0, keepdim=True)
    return (d * v * lift ** (1 / shape)).gather(0, first).squeeze(0) * (load.mean_nll / shape)


def _push(hidden: Tensor, weight: Tensor, target: Tensor, nll: Tensor) -> Float[Tensor, "n H"]:
    """What must be added along each target's own row so that its negative log-likelihood is `nll`."""
    row = weight[target]
    row[:, 0] = 0.0  # the prior stays as it is
    row /= row.square().sum(1, keepdim=True)
    ids = target[:, None]
    logits, slope = hidden @ weight.T, row @ weight.T
    own, gain = logits.gather(1, ids), slope.gather(1, ids)
    logits.scatter_(1, ids, -math.inf)
    # A target is as likely as wanted where its logit is the others' log-sum-exp less log(exp(nll) - 1).
    aim, size = -torch.log(torch.expm1(nll))[:, None], torch.zeros_like(own)
    room = torch.empty_like(logits)
    for _ in range(NEWTON):
        torch.addcmul(logits, slope, size, out=room)
        top = room.amax(1, keepdim=True)
        room.sub_(top).exp_()
        total = room.sum(1, keepdim=True)
        pull = room.mul_(slope).sum(1, keepdim=True) / total
        size -= (own + size * gain - top - total.log() - aim) / (gain - pull)
    return size * row


@torch.no_grad()
def sparsity(inputs: Inputs, margins: list[float]) -> dict[str, Any]:
    """How hard the targets are and how little a threshold keeps; compares in float32.

    Returns:
        nll_mean, nll_median, and for each margin: density (kept share of all logits), kept_median (per target), and
        the share of columns that a block of 128 targets keeps, mean over blocks, with targets sorted by their logit
        and in the order of the text.
    """
    hidden, weight = inputs.hidden.flatten(0, 1).float(), inputs.weight.float()
    target = inputs.target.flatten()
    own = (hidden * weight[target]).sum(1)
    found: dict[str, Any] = {"margins": {}}
    kept = {m: torch.zeros(len(target), device=own.device) for m in margins}
    share: dict[tuple[str, float], float] = {}
    nll = torch.empty_like(own)
    for name, order in (("stream", torch.arange(len(target), device=own.device)), ("sorted", own.argsort())):
        for part in order.split(BLOCK):
            logits = hidden[part] @ weight.T
            for m in margins:
                stays = logits >= (own[part] - m)[:, None]
                stays.scatter_(1, target[part, None], True)
                kept[m][part] = stays.sum(1).float()
                live = float(stays.any(0).float().mean()) * len(part) / len(target)
                share[name, m] = share.get((name, m), 0.0) + live
            nll[part] = logits.logsumexp(1) - own[part]
    for m in margins:
        found["margins"][f"{m:g}"] = {
            "density": float(kept[m].mean()) / len(weight),
            "kept_median": float(kept[m].median()),
            "live_sorted": share["sorted", m],
            "live_stream": share["stream", m],
        }
    return found | {"nll_mean": float(nll.mean()), "nll_median": float(nll.median())}
