"""Positions keep their place in exactly one tile, sorted, and classes never share one."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.engines.triton.order import arrange


@given(st.integers(1, 40), st.sampled_from([1, 4, 16]), st.booleans(), st.booleans(), st.integers(0, 5))
def test_every_position_has_one_place(N: int, rows: int, sort: bool, split: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    key = torch.rand(N, generator=draw) if sort else None
    rare = torch.rand(N, generator=draw) < 0.2 * seed if split else None
    position, filled, common = arrange(N, rows, key, rare)
    assert position.numel() % rows == 0
    assert position.numel() < N + rows + (rows if split else 0)
    assert sorted(position[filled].tolist()) == list(range(N))
    assert position[~filled].eq(N).all()
    classes = [position] if rare is None else [position[: common * rows], position[common * rows :]]
    for index, part in enumerate(classes):
        part = part[part < N]
        assert rare is None or rare[part].eq(bool(index)).all()
        assert part.equal(part[key[part].argsort(stable=True)] if key is not None else part.sort().values)
