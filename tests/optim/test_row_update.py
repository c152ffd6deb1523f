"""Touched rows, the three methods of one update, passes and fused kernel, against loops over single numbers."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decone.optim import row_update
from decone.optim.row_kernel import AdamWRule, AdamWTable
from decone.optim.row_update import fits_fused, settled, step_by_passes, step_fused, step_rows, touched_rows, work_dtype

RULE = AdamWRule(
    lr=0.01,
    beta1=0.9,
    beta2=0.95,
    eps=1e-6,
    weight_decay=0.1,
    maximize=False,
    all_touched=False,
    decay_untouched=False,
    fade_untouched=False,
    fused=True,
)


def random_table(V: int, H: int, dtype: torch.dtype = torch.float64, steps: tuple[int, int] = (0, 30)) -> AdamWTable:
    step = torch.randint(*steps, (V,)).float()
    began = (step > 0)[:, None]
    weight, exp_avg, exp_avg_sq = torch.randn(V, H), torch.randn(V, H) * began, torch.rand(V, H) * began
    return AdamWTable(weight.to(dtype), exp_avg.to(dtype), exp_avg_sq.to(dtype), step)


def random_gradient(V: int, H: int, share: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(V, H, dtype=dtype) * (torch.rand(V, 1) < share)


def copied(table: AdamWTable) -> AdamWTable:
    return AdamWTable(*(array.clone() for array in table))


def naive(table: AdamWTable, gradient: Tensor, rule: AdamWRule) -> AdamWTable:
    """One row, one number at a time, straight from the formulas."""
    weight, exp_avg, exp_avg_sq, step = (array.double().clone() for array in table)
    for i, row in enumerate(gradient.double()):
        touched = rule.all_touched or any(g != 0 for g in row.tolist())
        step[i] += touched
        t = step[i].item()
        for j, g in enumerate(row.tolist()):
            g = -g if rule.maximize else g
            if touched or rule.fade_untouched:
                exp_avg[i, j] = rule.beta1 * exp_avg[i, j] + (1 - rule.beta1) * g
                exp_avg_sq[i, j] = rule.beta2 * exp_avg_sq[i, j] + (1 - rule.beta2) * g * g
            if touched or rule.decay_untouched:
                weight[i, j] *= 1 - rule.lr * rule.weight_decay
            if touched:
                m, v = exp_avg[i, j].item() / (1 - rule.beta1**t), exp_avg_sq[i, j].item() / (1 - rule.beta2**t)
                weight[i, j] -= rule.lr * m / (math.sqrt(v) + rule.eps)
    return AdamWTable(weight, exp_avg, exp_avg_sq, step)


def assert_same(table: AdamWTable, expected: AdamWTable, rtol: float = 1e-12, atol: float = 1e-13) -> None:
    for array, other in zip(table, expected, strict=True):
        torch.testing.assert_close(array.double(), other.double(), rtol=rtol, atol=atol)


SPECIAL = st.sampled_from([0.0, 0.0, 0.0, -0.0, 1e-45, -1e-45, 1e-30, 1.0, -3e38, math.inf, -math.inf, math.nan])


@given(
    rows=st.integers(1, 5).flatmap(lambda H: st.lists(st.lists(SPECIAL, min_size=H, max_size=H), max_size=40)),
    wide=st.booleans(),
    block=st.sampled_from([1, 64, 1 << 18]),
)
def test_touched_rows_are_those_with_an_entry_other_than_zero(rows: list[list[float]], wide: bool, block: int) -> None:
    gradient = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(rows[0]) if rows else 3)
    if wide and rows:  # the entries stand behind the columns that are looked at first
        gradient = torch.cat([torch.zeros(len(rows), row_update.HEAD_COLUMNS), gradient], dim=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_update, "CPU_BLOCK_BYTES", block)
        assert touched_rows(gradient).tolist() == [any(g != 0 for g in row) for row in rows]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_smallest_number_of_a_type_touches(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_update, "CPU_BLOCK_BYTES", 4096)
    least = torch.finfo(dtype).smallest_normal
    gradient = torch.zeros(300, 40, dtype=dtype)
    gradient[7, 39], gradient[8, 0], gradient[9, 0], gradient[290, 20] = least, -least, 1.0, -least
    assert touched_rows(gradient).nonzero().flatten().tolist() == [7, 8, 9, 290]


WAYS: dict[str, dict[str, Any]] = {
    "as it chooses": {},
    "gathered": {"SMALL": 0, "SPARSE": 2},
    "blocks": {"SMALL": 0, "SPARSE": 0},
    "gathered, small blocks": {"SMALL": 0, "SPARSE": 2, "CPU_BLOCK_BYTES": 100},
    "blocks, small blocks": {"SPARSE": 0, "CPU_BLOCK_BYTES": 100},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("changed", [{}, {"maximize": True}, {"fused": False, "weight_decay": 0.0}, {"lr": 0.0}])
def test_every_way_gives_the_naive_numbers(
    way: str, share: float, changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(row_update, name, value)
    rule = RULE._replace(**changed)
    table, gradient = random_table(17, 4), random_gradient(17, 4, share)
    expected = naive(table, gradient, rule)
    step_rows(table, gradient, rule)
    assert_same(table, expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_untouched_row_keeps_every_bit(way: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(row_update, name, value)
    table, gradient = random_table(33, 8, dtype), random_gradient(33, 8, 0.5, dtype)
    before, still = copied(table), ~touched_rows(gradient)
    assert 0 < still.sum() < 33
    step_rows(table, gradient, RULE)
    for array, other in zip(table, before, strict=True):
        assert torch.equal(array[still], other[still])
        assert not torch.eq(array[~still], other[~still]).all()


@given(
    V=st.integers(1, 20),
    H=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    always=st.booleans(),
    decay=st.booleans(),
    fade=st.booleans(),
    block=st.sampled_from([1, 200, 1 << 18]),
    seed=st.integers(0, 99),
)
def test_policies_give_the_naive_numbers(
    V: int, H: int, share: float, always: bool, decay: bool, fade: bool, block: int, seed: int
) -> None:
    torch.manual_seed(seed)
    rule = RULE._replace(all_touched=always, decay_untouched=decay, fade_untouched=fade)
    table, gradient = random_table(V, H), random_gradient(V, H, share)
    expected = naive(table, gradient, rule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_update, "CPU_BLOCK_BYTES", block)
        step_rows(table, gradient, rule)
    assert_same(table, expected)


@pytest.mark.parametrize(("behind", "untouched", "calls"), [(0, 0, 1), (2, 0, 1), (0, 2, 1), (1, 1, 1), (3, 3, 0)])
def test_a_few_odd_rows_do_not_cost_the_fused_kernel(
    behind: int, untouched: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, fused = [], row_update.step_fused
    monkeypatch.setattr(row_update, "step_fused", lambda *args: (taken.append(len(args[1])), fused(*args))[1])
    monkeypatch.setattr(row_update, "SMALL", 0)
    table, gradient = random_table(24, 4, steps=(9, 10)), random_gradient(24, 4, 1.0)
    table.step[:behind] = 3
    gradient[24 - untouched :] = 0
    table.step[24 - untouched :] = 10  # what the others reach now
    expected = naive(table, gradient, RULE)
    step_rows(table, gradient, RULE)
    assert taken.count(24) == calls
    assert_same(table, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_rows_whose_bias_is_gone_take_the_fused_kernel_whatever_their_counts(
    share: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, fused = [], row_update.step_fused
    monkeypatch.setattr(row_update, "step_fused", lambda *args: (taken.append(len(args[1])), fused(*args))[1])
    monkeypatch.setattr(row_update, "SMALL", 0)
    since = settled(RULE, dtype)
    work = torch.promote_types(dtype, torch.float32)
    assert torch.tensor(1 - 0.95**since, dtype=work) == 1 > torch.tensor(1 - 0.95 ** (0.9 * since), dtype=work)
    for early in (0, 12):
        table, gradient = random_table(24, 4, dtype, steps=(since, 3 * since)), random_gradient(24, 4, share, dtype)
        gradient[0] = 1.0
        table.step[:early] = torch.arange(early).float()
        expected = naive(table, gradient, RULE)
        taken.clear()
        step_rows(table, gradient, RULE)
        assert bool(taken) == (early == 0)
        unit = 4 * torch.finfo(dtype).eps
        assert_same(table, expected, rtol=unit, atol=unit)


@pytest.mark.parametrize("way", WAYS)
def test_moments_may_have_another_type_than_the_weight(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(row_update, name, value)
    table, gradient = random_table(17, 4), random_gradient(17, 4, 0.5)
    table = table._replace(weight=table.weight.float())
    expected = naive(table, gradient.float(), RULE)
    step_rows(table, gradient.float(), RULE)
    assert (table.weight.dtype, table.exp_avg.dtype) == (torch.float32, torch.float64)
    assert_same(table, expected, rtol=1e-6, atol=1e-6)


def test_arrays_in_any_layout() -> None:
    table = AdamWTable(*(array.T.contiguous().T for array in random_table(9, 4)[:3]), torch.full((9,), 2.0))
    gradient = random_gradient(9, 4, 1.0)
    expected = naive(table, gradient, RULE)
    step_rows(table, gradient, RULE)
    assert_same(table, expected)


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(share: float, dtype: torch.dtype) -> None:
    table, gradient = random_table(40, 8, dtype), random_gradient(40, 8, share, dtype)
    expected = naive(table, gradient, RULE)
    step_rows(table, gradient, RULE)
    half_unit = torch.finfo(dtype).eps / 2
    assert table.weight.dtype == dtype
    assert_same(table, expected, rtol=1.01 * half_unit, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_row_survives_a_second_moment_that_overflowed(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(row_update, name, value)
    table, gradient = random_table(6, 4, torch.float32, steps=(3, 9)), random_gradient(6, 4, 1.0, torch.float32)
    table.exp_avg_sq[2] = math.inf
    gradient[2] = 0
    before = copied(table)
    step_rows(table, gradient, RULE)
    assert torch.equal(table.weight[2], before.weight[2])
    assert torch.equal(table.exp_avg_sq[2], before.exp_avg_sq[2])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_an_empty_table_is_left_alone(shape: tuple[int, int]) -> None:
    step_rows(AdamWTable(*(torch.zeros(shape) for _ in range(3)), torch.zeros(shape[0])), torch.zeros(shape), RULE)


PASS_RULE = AdamWRule(0.01, 0.9, 0.999, 1e-8, 0.1, False, False, False, False, True)


def stepped_table(step: list[float], seed: int = 0) -> tuple[AdamWTable, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    rows = [torch.randn(len(step), 3, generator=draw, dtype=torch.float64) for _ in range(4)]
    return AdamWTable(rows[0], rows[1], rows[2].abs(), torch.tensor(step, dtype=torch.float64)), rows[3]


def by_hand(table: AdamWTable, gradient: torch.Tensor, moved: list[bool], rule: AdamWRule) -> list[torch.Tensor]:
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
    "rule", [PASS_RULE, PASS_RULE._replace(maximize=True), PASS_RULE._replace(beta1=0.0, eps=0.1, weight_decay=0.0)]
)
@pytest.mark.parametrize("moved", [None, [True, False, True, False]])
def test_passes_are_the_formula(moved: list[bool] | None, rule: AdamWRule) -> None:
    table, gradient = stepped_table([1.0, 7.0, 400.0, 0.0] if moved else [1.0, 7.0, 400.0, 2.0])
    expected = by_hand(table, gradient, moved or [True] * 4, rule)
    mask = None if moved is None else torch.tensor(moved)
    if mask is not None:
        gradient[~mask] = 0  # what makes a row untouched
    step_by_passes(table, gradient, mask, rule, torch.empty_like(gradient))
    for found, wanted in zip(table[:3], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


def test_the_kernel_is_the_formula() -> None:
    table, gradient = stepped_table([5.0, 5.0])
    expected = by_hand(table, gradient, [True, True], PASS_RULE)
    step_fused(table, gradient, table.step[0], PASS_RULE)
    for found, wanted in zip(table[:3], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999), (0.0, 0.0), (0.99, 0.9)])
def test_settled_rows_have_no_correction_left(betas: tuple[float, float], dtype: torch.dtype) -> None:
    count = settled(PASS_RULE._replace(beta1=betas[0], beta2=betas[1]), dtype)
    for beta in betas:
        left = torch.tensor(1.0, dtype=work_dtype(torch.empty(0, dtype=dtype))) - beta**count
        assert left == 1
        assert count >= 1


def test_what_the_kernel_takes() -> None:
    table, gradient = stepped_table([1.0, 1.0])
    assert fits_fused(table, gradient, PASS_RULE)
    assert not fits_fused(table, gradient, PASS_RULE._replace(fused=False))
    assert not fits_fused(table, gradient.float(), PASS_RULE)  # mixed formats
    assert not fits_fused(table.map(lambda array: array.T.contiguous().T), gradient, PASS_RULE)
    assert work_dtype(torch.empty(0, dtype=torch.float16)) == torch.float32
