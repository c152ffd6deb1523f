"""The two products over live columns against the whole ones; dead entries hold NaN, so that reading one shows."""

import pytest
import torch
from tests.engines.triton.cases import DEVICES

from decone.engines.triton.backward import add_table_gradient, hidden_gradient
from decone.engines.triton.columns import compact
from decone.engines.triton.tiles import Tile

C, V, H = 48, 41, 20
TILE = Tile(16, 16, 16)


def problem(device: str) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator(device).manual_seed(0)
    entry, hidden, weight = (torch.randn(s, generator=draw, device=device) for s in ((V, C), (C, H), (V, H)))
    live = (torch.rand(3, V, generator=draw, device=device) < 0.4).to(torch.int8)
    live[1] = 0  # a tile that keeps nothing
    entry[~live.bool().T.repeat_interleave(16, 1)] = 0
    return entry, hidden, weight, live


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("split", [1, 3])
@pytest.mark.parametrize("dense", [True, False])
def test_the_gradient_of_hidden_states(dense: bool, split: int, device: str) -> None:
    entry, _, weight, live = problem(device)
    wanted = entry.T @ weight
    columns = None if dense else compact(live, 16, 3)
    if not dense:
        entry[~live.bool().T.repeat_interleave(16, 1)] = torch.nan
    found = hidden_gradient(entry, weight, columns, 16, split, TILE, "ieee")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("common", [None, 0, 1, 3])
@pytest.mark.parametrize("dense", [True, False])
def test_the_gradient_of_the_table(dense: bool, common: int | None, device: str) -> None:
    entry, hidden, _, live = problem(device)
    border = None if common is None else torch.tensor(common, device=device)
    factors = (
        None if common is None else (torch.linspace(0, 1, V, device=device), torch.linspace(2, 0, V, device=device))
    )
    wanted = torch.ones(V, H, device=device)  # added to, not overwritten
    for tile in range(3):
        part = entry[:, 16 * tile : 16 * tile + 16] @ hidden[16 * tile : 16 * tile + 16]
        wanted += part if factors is None or common is None else part * factors[int(tile >= common)][:, None]
    found = torch.ones(V, H, device=device)
    columns = None if dense else compact(live, 16, 3 if border is None else border)
    add_table_gradient(entry, hidden, columns, border, factors, found, 16, TILE, "ieee")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    if not dense:
        assert torch.equal(found == 1, wanted == 1)
        assert (found == 1).all(1).any()  # dead rows are not touched
