"""Where the bytes of each tensor lie in a safetensors file: one can be replaced, the others copied unread."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decone.files.foreign import plain
from decone.files.safetensors import open_weights

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}  # bytes of a number, of what a delta or a table may hold


@dataclass(frozen=True)
class Place:
    """One tensor of a file.

    Attributes:
        shape: as the header tells.
        dtype: in the words of the header, "F32" and the like.
        begin: of its first byte in the file.
        end: behind its last byte.
    """

    shape: tuple[int, ...]
    dtype: str
    begin: int
    end: int

    @property
    def row(self) -> int:
        """Bytes of one row of a table."""
        return SIZES[self.dtype] * self.shape[1]


def places(path: Path) -> tuple[dict[str, str], dict[str, Place]]:
    """Reads the header of a safetensors file.

    Returns:
        Its metadata, and every tensor's place by name.

    Raises:
        ValueError: the file is missing, truncated or damaged; the library of the format has the first word on that.
    """
    open_weights(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        found = {name: _place(entry, 8 + length) for name, entry in header.items()}
        size = path.stat().st_size
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({plain(error)}); download it again") from None
    for name, place in found.items():
        if not 8 + length <= place.begin <= place.end <= size:
            raise ValueError(f"{path} is damaged ({plain(name)} lies outside it); download it again")
    return {str(key): str(value) for key, value in metadata.items()}, found


def _place(entry: dict[str, Any], start: int) -> Place:
    begin, end = entry["data_offsets"]
    return Place(tuple(map(int, entry["shape"])), str(entry["dtype"]), start + int(begin), start + int(end))
