"""Live columns against loops over the flags."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.engines.triton.columns import compact


@given(st.integers(1, 6), st.integers(1, 40), st.sampled_from([1, 4, 16]), st.integers(0, 9))
def test_every_live_column_is_listed_once(G: int, V: int, group: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    live = (torch.rand(G, V, generator=draw) < torch.rand((), generator=draw)).to(torch.int8)
    common = seed % (G + 1)
    found = compact(live, group, common)
    for tile, (columns, count) in enumerate(zip(found.of_tile, found.counts, strict=True)):
        assert columns[:count].tolist() == live[tile].nonzero().flatten().tolist()
    assert sorted(found.by_life.tolist()) == list(range(V))
    lives = live.sum(0)[found.by_life]
    assert (lives[:-1] >= lives[1:]).all()  # dead columns last, in groups that no program works on
    for k, part in enumerate(found.by_life.split(group)):
        wanted = live[:, part].any(1).nonzero().flatten()
        assert found.tiles[k, : found.reach[k]].tolist() == wanted.tolist()
        assert found.common[k] == (wanted < common).sum()
    assert torch.equal(found.common, compact(live, group, torch.tensor(common)).common)
