"""Thresholded cross-entropy as the paper writes it: loops over tokens and over the vocabulary, float64, autograd.

Nothing here is taken from `decone`: values follow Algorithm 1, Appendix B (margin by norms), Appendix G.1 (softminus)
and Appendix G.2 (detached under the threshold) of arXiv 2601.22439; gradients are what autograd makes of the loops.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Naive(NamedTuple):
    """Loss per target (0 where ignored), gradients of their weighted sum, and which entries had a say."""

    loss: Tensor  # [N]
    hidden: Tensor  # [N, H]
    weight: Tensor  # [V, H]
    bias: Tensor | None  # [V]
    kept: Tensor  # [N, V] bool: entries that receive a gradient; all False where the target is ignored
    distance: float  # the least distance of a non-target's logit from its threshold


def log_sum_exp(values: list[Tensor]) -> Tensor:
    top = max(value.item() for value in values)
    total = torch.zeros((), dtype=torch.float64)
    for value in values:
        total = total + torch.exp(value - top)
    return torch.log(total) + top


def length(vector: Tensor) -> Tensor:
    return torch.sqrt((vector * vector).sum())


def position(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: int,
    *,
    margin: float = 1.0,
    temperature: float = 1.0,
    alpha: float | None = None,
    norms: str = "both",
    softminus: float | None = None,
    detach: bool = False,
    below: str = "dropped",
) -> tuple[Tensor, list[bool], float]:
    """Loss of one target, the entries that are kept, and the least distance of a logit from the threshold."""
    logits = []
    for i in range(len(weight)):
        z = (h * weight[i]).sum()
        if bias is not None:
            z = z + bias[i]
        logits.append(temperature * z)
    width = torch.tensor(margin, dtype=torch.float64)
    if alpha is not None:
        width = alpha * {"both": length(weight[y]) * length(h), "target": length(weight[y]), "hidden": length(h)}[norms]
    threshold = logits[y] - width
    if detach:
        threshold = threshold.detach()
    kept, entries, mine, distance = [], [], None, math.inf
    for i, z in enumerate(logits):
        if i != y:
            distance = min(distance, abs(z.item() - threshold.item()))
        if softminus is not None:
            stays = i == y or z.item() > threshold.item()
            if stays:
                inner = torch.exp((z - threshold) / softminus) - 1
                inner = inner if inner.item() > 1e-9 else torch.tensor(1e-9, dtype=torch.float64)
                entries.append(softminus * torch.log(inner) + threshold)
        else:
            stays = i == y or not z.item() < threshold.item()
            if stays:
                entries.append(z)
            elif below == "detached":
                entries.append(z.detach())
        if i == y:
            mine = entries[-1]
        kept.append(stays)
    assert mine is not None
    return log_sum_exp(entries) - mine, kept, distance


Position = Callable[..., tuple[Tensor, list[bool], float]]


def naive(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    up: Tensor | None = None,
    ignore_index: int = -100,
    one: Position = position,
    **settings: Any,
) -> Naive:
    """Losses and gradients of sum(up * loss) over all targets that count; any shape and dtype in, float64 out."""
    h = hidden.detach().double().reshape(-1, hidden.size(-1)).requires_grad_()
    w = weight.detach().double().requires_grad_()
    b = None if bias is None else bias.detach().double().requires_grad_()
    ids = target.reshape(-1).tolist()
    factors = [1.0] * len(ids) if up is None else up.reshape(-1).tolist()
    losses = torch.zeros(len(ids), dtype=torch.float64)
    kept = torch.zeros(len(ids), len(weight), dtype=torch.bool)
    total, distance = torch.zeros((), dtype=torch.float64, requires_grad=True), math.inf
    for t, y in enumerate(ids):
        if y == ignore_index:
            continue
        loss, stays, gap = one(h[t], w, b, y, **settings)
        total = total + factors[t] * loss
        losses[t], kept[t], distance = loss.detach(), torch.tensor(stays), min(distance, gap)
    leaves = [h, w] if b is None else [h, w, b]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    grads = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)]
    return Naive(losses, grads[0], grads[1], grads[2] if b is not None else None, kept, distance)
