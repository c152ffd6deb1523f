"""What the parts of the chunked engine hand to each other."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decone.engines.contract import Gate, Readout, Rule, Tokens, upcast


@dataclass
class Job:
    """One call's inputs, in the precision of the large products.

    Attributes:
        reference: the targets' logits after the readout and the rule's scale, [N], at least float32.
        slack: how far the products may round away from `reference`.
        detail: whether log-sum-exps and kept logits are asked for.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    tokens: Tokens
    rule: Rule
    gate: Gate | None
    readout: Readout
    reference: Tensor
    slack: float
    detail: bool


@dataclass
class Sums:
    """Gradients under construction, None where nobody wants one; `own` is that of each target's logit, [N]."""

    hidden: Tensor | None
    table: Tensor | None
    bias: Tensor | None
    own: Tensor


@dataclass
class Found:
    """What a sweep finds out about each position, [N]; None where it was not asked for.

    Attributes:
        loss: loss of each target, without its importance.
        nll: plain NLL.
        lse: log of the sum of exponentials of the logits that were kept.
        kept: how many those were.
        touched: rows of the table that the gradient's products had to touch, summed over positions.
    """

    loss: Tensor
    nll: Tensor | None
    lse: Tensor | None
    kept: Tensor | None
    touched: int = 0


def tokens_of(job: Job, part: slice, learning: bool = False) -> Tokens:
    """The tokens of a chunk, with the vectors that the rule asks for; leaves of a graph of their own if `learning`."""
    if not job.rule.vectors:
        return job.tokens.select(part)
    hidden, row = upcast(job.hidden[part]).detach(), upcast(job.weight[job.tokens.target[part]]).detach()
    return job.tokens.select(part, hidden.requires_grad_(learning), row.requires_grad_(learning))


def target_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, readout: Readout, scale: float, slack: bool
) -> tuple[Tensor, float]:
    """The targets' logits after readout and scale, [N]; with `slack` how far products may round away from them."""
    rows, states = upcast(weight[target]), upcast(hidden)
    raw = (states * rows).sum(1)
    if bias is not None:
        raw = raw + upcast(bias[target])
    logit = readout(raw) * scale
    if not slack or not target.numel():
        return logit, 0.0
    # A product of H numbers errs by some units of |h||w|; in low precision its result is rounded as well.
    sizes = states.norm(dim=1) * rows.norm(dim=1) * abs(readout.scale * scale)
    most = 16 * torch.finfo(raw.dtype).eps * sizes.max() + 2 * torch.finfo(hidden.dtype).eps * logit.abs().max()
    return logit, float(most)


def low_product(slope: Float[Tensor, "M K"], other: Float[Tensor, "K L"]) -> Float[Tensor, "M L"]:
    """A product in the low precision of `other`, handed back in that of `slope`.

    In float16 a slope of 1e-8 is zero and a sum ends at 65504, so slopes are scaled by a power of two that keeps the
    sum just below that.
    """
    if other.dtype != torch.float16:
        return (slope.to(other.dtype) @ other).to(slope.dtype)
    most = slope.abs().sum(1).amax() * other.abs().amax().to(slope.dtype)
    scale = torch.exp2(torch.log2(32000 / most).floor().clamp(-100, 20)) if bool(most > 0) else torch.ones_like(most)
    return ((slope * scale).half() @ other).to(slope.dtype) / scale
