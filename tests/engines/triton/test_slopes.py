"""Exponentials to gradients, in place: dead columns are not written, slopes of pairs are added where they belong."""

from dataclasses import replace

import pytest
import torch
from tests.engines.triton.cases import DEVICES
from tests.engines.triton.test_forward import FILLED, C, V, chunk_of

from decone.engines.triton.forward import Swept
from decone.engines.triton.slopes import to_slopes


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dense", [True, False])
def test_slopes(dense: bool, device: str) -> None:
    chunk = chunk_of(device, True)[0]
    draw = torch.Generator(device).manual_seed(0)
    entry, above = torch.rand(V, C, generator=draw, device=device), torch.randn(3, C, generator=draw, device=device)
    gain = torch.randn(C, generator=draw, device=device)
    live = (torch.rand(2, V, generator=draw, device=device) < 0.5).to(torch.int8)
    live[1, :16] = 0  # a whole tile
    lists = chunk.history
    assert lists is not None
    slope = torch.randn(C, lists.longest, generator=draw, device=device)
    wanted = entry * above.exp().repeat_interleave(16, 0)[:V] * gain
    for n in range(FILLED):
        for v in range(V):
            rank = int(lists.rank[lists.list_of[n], lists.slot[v]]) if lists.slot[v] >= 0 else V * C
            if rank < lists.length[n] and v != chunk.target[n]:
                wanted[v, n] = slope[n, rank]
    alive = torch.ones(V, C, dtype=torch.bool) if dense else live.bool().T.repeat_interleave(16, 1)
    alive = alive.to(device)
    wanted = torch.where(alive, wanted, entry)
    nothing = torch.zeros(0, C, device=device)
    swept = Swept(entry, None if dense else live, nothing, nothing, nothing.int(), None, None, None)
    sums = to_slopes(chunk, swept, above, gain, slope, chunk_of(device, True)[4].tile, True)
    torch.testing.assert_close(entry, wanted, rtol=1e-5, atol=1e-6)
    assert sums is not None
    torch.testing.assert_close(sums, torch.where(alive, wanted, 0.0).view(V, 2, 16).sum(2).T, rtol=1e-5, atol=1e-5)
    lifted, true = entry.clone(), torch.randn(V, C, generator=draw, device=device)
    swept = replace(swept, entry=true.clone())
    wanted = to_slopes(chunk, swept, above, gain, slope, chunk_of(device, True)[4].tile, True)
    plain = swept.entry
    swept = replace(swept, entry=true.clone())
    up = torch.tensor(8.0, device=device)
    sums = to_slopes(chunk, swept, above, gain, slope, chunk_of(device, True)[4].tile, True, up)
    assert torch.equal(sums, wanted)
    assert torch.equal(swept.entry, torch.where(alive, plain * 8, true))
    swept = replace(swept, entry=lifted)
    assert to_slopes(chunk, swept, above, gain, None, chunk_of(device, True)[4].tile, False) is None
