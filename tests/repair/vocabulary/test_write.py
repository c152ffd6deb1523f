"""Rows in a new order, in pieces of any size, beside plain indexing."""

from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.repair.checkpoints import cone

from decone.repair.vocabulary.tensors import VocabTensor
from decone.repair.vocabulary.write import ResizedTensor, RowLayout, blocks_of_rows, same_rows, write_rows

V, H = 23, 3


def holding(content: bytes) -> BinaryIO:
    """A file with this in it."""
    path = Path(f"{len(list(Path().iterdir()))}.bin")
    path.write_bytes(content)
    return path.open("r+b")


@st.composite
def layouts(draw: st.DrawFn) -> RowLayout:
    """Some of the old rows, rising, with made ones anywhere between them."""
    kept = draw(st.lists(st.booleans(), min_size=V, max_size=V))
    origin: list[int] = []
    for row, stays in enumerate(kept):
        origin += [-1] * draw(st.integers(0, 2)) + ([row] if stays else [])
    return RowLayout(torch.tensor([*origin, *[-1] * draw(st.integers(0 if origin else 1, 9))], dtype=torch.int64))


@given(layouts(), st.integers(1, 300), st.sampled_from([torch.float32, torch.bfloat16]))
def test_as_plain_indexing(layout: RowLayout, step: int, dtype: torch.dtype) -> None:
    table, made = cone(V, H, dtype), cone(len(layout.fresh), H, dtype, seed=1)
    wanted = torch.empty(layout.rows, H, dtype=dtype)
    wanted[layout.origin >= 0] = table[layout.origin[layout.origin >= 0]]
    wanted[layout.fresh] = made
    tensor = VocabTensor("input", ("w",), (V, H), {torch.float32: "F32", torch.bfloat16: "BF16"}[dtype])
    resized = ResizedTensor(tensor, made)
    content = table.view(torch.uint8).numpy().tobytes()
    with holding(b"before" + content) as old, holding(b"") as new:
        digest = write_rows(old, 6, new, resized, layout, step)
        new.seek(0)
        assert new.read() == wanted.view(torch.uint8).numpy().tobytes()
        assert digest == sha256(wanted.view(torch.uint8).numpy().tobytes()).hexdigest()
        assert same_rows(old, 6, new, 0, resized, layout, step)
        new.seek(-1, 2)
        last = new.read(1)[0]
        new.seek(-1, 2)
        new.write(bytes([last ^ 1]))
        assert not same_rows(old, 6, new, 0, resized, layout, step)
    spans = list(blocks_of_rows(layout, max(1, step // resized.width)))
    assert [place for new_rows, _ in spans for place in range(new_rows.start, new_rows.stop)] == list(
        range(layout.rows)
    )
    assert all(max(0, span.stop - span.start) <= max(1, step // resized.width) for pair in spans for span in pair)


def test_a_file_that_ends_early() -> None:
    resized = ResizedTensor(VocabTensor("bias", ("b",), (1, V), "F32"), torch.zeros(0, 1))
    with holding(bytes(20)) as old, holding(b"") as new, pytest.raises(ValueError, match="became shorter"):
        write_rows(old, 0, new, resized, RowLayout(torch.arange(V)), 64)
