"""The kernel in C against the formula written out row by row, and against the ways without a compiler."""

import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from decone.optim import RowAdamW, row_kernel
from decone.optim.row_kernel import AdamWRule, AdamWTable, require_kernel, step_compiled
from decone.optim.row_update import step_rows, touched_rows

RULE = AdamWRule(0.01, 0.9, 0.95, 1e-6, 0.1, False, False, False, False, True)
KEPT = ("all_touched", "decay_untouched", "fade_untouched")

needs_compiler = pytest.mark.skipif(
    not os.environ.get("CC") and not any(map(shutil.which, row_kernel.COMPILERS)),
    reason="no C compiler on this machine; install gcc or clang, or name one in CC",
)


def made(V: int, H: int, share: float, dtype: torch.dtype, seed: int = 0, most: int = 3000) -> tuple[AdamWTable, Any]:
    torch.manual_seed(seed)
    step = torch.randint(most, (V,)).float()
    began = (step > 0)[:, None]
    weight, first = torch.randn(V, H, dtype=dtype), torch.randn(V, H, dtype=dtype) * began * 0.1
    second = torch.rand(V, H, dtype=dtype) * began * 0.1
    return AdamWTable(weight, first, second, step), torch.randn(V, H, dtype=dtype) * (torch.rand(V, 1) < share)


def copied(table: AdamWTable) -> AdamWTable:
    return AdamWTable(*(array.clone() for array in table))


def by_hand(table: AdamWTable, gradient: torch.Tensor, rule: AdamWRule) -> AdamWTable:
    """In Python's float64, one number at a time, straight from the formulas."""
    weight, exp_avg, exp_avg_sq, step = (array.double().clone() for array in table)
    for i, row in enumerate(gradient.tolist()):
        touched = rule.all_touched or any(entry != 0 for entry in row)
        step[i] += touched
        count = step[i].item()
        for j, entry in enumerate(row):
            g = -entry if rule.maximize else entry
            m, v, w = exp_avg[i, j].item(), exp_avg_sq[i, j].item(), weight[i, j].item()
            if touched or rule.fade_untouched:
                m, v = rule.beta1 * m + (1 - rule.beta1) * g, rule.beta2 * v + (1 - rule.beta2) * g * g
            if touched or rule.decay_untouched:
                w *= 1 - rule.lr * rule.weight_decay
            if touched:
                bias1, bias2 = 1 - rule.beta1**count, 1 - rule.beta2**count
                w -= rule.lr * m / bias1 / (math.sqrt(v / bias2) + rule.eps)
            exp_avg[i, j], exp_avg_sq[i, j], weight[i, j] = m, v, w
    return AdamWTable(weight, exp_avg, exp_avg_sq, step)


@needs_compiler
@given(
    V=st.integers(1, 20),
    H=st.sampled_from([1, 2, 7, 16, 63, 64, 65, 150]),
    share=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    policies=st.tuples(*[st.booleans()] * 4),
    changed=st.sampled_from([{}, {"beta1": 0.0}, {"beta2": 0.0}, {"lr": 0.0}, {"eps": 0.1, "weight_decay": 0.0}]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 999),
)
def test_the_kernel_is_the_formula(
    V: int,
    H: int,
    share: float,
    policies: tuple[bool, ...],
    changed: dict[str, float],
    dtype: torch.dtype,
    seed: int,
) -> None:
    rule = RULE._replace(maximize=policies[3], **dict(zip(KEPT, policies, strict=False)), **changed)
    table, gradient = made(V, H, share, dtype, seed)
    expected, version = by_hand(table, gradient, rule), table.weight._version
    step_compiled(table, gradient, rule)
    assert table.weight._version > version  # autograd sees the change
    limit = 8 * torch.finfo(dtype).eps
    for array, other in zip(table, expected, strict=True):
        torch.testing.assert_close(array.double(), other, rtol=limit, atol=limit)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_it_agrees_with_the_way_without_a_compiler(share: float, dtype: torch.dtype) -> None:
    table, gradient = made(300, 96, share, dtype)
    other = copied(table)
    limit = 4 * torch.finfo(dtype).eps  # of a weight near 1, after one step
    step_rows(table, gradient, RULE._replace(compiled=True))
    step_rows(other, gradient, RULE)
    assert torch.equal(table.step, other.step)
    for array, eager in zip(table[:3], other[:3], strict=True):
        torch.testing.assert_close(array, eager, rtol=limit, atol=limit)


@needs_compiler
def test_a_row_depends_on_nothing_but_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_kernel, "SHARED", 0)
    table, gradient = made(61, 33, 0.6, torch.float32)
    whole, one_by_one, threads = copied(table), copied(table), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        step_compiled(table, gradient, RULE)
        torch.set_num_threads(1)
        step_compiled(whole, gradient, RULE)
        for row in range(61):
            step_compiled(AdamWTable(*(array[row : row + 1] for array in one_by_one)), gradient[row : row + 1], RULE)
    finally:
        torch.set_num_threads(threads)
    for a, b, c in zip(table, whole, one_by_one, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@needs_compiler
def test_the_numbers_do_not_depend_on_what_the_processor_can(monkeypatch: pytest.MonkeyPatch) -> None:
    table, gradient = made(40, 70, 0.7, torch.float32)
    plain = copied(table)
    step_compiled(table, gradient, RULE)
    row_kernel.kernel_for.cache_clear()
    monkeypatch.setattr(row_kernel, "X86", ())  # nothing beyond what every such processor has
    step_compiled(plain, gradient, RULE)
    row_kernel.kernel_for.cache_clear()
    for array, other in zip(table, plain, strict=True):
        assert torch.equal(array, other)


@needs_compiler
def test_an_untouched_row_keeps_every_bit_and_anything_but_zero_touches() -> None:
    least = torch.finfo(torch.float32).smallest_normal
    table, gradient = made(8, 200, 0.0, torch.float32)
    gradient[1, 199], gradient[2, 0], gradient[3, 64], gradient[4, 63] = least, -least, math.nan, math.inf
    gradient[5] = -0.0
    gradient[6, 7] = 1e-45
    table.exp_avg_sq[7] = math.inf
    before = copied(table)
    step_compiled(table, gradient, RULE)
    touched = touched_rows(gradient)
    assert touched.nonzero().flatten().tolist() == [1, 2, 3, 4, 6]
    assert torch.equal(table.step, before.step + touched)
    for array, other in zip(table[:3], before[:3], strict=True):
        assert torch.equal(array[~touched], other[~touched])
    assert table.weight[3, 64].isnan()
    assert table.weight[3].isnan().sum() == 1


@needs_compiler
def test_arrays_that_lie_otherwise() -> None:
    table, gradient = made(6, 4, 1.0, torch.float64)
    wide = torch.zeros(6, 2)
    wide[:, 0] = table.step
    expected = by_hand(table, gradient, RULE)
    spread = table._replace(step=wide[:, 0])
    step_compiled(spread, gradient.T.contiguous().T, RULE)
    for array, other in zip(spread, expected, strict=True):
        torch.testing.assert_close(array.double(), other, rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match="of one type"):
        step_compiled(table._replace(exp_avg=table.exp_avg.float()), gradient, RULE)


@pytest.mark.parametrize(
    "table",
    [torch.ones(3, 2, dtype=torch.bfloat16), torch.ones(3, 2).T, torch.ones(3, 2, device="meta")],
    ids=["bfloat16", "transposed", "elsewhere"],
)
def test_tables_it_does_not_take_are_refused_at_once(table: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="set compiled=False"):
        require_kernel(table)
    parameter = nn.Parameter(table)
    with pytest.raises(ValueError, match="set compiled=False"):
        RowAdamW([parameter], rows=[parameter], compiled=True)


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = nn.Parameter(torch.ones(3, 2))
    row_kernel.kernel_for.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(RuntimeError, match="install gcc or clang, or name one in CC"):
        RowAdamW([table], rows=[table], compiled=True)
    monkeypatch.setenv("CC", "no-such-compiler -Wall")
    with pytest.raises(RuntimeError, match=r"no-such-compiler -Wall .*failed; name another"):
        RowAdamW([table], rows=[table], compiled=True)
    RowAdamW([table], rows=[table])  # asks for none


@needs_compiler
def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("#error this is broken\n", encoding="utf-8")
    row_kernel.kernel_for.cache_clear()
    monkeypatch.setattr(row_kernel, "SOURCE", source)
    with pytest.raises(RuntimeError, match=r"(?s)broken\.c.*failed; name another.*this is broken"):
        require_kernel(torch.ones(3, 2))
