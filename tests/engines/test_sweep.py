"""The order of a sweep, its chunks, and products in low precision, against loops and float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.engines.contract import PLAIN, Tokens
from decone.engines.sweep import (
    SweepInputs,
    SweepLosses,
    charges_earlier,
    chunk_positions,
    low_product,
    restore_order,
    sort_positions,
    storage_types,
    zero_gradients,
)
from decone.objectives import MLE, get


@given(st.integers(0, 30), st.booleans(), st.booleans(), st.integers(0, 9))
def test_positions_are_sorted_by_class_then_key(N: int, sort: bool, split: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    key = torch.randint(4, (N,), generator=draw).float() if sort else None
    rare = torch.rand(N, generator=draw) < 0.5 if split else None
    order = sort_positions(key, rare)
    if key is None and rare is None:
        assert order is None
        return
    assert order is not None
    height = [0.0] * N if key is None else key.tolist()
    group = [False] * N if rare is None else rare.tolist()
    assert order.tolist() == sorted(range(N), key=lambda n: (group[n], height[n]))  # equals stay as they come
    values = torch.randn(N, 3, generator=draw)
    assert torch.equal(restore_order(values[order], order), values)


@given(st.integers(0, 30), st.integers(1, 9), st.integers(0, 30))
def test_chunks_hold_every_position_once_and_one_class(N: int, rows: int, common: int) -> None:
    common = min(common, N)
    covered = []
    for positions, rare in chunk_positions(N, rows, common):
        assert 0 < positions.stop - positions.start <= rows
        assert rare == (positions.start >= common)
        assert rare or positions.stop <= common
        covered += range(positions.start, positions.stop)
    assert covered == list(range(N))


def test_losses_come_back_in_the_order_of_the_positions() -> None:
    losses = SweepLosses(torch.tensor([3.0, 1.0]), None, torch.tensor([4.0, 5.0]), None, touched=7)
    restored = losses.restore(torch.tensor([1, 0]))
    assert restored.loss.tolist() == [1.0, 3.0]
    assert restored.lse is not None
    assert restored.lse.tolist() == [5.0, 4.0]
    assert restored.nll is None
    assert restored.touched == 7


def test_only_required_gradients_have_room() -> None:
    zeros = torch.zeros(2, dtype=torch.long)
    hidden, weight = torch.zeros(2, 3).bfloat16(), torch.zeros(5, 3).bfloat16()
    inputs = SweepInputs(hidden, weight, None, Tokens(zeros, zeros, zeros), MLE(), None, PLAIN)
    gradients = zero_gradients(inputs, (True, False, True), torch.float32)
    assert gradients.hidden is not None
    assert gradients.hidden.dtype == torch.float32
    assert gradients.table is None
    assert gradients.bias is None  # there is no bias
    assert gradients.target_logit.shape == (2,)
    assert gradients.cast((torch.bfloat16, torch.bfloat16, None))[0] is not None


def test_gradients_wait_in_a_type_that_does_not_overflow() -> None:
    assert storage_types((torch.float16, torch.bfloat16, None)) == [torch.float32, torch.bfloat16, None]


@pytest.mark.parametrize("largest", [1e-9, 1e-3, 1.0, 1e4])
def test_products_in_float16_keep_small_slopes(largest: float) -> None:
    draw = torch.Generator().manual_seed(0)
    slope, vectors = largest * torch.randn(6, 20, generator=draw), torch.randn(20, 4, generator=draw).half()
    exact = slope.double() @ vectors.double()
    product = low_product(slope, vectors)
    assert product.dtype == torch.float32
    torch.testing.assert_close(product.double(), exact, rtol=0, atol=5e-3 * float(exact.abs().max()))
    assert not low_product(0 * slope, vectors).any()


def test_a_rule_says_without_a_pair_that_it_charges() -> None:
    like = torch.zeros(())
    assert charges_earlier(get("unlikelihood"), like)
    assert not any(charges_earlier(rule, like) for rule in (MLE(), get("scalegrad"), get("unlikelihood", alpha=0)))
