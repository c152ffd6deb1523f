"""The arithmetic of RowAdamW: which rows are touched, and one AdamW step with a step count for every row.

Three ways lead to the same numbers. torch's fused kernel, when nearly all rows are touched and share one step count;
passes over blocks of rows in place, when many rows are touched; gathered rows, when few are. Blocks stay in the
processor's cache while the passes run over them. Work is done in float32 at least, so a table in bfloat16 or float16
is rounded once per step.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CPU_BLOCK_BYTES = 1 << 19  # of each array and per thread; smaller blocks pay more for calls than they save in cache
DEVICE_BLOCK_BYTES = 1 << 26  # elsewhere a block only bounds the scratch memory
HEAD_COLUMNS = 16  # one cache line of float32; a touched row nearly always shows there
FEW = 8  # the fused kernel pays while at most 1/8 of the rows have to be put right after it
SPARSE = 3  # gathering pays while less than 1/3 of the rows are touched
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


class Table(NamedTuple):
    """A weight with what AdamW keeps for it; `step` counts the updates of each row."""

    weight: Float[Tensor, "V H"]
    exp_avg: Float[Tensor, "V H"]
    exp_avg_sq: Float[Tensor, "V H"]
    step: Float[Tensor, " V"]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Table":
        """The same change made to the three arrays; the step counts are handed on."""
        return Table(change(self.weight), change(self.exp_avg), change(self.exp_avg_sq), self.step)


class Factors(NamedTuple):
    """What an AdamW step multiplies with: numbers, or columns where rows differ."""

    blend: Float[Tensor, "n 1"] | float  # weight of the gradient in the first moment
    keep: Float[Tensor, "n 1"] | float  # on the second moment
    shrink: Float[Tensor, "n 1"] | float  # on the weight
    scale: Float[Tensor, "n 1"] | float  # the denominator is sqrt(v) * scale + offset
    offset: Float[Tensor, "n 1"] | float


def touched_rows(gradient: Float[Tensor, "V H"]) -> Bool[Tensor, " V"]:
    """Tells which rows have an entry other than zero; NaN and infinity count, -0.0 does not.

    Example:
        >>> touched_rows(torch.tensor([[0.0, -0.0], [0.0, 1e-45], [float("nan"), 0.0]])).tolist()
        [False, True, True]
    """
    size = _rows_per_block(gradient)
    if len(gradient) <= size:
        return gradient.amax(1).logical_or(gradient.amin(1))
    # A norm may underflow to 0 but is never positive for zeros: it can prove "touched", not "untouched".
    head: Tensor = torch.linalg.vector_norm(gradient[:, :HEAD_COLUMNS], dim=1).ne(0)
    if bool(head.all()):
        return head
    # amin finds the block in the cache; |g| would need a copy, and torch's infinity norm is many times slower.
    highest, lowest = zip(*((block.amax(1), block.amin(1)) for block in torch.split(gradient, size)), strict=True)
    return torch.cat(highest).logical_or(torch.cat(lowest))


def update(table: Table, gradient: Float[Tensor, "V H"], rule: Rule) -> None:
    """Takes one AdamW step on the touched rows of `table`, in place, each row by its own step count.

    Args:
        table: Weight, moments and step counts; all four are changed.
        gradient: Dense gradient of the weight.
        rule: Numbers and policies of the step.
    """
    if gradient.numel() == 0:
        return
    moved = torch.ones_like(table.step, dtype=torch.bool) if rule.all_touched else touched_rows(gradient)
    table.step.add_(moved)
    if rule.decay_untouched or rule.fade_untouched:
        _update_blocks(table, gradient, moved, range(0, len(moved), _rows_per_block(table.weight)), rule)
        return
    crowd = _crowd(table.step, moved) if _fits_fused(table, gradient, rule) else None
    if crowd is not None:
        common, odd = crowd
        _update_fused(table, gradient, common, odd, rule)
        if len(odd):
            _update_gathered(table, gradient, odd[moved[odd]], rule)
        return
    rows = moved.nonzero().view(-1)
    if len(rows) * SPARSE > len(moved):
        size = _rows_per_block(table.weight)
        starts = torch.bincount(rows // size).nonzero().view(-1).mul(size).tolist() if len(moved) > size else [0]
        _update_blocks(table, gradient, moved, starts, rule)
    elif len(rows):
        _update_gathered(table, gradient, rows, rule)


def _crowd(step: Float[Tensor, " V"], moved: Bool[Tensor, " V"]) -> tuple[Float[Tensor, ""], Int[Tensor, " n"]] | None:
    """The step count that nearly all rows take together and the rows that do not, None if they are too many."""
    still = len(moved) - int(moved.count_nonzero())
    if still == 0:
        low, high = step.aminmax()
        if low.item() == high.item():
            return low, torch.empty(0, dtype=torch.int64, device=step.device)
    if still * FEW > len(moved):
        return None
    common = step.median()  # of a crowd, its own count
    odd = step.mul(moved).ne(common).nonzero().view(-1)
    return (common, odd) if len(odd) * FEW <= len(moved) else None


def _update_fused(
    table: Table, gradient: Float[Tensor, "V H"], step: Float[Tensor, ""], odd: Int[Tensor, " n"], rule: Rule
) -> None:
    """Steps all rows by torch's kernel with the step count that most of them share, then puts the odd ones back."""
    before = [array.index_select(0, odd) for array in table[:3]] if len(odd) else []
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
    for array, rows in zip(table[:3], before, strict=False):
        array.index_copy_(0, odd, rows)


def _update_blocks(
    table: Table, gradient: Float[Tensor, "V H"], moved: Bool[Tensor, " V"], starts: Iterable[int], rule: Rule
) -> None:
    """Passes over blocks of rows in place; the factors of an untouched row are those that change nothing."""
    dtype, size = _work_dtype(table.weight), _rows_per_block(table.weight)
    factors = _masked_factors(table.step, moved, rule, dtype)
    for start in starts:
        part = slice(start, start + size)
        stored = table.each(itemgetter(part))
        work = stored.each(lambda array: array.to(dtype))
        _advance(work, gradient[part].to(dtype), Factors(*factors[:, part].unbind()), rule)
        for array, result in zip(stored[:3], work[:3], strict=True):
            if array is not result:
                array.copy_(result)


def _update_gathered(table: Table, gradient: Float[Tensor, "V H"], rows: Int[Tensor, " n"], rule: Rule) -> None:
    """Copies the touched rows out, steps them and copies them back."""
    dtype = _work_dtype(table.weight)
    shrink = 1 - rule.lr * rule.weight_decay
    for part in torch.split(rows, _rows_per_block(table.weight)):
        scale, offset = _corrections(table.step.index_select(0, part), rule)
        factors = Factors(1 - rule.beta1, rule.beta2, shrink, scale.to(dtype)[:, None], offset.to(dtype)[:, None])
        work = table.each(partial(_take, rows=part, dtype=dtype))
        _advance(work, _take(gradient, part, dtype), factors, rule)
        for array, result in zip(table[:3], work[:3], strict=True):
            _wide(array).index_copy_(0, part, _wide(result.to(array.dtype)))


def _advance(table: Table, gradient: Float[Tensor, "n H"], factors: Factors, rule: Rule) -> None:
    table.exp_avg.lerp_(-gradient if rule.maximize else gradient, factors.blend)
    table.exp_avg_sq.mul_(factors.keep).addcmul_(gradient, gradient, value=1 - rule.beta2)
    denominator = table.exp_avg_sq.sqrt().mul_(factors.scale).add_(factors.offset)
    table.weight.mul_(factors.shrink).addcdiv_(table.exp_avg, denominator, value=-rule.lr)


def _corrections(step: Float[Tensor, " n"], rule: Rule) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Bias corrections, moved from the moments to the denominator; float64, for 1 - beta2 loses digits."""
    count = step.double().clamp_(min=1)  # a row that was never touched has no bias to correct
    first = 1 - rule.beta1**count
    return first / (1 - rule.beta2**count).sqrt_(), first * rule.eps


def _masked_factors(step: Float[Tensor, " V"], moved: Bool[Tensor, " V"], rule: Rule, dtype: torch.dtype) -> Tensor:
    """The five factors for every row, stacked; those of an untouched row change nothing."""
    scale, offset = _corrections(step, rule)
    one_if_moved = moved.double()
    fades = torch.ones_like(scale) if rule.fade_untouched else one_if_moved
    decays = torch.ones_like(scale) if rule.decay_untouched else one_if_moved
    factors = (
        fades * (1 - rule.beta1),
        1 - fades * (1 - rule.beta2),
        1 - decays * (rule.lr * rule.weight_decay),
        scale,
        offset.masked_fill_(moved.logical_not(), math.inf),  # nothing divided by infinity moves the row
    )
    return torch.stack(factors).to(dtype).unsqueeze(2)


def _fits_fused(table: Table, gradient: Float[Tensor, "V H"], rule: Rule) -> bool:
    """The kernel reads the arrays as flat memory of one type."""
    arrays = (*table[:3], gradient)
    alike = all(array.is_contiguous() and array.dtype == gradient.dtype for array in arrays)
    return rule.fused and alike and gradient.device.type in FUSED_DEVICES


def _take(array: Float[Tensor, "V H"], rows: Int[Tensor, " n"], dtype: torch.dtype) -> Float[Tensor, "n H"]:
    return array.index_select(0, rows).to(dtype)


def _work_dtype(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)


def _rows_per_block(array: Float[Tensor, "V H"]) -> int:
    budget = CPU_BLOCK_BYTES * torch.get_num_threads() if array.device.type == "cpu" else DEVICE_BLOCK_BYTES
    return max(1, budget // max(1, array.size(1) * array.element_size()))


def _wide(array: Float[Tensor, "V H"]) -> Tensor:
    """The same memory in elements of 16 bytes where rows allow: index_copy_ takes time per element, not per byte."""
    bytes_of = array.element_size()
    fits = array.is_contiguous() and array.size(1) * bytes_of % 16 == 0 and array.storage_offset() * bytes_of % 16 == 0
    return array.view(torch.complex128) if fits else array
