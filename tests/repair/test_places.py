"""The bytes of a tensor lie where the header says, or the file is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from decone.repair.places import places

FILE = Path("w.safetensors")


def test_bytes_lie_where_they_are_said_to() -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4, dtype=torch.int64)}
    save_file(tensors, FILE, metadata={"format": "pt"})
    metadata, found = places(FILE)
    content = FILE.read_bytes()
    assert metadata == {"format": "pt"}
    assert set(found) == {"a", "b"}
    for name, tensor in tensors.items():
        assert content[found[name].begin : found[name].end] == tensor.numpy().tobytes()
    assert (found["a"].shape, found["a"].dtype, found["a"].row) == ((2, 3), "F32", 12)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4000]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        [],
        "x",
    ],
)
def test_hostile_headers(entry: object) -> None:
    header = json.dumps({"a": entry}).encode()
    FILE.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match=r"damaged|truncated"):
        places(FILE)
