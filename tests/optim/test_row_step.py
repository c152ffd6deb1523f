"""One AdamW step by passes and by torch's kernel, against the formula written out row by row."""

import math

import pytest
import torch

from decone.optim.row_step import Rule, Table, fits_fused, settled, step_by_passes, step_fused, work_dtype

RULE = Rule(0.01, 0.9, 0.999, 1e-8, 0.1, False, False, False, False, True)


def made(step: list[float], seed: int = 0) -> tuple[Table, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    rows = [torch.randn(len(step), 3, generator=draw, dtype=torch.float64) for _ in range(4)]
    return Table(rows[0], rows[1], rows[2].abs(), torch.tensor(step, dtype=torch.float64)), rows[3]


def by_hand(table: Table, gradient: torch.Tensor, moved: list[bool], rule: Rule) -> list[torch.Tensor]:
    weight, first, second = (array.clone() for array in table[:3])
    for row, is_moved in enumerate(moved):
        if not is_moved:
            continue
        count = float(table.step[row])
        for column in range(weight.shape[1]):
            g = float(gradient[row, column]) * (-1 if rule.maximize else 1)
            m = rule.beta1 * float(first[row, column]) + (1 - rule.beta1) * g
            v = rule.beta2 * float(second[row, column]) + (1 - rule.beta2) * g * g
            w = float(weight[row, column]) * (1 - rule.lr * rule.weight_decay)
            w -= rule.lr * m / (1 - rule.beta1**count) / (math.sqrt(v / (1 - rule.beta2**count)) + rule.eps)
            weight[row, column], first[row, column], second[row, column] = w, m, v
    return [weight, first, second]


@pytest.mark.parametrize(
    "rule", [RULE, RULE._replace(maximize=True), RULE._replace(beta1=0.0, eps=0.1, weight_decay=0.0)]
)
@pytest.mark.parametrize("moved", [None, [True, False, True, False]])
def test_passes_are_the_formula(moved: list[bool] | None, rule: Rule) -> None:
    table, gradient = made([1.0, 7.0, 400.0, 0.0] if moved else [1.0, 7.0, 400.0, 2.0])
    expected = by_hand(table, gradient, moved or [True] * 4, rule)
    mask = None if moved is None else torch.tensor(moved)
    if mask is not None:
        gradient[~mask] = 0  # what makes a row untouched
    step_by_passes(table, gradient, mask, rule, torch.empty_like(gradient))
    for found, wanted in zip(table[:3], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


def test_the_kernel_is_the_formula() -> None:
    table, gradient = made([5.0, 5.0])
    expected = by_hand(table, gradient, [True, True], RULE)
    step_fused(table, gradient, table.step[0], RULE)
    for found, wanted in zip(table[:3], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999), (0.0, 0.0), (0.99, 0.9)])
def test_settled_rows_have_no_correction_left(betas: tuple[float, float], dtype: torch.dtype) -> None:
    count = settled(RULE._replace(beta1=betas[0], beta2=betas[1]), dtype)
    for beta in betas:
        left = torch.tensor(1.0, dtype=work_dtype(torch.empty(0, dtype=dtype))) - beta**count
        assert left == 1
        assert count >= 1


def test_what_the_kernel_takes() -> None:
    table, gradient = made([1.0, 1.0])
    assert fits_fused(table, gradient, RULE)
    assert not fits_fused(table, gradient, RULE._replace(fused=False))
    assert not fits_fused(table, gradient.float(), RULE)  # mixed formats
    assert not fits_fused(table.each(lambda array: array.T.contiguous().T), gradient, RULE)
    assert work_dtype(torch.empty(0, dtype=torch.float16)) == torch.float32
