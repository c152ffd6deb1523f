"""One sweep against the whole logits: sums, counts, live bits, exponentials and the logits of earlier targets."""

import pytest
import torch
from tests.engines.triton.cases import DEVICES, sample
from torch import Tensor

from decone.engines.contract import Readout, Shift
from decone.engines.triton.forward import Chunk, sweep
from decone.engines.triton.history import look_back
from decone.engines.triton.log_sum import log_sum
from decone.engines.triton.logits import Recipe
from decone.engines.triton.tiles import Tile

C, V, H, FILLED = 32, 41, 20, 27


def chunk_of(device: str, floored: bool) -> tuple[Chunk, Tensor, Tensor, Tensor, Recipe, Tensor]:
    """A chunk whose last places repeat the last position, its table and bias, and the logits it should see."""
    hidden, weight, bias, tokens = sample(FILLED, V, H, device=device)
    tokens = tokens.with_earlier(V)
    bias[[v for v in range(V) if v not in tokens.target]] -= 6.0
    recipe = Recipe(Tile(16, 16, 16), "ieee", Readout(1.2, 9.0), 0.8, Shift(0.5, -0.1))
    plain = recipe.readout(torch.nn.functional.linear(hidden, weight, bias))
    ruled = plain * 0.8 + torch.where(tokens.earlier_mask(), 0.5, -0.1)
    own, own_plain = (t.gather(1, tokens.target[:, None]).squeeze(1) for t in (ruled, plain))
    index = torch.arange(C, device=device).clamp(max=FILLED - 1)
    filled = torch.arange(C, device=device) < FILLED
    floor = torch.where(filled, (own - 1.0)[index], torch.inf) if floored else None
    history = look_back(tokens, V)
    history = history._replace(
        list_of=history.list_of[index], length=torch.where(filled, history.length[index], 0).int()
    )
    target = torch.where(filled, tokens.target[index], -1)
    kept = ruled if floor is None else ruled.masked_fill(ruled < floor[:FILLED, None], -torch.inf)
    return Chunk(hidden[index], target, own[index], own_plain[index], floor, history), weight, bias, plain, recipe, kept


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("floored", [True, False])
def test_a_sweep(floored: bool, device: str) -> None:
    chunk, weight, bias, plain, recipe, kept = chunk_of(device, floored)
    entry = torch.full((V, C), torch.nan, device=device)
    found = sweep(chunk, weight, bias, recipe, plain=True, charged=True, entry=entry)
    filled = chunk.target >= 0
    others = kept.scatter(1, chunk.target[:FILLED, None], -torch.inf)
    sums = log_sum(found.top, found.beyond, filled, chunk.own)
    lse, above = sums.value(), torch.where(filled, -sums.less(found.top), -torch.inf)
    whole = kept.scatter(1, chunk.target[:FILLED, None], chunk.own[:FILLED, None])
    torch.testing.assert_close(lse[:FILLED], whole.logsumexp(1), rtol=0, atol=2e-6)
    assert not lse[FILLED:].any()
    assert above[:, FILLED:].eq(-torch.inf).all()
    assert found.plain_top is not None
    assert found.plain_beyond is not None
    bare = log_sum(found.plain_top, found.plain_beyond, filled).value()
    torch.testing.assert_close(bare[:FILLED], plain.logsumexp(1), rtol=0, atol=2e-6)
    assert torch.equal(found.count.sum(0)[:FILLED], (others > -torch.inf).sum(1))
    if floored:
        assert found.live is not None
        assert found.live.size(0) == 2
        assert not found.live.all()
        assert found.live.any()
        tiles = (others > -torch.inf).split(16)
        assert torch.equal(found.live, torch.stack([tile.any(0) for tile in tiles]).to(torch.int8))
    else:
        assert found.live is None
    chance = entry * above.exp().repeat_interleave(16, 0)[:V]
    wanted = (others - lse[:FILLED, None]).exp() * (1 - (plain / 9.0).square())
    torch.testing.assert_close(chance[:, :FILLED].T, wanted, rtol=0, atol=1e-6)
    assert torch.equal(chance[:, :FILLED].T == 0, wanted == 0)
    assert not chance[:, FILLED:].any()
    lists = chunk.history
    assert lists is not None
    assert found.pair_logit is not None
    for n in range(FILLED):
        for v in range(V):
            rank = int(lists.rank[lists.list_of[n], lists.slot[v]]) if lists.slot[v] >= 0 else V * C
            if rank < lists.length[n] and v != chunk.target[n]:
                assert found.pair_logit[n, rank].item() == pytest.approx(kept[n, v].item(), abs=2e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_a_sweep_that_learns_nothing_writes_no_entry(device: str) -> None:
    chunk, weight, bias, _, recipe, _ = chunk_of(device, True)
    found = sweep(chunk, weight, bias, recipe, plain=False, charged=False, entry=None)
    assert found.entry is None
    assert found.pair_logit is None
    assert found.plain_top is None
