"""One AdamW step on rows that each have their own step count: what RowAdamW multiplies with, and the passes.

The bias corrections are moved from the moments to the denominator, so that they cost two columns instead of two passes:

    lr  m / bias1 / (sqrt(v / bias2) + eps)  =  lr  m / (sqrt(v) bias1 / sqrt(bias2) + eps bias1)
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FUSED_DEVICES = ("cpu", "cuda")


class Rule(NamedTuple):
    """Numbers and policies of one step."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    maximize: bool
    all_touched: bool  # every row counts as touched
    decay_untouched: bool  # decoupled weight decay reaches rows without gradient too
    fade_untouched: bool  # the moments of rows without gradient decay, as under a zero gradient
    fused: bool  # torch's fused kernel may be used
    compiled: bool = False  # all is done by the kernel in C


class Table(NamedTuple):
    """A weight with what AdamW keeps for it; `step` counts the updates of each row."""

    weight: Float[Tensor, "V H"]
    exp_avg: Float[Tensor, "V H"]
    exp_avg_sq: Float[Tensor, "V H"]
    step: Float[Tensor, " V"]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Table":
        """The same change made to the three arrays; the step counts are handed on."""
        return Table(change(self.weight), change(self.exp_avg), change(self.exp_avg_sq), self.step)


def work_dtype(weight: Tensor) -> torch.dtype:
    """The type to compute in: float32 at least."""
    return torch.promote_types(weight.dtype, torch.float32)


def settled(rule: Rule, dtype: torch.dtype) -> int:
    """The step count from which on both bias corrections are 1 where `dtype` is computed: such rows step alike.

    Example:
        >>> rule = Rule(1e-3, 0.9, 0.95, 1e-8, 0.0, False, False, False, False, True)
        >>> settled(rule, torch.float32), settled(rule._replace(beta2=0.999), torch.float32)
        (338, 17321)
    """
    return _settled(max(rule.beta1, rule.beta2), dtype)


def fits_fused(table: Table, gradient: Float[Tensor, "V H"], rule: Rule) -> bool:
    """Whether torch's kernel can take the table: it reads the arrays as flat memory of one type."""
    if not rule.fused or gradient.device.type not in FUSED_DEVICES:
        return False
    weight, exp_avg, exp_avg_sq, _ = table
    return (
        weight.dtype == exp_avg.dtype == exp_avg_sq.dtype == gradient.dtype
        and weight.is_contiguous()
        and exp_avg.is_contiguous()
        and exp_avg_sq.is_contiguous()
        and gradient.is_contiguous()
    )


def step_fused(table: Table, gradient: Float[Tensor, "V H"], step: Float[Tensor, ""], rule: Rule) -> None:
    """Steps all rows by torch's kernel, as the update number `step` of each."""
    torch._fused_adamw_(
        [table.weight],
        [gradient],
        [table.exp_avg],
        [table.exp_avg_sq],
        [],
        [step],
        amsgrad=False,
        lr=rule.lr,
        beta1=rule.beta1,
        beta2=rule.beta2,
        weight_decay=rule.weight_decay,
        eps=rule.eps,
        maximize=rule.maximize,
    )


def step_by_passes(
    table: Table,
    gradient: Float[Tensor, "n H"],
    moved: Bool[Tensor, " n"] | None,
    rule: Rule,
    scratch: Float[Tensor, "n H"],
) -> None:
    """Steps the rows in `moved` (None: all) by their own counts, which include this step, in passes over the arrays.

    Args:
        table: Weight and moments in a type fit to compute in, changed in place; step counts.
        gradient: In the same type.
        moved: Rows to step; the others get factors that change nothing but what the policies ask for.
        rule: Numbers and policies of the step.
        scratch: Overwritten. Fresh memory for every block would cost about as much as a pass.
    """
    weight, exp_avg, exp_avg_sq, step = table
    blend: Tensor | float = 1 - rule.beta1
    keep: Tensor | float = rule.beta2
    shrink: Tensor | float = 1 - rule.lr * rule.weight_decay
    scale, offset = _corrections(step if moved is None else step.clamp(min=1), rule, weight.dtype)
    if moved is not None:
        one_if_moved = moved.to(weight.dtype)[:, None]
        offset.div_(one_if_moved)  # nothing divided by infinity moves the row
        if not rule.fade_untouched:
            blend, keep = one_if_moved * blend, torch.rsub(one_if_moved, 1, alpha=1 - rule.beta2)
        if not rule.decay_untouched:
            shrink = torch.rsub(one_if_moved, 1, alpha=rule.lr * rule.weight_decay)
    exp_avg_sq.mul_(keep).addcmul_(gradient, gradient, value=1 - rule.beta2)
    denominator = torch.sqrt(exp_avg_sq, out=scratch).mul_(scale).add_(offset)
    exp_avg.lerp_(-gradient if rule.maximize else gradient, blend)
    weight.mul_(shrink).addcdiv_(exp_avg, denominator, value=rule.lr)


def _corrections(step: Float[Tensor, " n"], rule: Rule, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two columns, both negative: the denominator is sqrt(v) * scale + offset. expm1 keeps the digits of 1 - beta^t."""
    count = step.to(dtype).view(-1, 1)
    first = (count * _log(rule.beta1)).expm1_()
    second = (count * _log(rule.beta2)).expm1_().neg_()
    return first / second.sqrt_(), first * rule.eps


@lru_cache
def _settled(beta: float, dtype: torch.dtype) -> int:
    unit = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    return math.ceil(math.log(unit / 4) / math.log(beta)) if beta > 0 else 1


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf
