"""One AdamW step on the touched rows of a table, each by its own step count.

Three methods lead to the same numbers: torch's fused kernel, when nearly all rows are touched and have the same bias
corrections; passes over blocks of rows in place, when many rows are touched; gathered rows, when few are. Blocks stay
in the processor's cache while the passes run over them. Work is done in float32 at least, so a table in bfloat16 or
float16 is rounded once per step. Where the kernel in C is asked for, it takes the place of all three.

The passes move the bias corrections from the moments to the denominator, where they cost two columns, not two passes:

    lr  m / bias1 / (sqrt(v / bias2) + eps)  =  lr  m / (sqrt(v) bias1 / sqrt(bias2) + eps bias1)
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decone.optim.row_kernel import AdamWRule, AdamWTable, step_compiled

FUSED_DEVICES = ("cpu", "cuda")
CPU_BLOCK_BYTES = 1 << 20  # of each array and per thread; smaller blocks pay more for calls than they save in cache
DEVICE_BLOCK_BYTES = 1 << 26  # elsewhere a block only bounds the scratch memory
HEAD_COLUMNS = 16  # one cache line of float32; a touched row nearly always shows there
FEW = 0.125  # the fused kernel pays while at most this share of the rows has to be put right after it
SPARSE = 0.4  # gathering pays while a smaller share of the rows is touched
SMALL = 1 << 16  # entries; in a smaller table calls cost more than the work they save


def touched_rows(gradient: Float[Tensor, "V H"]) -> Bool[Tensor, " V"]:
    """Tells which rows have an entry other than zero; NaN and infinity count, -0.0 does not.

    Example:
        >>> touched_rows(torch.tensor([[0.0, -0.0], [0.0, 1e-45], [float("nan"), 0.0]])).tolist()
        [False, True, True]
    """
    moved = _touched_mask(gradient)
    return torch.ones_like(gradient[:, 0], dtype=torch.bool) if moved is None else moved


def step_rows(table: AdamWTable, gradient: Float[Tensor, "V H"], rule: AdamWRule) -> None:
    """Takes one AdamW step on the touched rows of `table`, in place, each row by its own step count.

    Args:
        table: Weight, moments and step counts; all four are changed.
        gradient: Dense gradient of the weight.
        rule: Numbers and policies of the step.
    """
    if gradient.numel() == 0:
        return
    if rule.compiled:
        step_compiled(table, gradient, rule)
        return
    moved = None if rule.all_touched else _touched_mask(gradient)
    table.step.add_(1 if moved is None else moved)
    fused, spread = fits_fused(table, gradient, rule), rule.decay_untouched or rule.fade_untouched
    if moved is None and fused and _same_corrections(table.step, rule, gradient.dtype):
        step_fused(table, gradient, table.step[0], rule)
    elif gradient.numel() < SMALL or (spread and moved is not None):
        _step_in_place(table, gradient, moved, rule)
    else:
        rows = None if moved is None else moved.nonzero().view(-1)
        count = len(gradient) if rows is None else len(rows)
        if fused and count >= (1 - FEW) * len(gradient) and _step_nearly_all(table, gradient, moved, rule):
            return
        if rows is None or count >= SPARSE * len(gradient):
            _step_in_place(table, gradient, moved, rule)
        else:
            _step_gathered(table, gradient, rows, rule)


def work_dtype(weight: Tensor) -> torch.dtype:
    """The type to compute in: float32 at least."""
    return torch.promote_types(weight.dtype, torch.float32)


def settled(rule: AdamWRule, dtype: torch.dtype) -> int:
    """The step count from which on both bias corrections are 1 where `dtype` is computed: such rows step alike.

    Example:
        >>> rule = AdamWRule(1e-3, 0.9, 0.95, 1e-8, 0.0, False, False, False, False, True)
        >>> settled(rule, torch.float32), settled(rule._replace(beta2=0.999), torch.float32)
        (338, 17321)
    """
    return _settled(max(rule.beta1, rule.beta2), dtype)


def fits_fused(table: AdamWTable, gradient: Float[Tensor, "V H"], rule: AdamWRule) -> bool:
    """True if torch's kernel can take the table: it reads the arrays as flat memory of one type."""
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


def step_fused(table: AdamWTable, gradient: Float[Tensor, "V H"], step: Float[Tensor, ""], rule: AdamWRule) -> None:
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
    table: AdamWTable,
    gradient: Float[Tensor, "n H"],
    moved: Bool[Tensor, " n"] | None,
    rule: AdamWRule,
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


def _touched_mask(gradient: Float[Tensor, "V H"]) -> Bool[Tensor, " V"] | None:
    """The touched rows, None if all are."""
    small = gradient.numel() < SMALL
    size = 0 if small else _rows_per_block(gradient)
    if small or len(gradient) <= size:
        highest = gradient.amax(1)
        return None if highest.all() else highest.logical_or(gradient.amin(1))
    # A norm may underflow to 0 but is never positive for zeros: it can prove "touched", not "untouched".
    if torch.linalg.vector_norm(gradient[:, :HEAD_COLUMNS], dim=1).all():
        return None
    # amin finds the block in the cache; |g| would need a copy, and torch's infinity norm is many times slower.
    moved = torch.cat([block.amax(1).logical_or(block.amin(1)) for block in torch.split(gradient, size)])
    return None if moved.all() else moved


def _step_nearly_all(
    table: AdamWTable, gradient: Float[Tensor, "V H"], moved: Bool[Tensor, " V"] | None, rule: AdamWRule
) -> bool:
    """Steps all rows by the fused kernel and puts the odd ones right; False, with nothing done, if too many are odd."""
    counts = table.step if moved is None else table.step * moved
    common = counts.max()
    odd = counts.lt(common.clamp(max=settled(rule, gradient.dtype))).nonzero().view(-1)
    if len(odd) > FEW * len(counts):
        return False
    before = [array.index_select(0, odd) for array in table[:3]]
    step_fused(table, gradient, common, rule)
    for array, rows in zip(table[:3], before, strict=True):
        _wide(array).index_copy_(0, odd, _wide(rows))
    _step_gathered(table, gradient, odd if moved is None else odd[moved[odd]], rule)
    return True


def _step_in_place(
    table: AdamWTable, gradient: Float[Tensor, "V H"], moved: Bool[Tensor, " V"] | None, rule: AdamWRule
) -> None:
    """Passes over blocks of rows where they lie; a row that has not moved gets factors that change nothing."""
    dtype, size = work_dtype(table.weight), _rows_per_block(table.weight)
    scratch = torch.empty_like(gradient[:size], dtype=dtype)
    if len(gradient) <= size and gradient.dtype == table.weight.dtype == table.exp_avg.dtype == dtype:
        step_by_passes(table, gradient, moved, rule, scratch)
        return
    for start in range(0, len(gradient), size):
        block = slice(start, start + size)
        stored = AdamWTable(*(array[block] for array in table))
        work = stored.map(lambda array: array.to(dtype))
        mask = None if moved is None else moved[block]
        step_by_passes(work, gradient[block].to(dtype), mask, rule, scratch[: len(work.step)])
        for array, result in zip(stored[:3], work[:3], strict=True):
            if array is not result:
                array.copy_(result)


def _step_gathered(table: AdamWTable, gradient: Float[Tensor, "V H"], rows: Int[Tensor, " n"], rule: AdamWRule) -> None:
    """Copies the rows out, steps them and copies them back."""
    dtype, size = work_dtype(table.weight), max(1, _rows_per_block(table.weight) // 2)
    arrays = (*table[:3], gradient)
    buffers = [array.new_empty(min(size, len(rows)), array.size(1)) for array in arrays]
    scratch = buffers[0].new_empty(buffers[0].shape, dtype=dtype)
    for ids in torch.split(rows, size) if len(rows) else ():
        copies = [buffer[: len(ids)] for buffer in buffers]
        for array, copied in zip(arrays, copies, strict=True):
            torch.index_select(array, 0, ids, out=copied)
        weight, exp_avg, exp_avg_sq, slope = (copied.to(dtype) for copied in copies)
        work = AdamWTable(weight, exp_avg, exp_avg_sq, table.step.index_select(0, ids))
        if fits_fused(work, slope, rule) and _same_corrections(work.step, rule, dtype):
            step_fused(work, slope, work.step[0], rule)
        else:
            step_by_passes(work, slope, None, rule, scratch[: len(ids)])
        for array, result in zip(table[:3], work[:3], strict=True):
            _wide(array).index_copy_(0, ids, _wide(result.to(array.dtype)))


def _same_corrections(step: Float[Tensor, " n"], rule: AdamWRule, dtype: torch.dtype) -> bool:
    """True if all rows have the same bias corrections."""
    low, high = step.aminmax()
    least: float = low.item()
    return least == high.item() or least >= settled(rule, dtype)


def _rows_per_block(array: Float[Tensor, "V H"]) -> int:
    budget = CPU_BLOCK_BYTES * torch.get_num_threads() if array.device.type == "cpu" else DEVICE_BLOCK_BYTES
    return max(1, budget // max(1, array.size(1) * array.element_size()))


def _wide(array: Float[Tensor, "V H"]) -> Tensor:
    """The same memory in elements of 16 bytes where rows allow: index_copy_ takes time per element, not per byte."""
    bytes_of = array.element_size()
    fits = array.is_contiguous() and array.size(1) * bytes_of % 16 == 0 and array.storage_offset() * bytes_of % 16 == 0
    return array.view(torch.complex128) if fits else array


def _corrections(step: Float[Tensor, " n"], rule: AdamWRule, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
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
