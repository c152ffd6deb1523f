"""Each method as it is written down at first: whole logits, masks over tokens x vocabulary, autograd for the rest."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .workloads import Inputs

Call = Callable[[Inputs], Tensor]


def plain(inputs: Inputs) -> Tensor:
    """Cross-entropy of a linear layer, mean over targets."""
    return F.cross_entropy(F.linear(inputs.hidden.flatten(0, 1), inputs.weight), inputs.target.flatten())


def threshold(margin: float) -> Call:
    """Cross-entropy over the logits that are at least the target's less a margin."""

    def loss(inputs: Inputs) -> Tensor:
        logits = F.linear(inputs.hidden.flatten(0, 1), inputs.weight).float()
        target = inputs.target.flatten()
        floor = logits.detach().gather(1, target[:, None]) - margin
        dropped = (logits < floor).scatter(1, target[:, None], False)
        return F.cross_entropy(logits.masked_fill(dropped, -torch.inf), target)

    return loss


def scalegrad(gamma: float) -> Call:
    """Cross-entropy after the probability of tokens new to the sequence is multiplied by gamma."""

    def loss(inputs: Inputs) -> Tensor:
        chance = F.linear(inputs.hidden, inputs.weight).float().softmax(-1)
        chance = torch.where(_seen(inputs), chance, gamma * chance)
        chance = chance / chance.sum(-1, keepdim=True)
        return -chance.gather(2, inputs.target[..., None]).log().mean()

    return loss


def unlikelihood(inputs: Inputs) -> Tensor:
    """Cross-entropy plus a charge for the probability of tokens that were targets before."""
    logprob = F.linear(inputs.hidden, inputs.weight).float().log_softmax(-1)
    target = inputs.target[..., None]
    negative = _seen(inputs).scatter(2, target, False)
    charge = -torch.log((1 - logprob.exp()).clamp(min=1e-5)) * negative
    return (charge.sum(-1) - logprob.gather(2, target).squeeze(-1)).mean()


def agg(alpha: float, window: int) -> Call:
    """Gated cross-entropy with three sums of logits, and a table of the counts of each of the last steps."""
    memory: list[Tensor] = []

    @torch.compiler.disable  # a list that grows would be compiled anew in every step
    def gates(target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        memory.append(torch.bincount(target, minlength=len(weight)))
        del memory[:-window]
        count = torch.stack(memory).sum(0).double()
        rate = count / len(memory)
        rare = rate < alpha
        share = count / (count[rare].mean() + 1e-7)
        toward_common, toward_rare = (torch.where(rare, part.clamp(max=1), 1.0) for part in (rate, share))
        return rare, toward_common.to(weight.dtype), toward_rare.to(weight.dtype)

    def loss(inputs: Inputs) -> Tensor:
        hidden, target, weight = inputs.hidden.flatten(0, 1), inputs.target.flatten(), inputs.weight
        rare, toward_common, toward_rare = gates(target, weight)
        total = F.cross_entropy(F.linear(hidden, weight.detach()), target)
        for rows, factor in ((~rare[target], toward_common), (rare[target], toward_rare)):
            logits = F.linear(hidden[rows].detach(), weight)
            gate = factor.expand(len(logits), -1).scatter(1, target[rows, None], 1.0)
            gated = gate * logits + (1 - gate) * logits.detach()
            gradient = F.cross_entropy(gated, target[rows], reduction="sum") / len(target)
            total = total + gradient - gradient.detach()  # the value is that of plain cross-entropy
        return total

    return loss


def _seen(inputs: Inputs) -> Tensor:
    """Whether each id was a target before in its sequence, [B, T, V], by a running maximum over one-hot rows."""
    seen = torch.zeros(*inputs.target.shape, len(inputs.weight), dtype=torch.int8, device=inputs.target.device)
    seen[:, 1:].scatter_(2, inputs.target[:, :-1, None], 1)
    return seen.cummax(1).values.bool()
