"""Objectives that look back, as their papers write them: sets kept while walking along each sequence, float64.

Nothing here is taken from `decone`; gradients are what autograd makes of the loops.
"""

from collections.abc import Callable
from typing import Any

import torch
from tests.objectives.naive import log_sum_exp
from torch import Tensor

Position = Callable[[list[Tensor], int, set[int]], Tensor]


def seen_before(
    target: Tensor, document: Tensor | None = None, *, ignore_index: int = -100, whole: bool = False
) -> list[set[int]]:
    """The ids that were targets before each position of [B, T], in its own sequence and document."""
    seen: list[set[int]] = []
    flat: set[int] = set()
    for b, row in enumerate(target.tolist()):
        sets: dict[int, set[int]] = {}
        for t, y in enumerate(row):
            mine = flat if whole else sets.setdefault(0 if document is None else int(document[b, t]), set())
            seen.append(set(mine))
            if y != ignore_index:
                mine.add(y)
    return seen


def naive_history(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    one: Position,
    *,
    up: Tensor | None = None,
    document: Tensor | None = None,
    whole: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Loss of each target (0 where ignored), and gradients of the weighted sum: hidden, weight, bias."""
    h = hidden.detach().double().flatten(0, -2).requires_grad_()
    w = weight.detach().double().requires_grad_()
    b = None if bias is None else bias.detach().double().requires_grad_()
    factors = torch.ones(target.numel()) if up is None else up.flatten()
    losses, total = torch.zeros(target.numel(), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    total = total + 0 * (h.sum() + w.sum() + (0 if b is None else b.sum()))
    for n, (y, seen) in enumerate(
        zip(target.flatten().tolist(), seen_before(target, document, whole=whole), strict=True)
    ):
        if y == -100:
            continue
        logits = [(h[n] * row).sum() + (0 if b is None else b[i]) for i, row in enumerate(w)]
        loss = one(logits, y, seen)
        losses[n] = loss.detach()
        total = total + float(factors[n]) * loss
    return losses, list(torch.autograd.grad(total, [h, w] if b is None else [h, w, b]))


def softmax(logits: list[Tensor]) -> list[Tensor]:
    total = log_sum_exp(logits)
    return [torch.exp(z - total) for z in logits]


def found(
    objective: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, **settings: Any
) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients as the objective gives them; with `up`, of one loss per target, weighted."""
    up = settings.pop("up", None)
    leaves = [t.detach().clone().requires_grad_() for t in (hidden, weight, bias) if t is not None]
    loss = objective(
        leaves[0],
        leaves[1],
        target,
        bias=leaves[2] if bias is not None else None,
        reduction="sum" if up is None else "none",
        **settings,
    ).tokens
    total = loss if up is None else (loss * up).sum()
    return loss.detach(), list(torch.autograd.grad(total, leaves))


def assert_equal(ours: tuple[Tensor, list[Tensor]], theirs: tuple[Tensor, list[Tensor]], slack: float = 1e-10) -> None:
    """Compares loss (a sum, or one per target) and gradients."""
    loss = theirs[0] if ours[0].dim() else theirs[0].sum()
    torch.testing.assert_close(ours[0].double(), loss.view(ours[0].shape), rtol=slack, atol=slack)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(mine.double(), other.view(mine.shape), rtol=slack, atol=slack)


def sample(
    B: int = 2, T: int = 7, V: int = 6, H: int = 4, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, table, bias and targets with repeats (id 0 among them) and ignored ones."""
    draw = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (torch.randn(*shape, generator=draw).to(dtype) for shape in ((B, T, H), (V, H), (V,)))
    target = torch.randint(V, (B, T), generator=draw)
    target[torch.rand(B, T, generator=draw) < 0.15] = -100
    return hidden, weight, bias, target
