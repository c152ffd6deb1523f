"""A cut table in one process: what is accepted, where ids lie, and how gradients come back."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from decone.engines.shard import Shard, rows_of, shard, shard_of


@pytest.fixture
def mesh() -> Iterator[Any]:
    from torch.distributed.device_mesh import init_device_mesh

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize(("low", "high"), [(0, 4), (3, 4), (2, 7), (7, 7)])
def test_ids_are_placed_by_the_offset_of_the_shard(low: int, high: int) -> None:
    ids = torch.tensor([3, 0, 6, 3, 2])
    is_local, row = Shard(None, 3, low, high, 4, 7).local_rows(ids)
    assert is_local.tolist() == [id in range(low, high) for id in ids.tolist()]
    assert row.tolist() == [id - low if id in range(low, high) else 0 for id in ids.tolist()]


def test_plain_shards_become_one_table_and_keep_their_gradient(mesh: Any) -> None:
    local = torch.randn(5, 2, requires_grad=True)
    table = shard(local, mesh)
    assert table.shape == (5, 2)
    assert torch.equal(rows_of(table), local)
    (3 * rows_of(table)).sum().backward()
    assert type(local.grad) is Tensor
    assert bool((local.grad == 3).all())
    found = shard_of(table, shard(torch.zeros(5), mesh))
    assert (found.low, found.high, found.most, found.vocabulary, found.ranks) == (0, 5, 5, 5, 1)


def test_what_is_cut_in_another_way_is_refused(mesh: Any) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate
    from torch.distributed.tensor import Shard as Along

    table, square = torch.randn(9, 4), init_device_mesh("cpu", (1, 1))
    with pytest.raises(ValueError, match=r"this weight is whole; .*shard\(local, mesh\), or use engine='chunked'"):
        shard_of(table, None)
    with pytest.raises(ValueError, match=r"make it one with shard\(local, mesh\)"):
        rows_of(table)
    for placements in (
        [Along(0), Along(0)],
        [Replicate(), Replicate()],
        [Partial(), Along(0)],
        [Replicate(), Along(1)],
    ):
        with pytest.raises(ValueError, match=r"Shard\(0\) over one mesh dimension .*; .*redistribute the weight"):
            shard_of(DTensor.from_local(table, square, placements), None)
    for placements in ([Replicate(), Along(0)], [Along(0), Replicate()]):
        assert shard_of(DTensor.from_local(table, square, placements), None).high == 9
    for bias in (torch.zeros(9), DTensor.from_local(torch.zeros(9), mesh, [Replicate()])):
        with pytest.raises(ValueError, match="the bias must be cut like the weight; make it with"):
            shard_of(shard(table, mesh), bias)
    with pytest.raises(ValueError, match=r"the mesh has 2 dimensions; .*mesh\[\"tp\"\]"):
        shard(table, square)
