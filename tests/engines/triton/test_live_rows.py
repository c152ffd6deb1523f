"""Positions lie in exactly one tile, sorted, and classes never share one; live columns against loops over the flags."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.engines.triton.live_rows import arrange_tiles, list_live_columns


@given(st.integers(1, 40), st.sampled_from([1, 4, 16]), st.booleans(), st.booleans(), st.integers(0, 5))
def test_every_position_lies_in_one_tile(N: int, rows: int, sort: bool, split: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    key = torch.rand(N, generator=draw) if sort else None
    rare = torch.rand(N, generator=draw) < 0.2 * seed if split else None
    position, filled, common = arrange_tiles(N, rows, key, rare)
    assert position.numel() % rows == 0
    assert position.numel() < N + rows + (rows if split else 0)
    assert sorted(position[filled].tolist()) == list(range(N))
    assert position[~filled].eq(N).all()
    classes = [position] if rare is None else [position[: common * rows], position[common * rows :]]
    for index, positions in enumerate(classes):
        positions = positions[positions < N]
        assert rare is None or rare[positions].eq(bool(index)).all()
        assert positions.equal(
            positions[key[positions].argsort(stable=True)] if key is not None else positions.sort().values
        )


@given(st.integers(1, 6), st.integers(1, 40), st.sampled_from([1, 4, 16]), st.integers(0, 9))
def test_every_live_column_is_listed_once(G: int, V: int, group: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    live = (torch.rand(G, V, generator=draw) < torch.rand((), generator=draw)).to(torch.int8)
    common = seed % (G + 1)
    result = list_live_columns(live, group, common)
    for tile, (columns, count) in enumerate(zip(result.of_tile, result.counts, strict=True)):
        assert columns[:count].tolist() == live[tile].nonzero().flatten().tolist()
    assert sorted(result.by_life.tolist()) == list(range(V))
    lives = live.sum(0)[result.by_life]
    assert (lives[:-1] >= lives[1:]).all()  # dead columns last, in groups that no program works on
    for k, group_columns in enumerate(result.by_life.split(group)):
        expected = live[:, group_columns].any(1).nonzero().flatten()
        assert result.tiles[k, : result.reach[k]].tolist() == expected.tolist()
        assert result.common[k] == (expected < common).sum()
    assert torch.equal(result.common, list_live_columns(live, group, torch.tensor(common)).common)
