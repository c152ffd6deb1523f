"""Tables in memory, and what a located model says of its output."""

import torch

from decone.models import tables
from decone.models.tables import MemoryTable, ModelTables, Table, blocks


def test_blocks_are_all_rows_in_order(monkeypatch: object) -> None:
    tensor = torch.randn(11, 4)
    table = MemoryTable("w", tensor)
    assert isinstance(table, Table)
    assert (table.shape, table.dtype) == ((11, 4), torch.float32)
    monkeypatch.setattr(tables, "BLOCK", 12)  # type: ignore[attr-defined]
    starts, parts = zip(*blocks(table), strict=True)
    assert starts == (0, 3, 6, 9)
    assert torch.equal(torch.cat(parts), tensor)


def test_a_row_wider_than_a_block_is_read_alone(monkeypatch: object) -> None:
    monkeypatch.setattr(tables, "BLOCK", 2)  # type: ignore[attr-defined]
    assert [len(block) for _, block in blocks(MemoryTable("w", torch.randn(3, 4)))] == [1, 1, 1]


def test_the_output_is_the_head_where_there_is_one() -> None:
    one, other = MemoryTable("a", torch.eye(2)), MemoryTable("b", torch.eye(2))
    assert ModelTables("m", "gpt2", "causal", one, tied=True).output is one
    assert ModelTables("m", "gpt2", "causal", one, other).output is other
