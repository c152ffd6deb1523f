"""Every target's own row, summed in one order."""

import pytest
import torch
from tests.engines.triton.cases import DEVICES

from decone.engines.triton.own import add_own


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("N", "V"), [(1, 1), (20, 7), (40, 1), (33, 50)])  # runs shorter and longer than a tile
def test_own(N: int, V: int, device: str) -> None:
    draw = torch.Generator(device).manual_seed(0)
    hidden, own = torch.randn(N, 20, generator=draw, device=device), torch.randn(N, generator=draw, device=device)
    target = torch.randint(V, (N,), generator=draw, device=device)
    table, bias = torch.ones(V, 20, device=device), torch.ones(V, device=device)
    add_own(hidden, own, target, table, bias)
    torch.testing.assert_close(table, 1 + torch.zeros_like(table).index_add(0, target, own[:, None] * hidden))
    torch.testing.assert_close(bias, 1 + torch.zeros_like(bias).index_add(0, target, own))
    only = torch.ones(V, device=device)
    add_own(hidden, own, target, None, only)
    assert torch.equal(only, bias)
    add_own(hidden, own, target, None, None)


@pytest.mark.parametrize("device", DEVICES)
def test_a_target_that_is_no_row_writes_nothing(device: str) -> None:
    room = torch.zeros(9, 20, device=device)
    bias = torch.zeros(9, device=device)
    target = torch.tensor([-1, 0, 1, 5, 2, -1], device=device)
    add_own(torch.ones(6, 20, device=device), torch.ones(6, device=device), target, room[2:7], bias[2:7])
    assert bias.tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert torch.equal(room, bias[:, None].expand(9, 20))
