"""One chunk on a single rank: which rows the products take, and entries that must not get lost on the way."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, distributed

from decone.engines.chunk_sharded import ShardInputs, ShardLosses, accumulate_shard, scale_to_float16
from decone.engines.contract import PLAIN, Tokens
from decone.engines.shard import Shard
from decone.engines.sweep import SweepGradients
from decone.objectives import Objective, Threshold


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def run(rule: Objective, hidden: Tensor, table: Tensor, target: Tensor) -> tuple[ShardLosses, SweepGradients]:
    N, V = len(hidden), len(table)
    shard = Shard(distributed.group.WORLD, 1, 0, V, V, V)
    tokens = Tokens(target, target * 0, torch.arange(N))
    inputs = ShardInputs(hidden, table, None, tokens, rule, None, PLAIN, shard, has_floor=True, has_charge=False)
    losses = ShardLosses(torch.zeros(N), torch.zeros(N), None, None, None, torch.zeros(N))
    gradients = SweepGradients(torch.zeros_like(hidden), torch.zeros_like(table), None, torch.zeros(N))
    accumulate_shard(inputs, slice(0, N), torch.ones(N), None, losses, gradients)
    return losses, gradients


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0, 2.0, 4.0, 100.0])
def test_products_take_the_rows_that_any_position_keeps(margin: float) -> None:
    table, target = torch.randn(40, 8), torch.arange(6)
    hidden = 2 * table[target] + torch.randn(6, 8) / 4
    hidden *= 12 / (hidden * table[target]).sum(1, keepdim=True)  # as positions that are neighbours in the order
    logits = hidden @ table.T
    kept = logits >= logits.gather(1, target[:, None]) - margin
    live = int(kept.any(0).sum())
    losses, gradients = run(Threshold(margin), hidden, table, target)
    assert losses.support is not None
    assert gradients.table is not None
    assert gradients.hidden is not None
    assert losses.support.tolist() == kept.sum(1).tolist()
    assert losses.touched == 6 * (live if live <= 28 else 40)
    dz = logits.masked_fill(~kept, -math.inf).softmax(1) - torch.nn.functional.one_hot(target, 40)
    torch.testing.assert_close(gradients.table, dz.T @ hidden)
    torch.testing.assert_close(gradients.hidden, dz @ table)
    assert torch.equal(gradients.table.any(1), kept.any(0) & dz.any(0))


class Above(Objective):
    def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor:
        return target_logit + 100


def test_a_target_below_the_floor_stays_and_its_row_is_found() -> None:
    table = torch.randn(40, 8)
    hidden, target = torch.randn(6, 8), torch.tensor([39, 0, 0, 7, 7, 20])
    losses, gradients = run(Above(), hidden, table, target)
    assert losses.support is not None
    assert gradients.table is not None
    assert losses.support.tolist() == [1.0] * 6
    assert losses.touched == 6 * 4
    assert not losses.nll.any()
    assert not gradients.table.any()


def test_broken_logits_are_not_dropped_in_silence() -> None:
    table, target = torch.randn(40, 8), torch.arange(6)
    hidden = 9 * table[target]
    table[30] = math.nan
    losses, _ = run(Threshold(1.0), hidden, table, target)
    assert losses.nll.isnan().all()


@pytest.mark.parametrize("largest", [1e-20, 3e-6, 1.0, 65536.0, 1e7])
def test_small_slopes_reach_float16(largest: float) -> None:
    slopes = largest * torch.tensor([[-1.0, 0.3, 1e-4], [0.0, 1e-8, -3e-9]])
    low, inverse = scale_to_float16(slopes)
    assert low.dtype == torch.float16
    assert inverse.log2() == inverse.log2().round()
    torch.testing.assert_close(low.float() * inverse, slopes, rtol=1e-3, atol=4e-12 * largest)
    assert scale_to_float16(slopes[:0])[0].shape == (0, 3)
    assert (scale_to_float16(slopes + math.nan)[0].float()).isnan().all(), "what is broken stays to be seen"
