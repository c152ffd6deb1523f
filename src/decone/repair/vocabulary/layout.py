"""The rows of a resized tensor: which old one stands where, written and read back a few at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from decone.files.foreign import plain
from decone.repair.places import SIZES
from decone.repair.vocabulary.by_token import ByToken


@dataclass(frozen=True)
class Layout:
    """Which old row stands in each new one.

    Attributes:
        origin: the old row of every new one, -1 for one that is made; the others strictly rising, [N].
    """

    origin: Int64[Tensor, " N"]

    @property
    def rows(self) -> int:
        """N, of the new tables."""
        return len(self.origin)

    @property
    def made(self) -> Int64[Tensor, " M"]:
        """The new rows that are made."""
        return (self.origin < 0).nonzero().squeeze(1)


@dataclass(frozen=True)
class Resized:
    """A tensor and what goes into those of its rows that are made.

    Attributes:
        tensor: the table or bias.
        made: one row per made row of the layout, in the dtype of the tensor; a bias has width 1.
    """

    tensor: ByToken
    made: Float[Tensor, "M H"]

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return self.tensor.width * SIZES[self.tensor.dtype]

    @property
    def content(self) -> UInt8[np.ndarray, "n B"]:
        """The made rows as bytes."""
        return self.made.contiguous().view(torch.uint8).numpy().reshape(len(self.made), self.width)


def pieces(layout: Layout, height: int) -> Iterator[tuple[slice, slice]]:
    """The new rows some at a time, such that the old ones they come from span no more than `height` either.

    Returns:
        New rows, and the old rows among which theirs are.

    Example:
        >>> found = pieces(Layout(torch.tensor([0, 1, 50, -1])), height=10)
        >>> [(new.start, new.stop, old.start, old.stop) for new, old in found]
        [(0, 2, 0, 2), (2, 4, 50, 51)]
    """
    origin = layout.origin.numpy()
    rising = np.maximum.accumulate(origin)
    start = 0
    while start < len(origin):
        known = origin[start : start + height]
        known = known[known >= 0]
        stop = min(start + height, len(origin))
        if len(known):
            stop = min(stop, int(np.searchsorted(rising, known[0] + height)))
            known = known[known <= rising[stop - 1]]
            yield slice(start, stop), slice(int(known[0]), int(known[-1]) + 1)
        else:
            yield slice(start, stop), slice(0, 0)
        start = stop


def write_rows(old: BinaryIO, begin: int, new: BinaryIO, part: Resized, layout: Layout, step: int) -> str:
    """Writes the rows of a resized tensor, old ones copied from another file.

    Args:
        old: the file with the old rows.
        begin: of their first byte in it.
        new: the file to write to, from where it stands.
        part: the tensor.
        layout: of its rows.
        step: bytes held in memory.

    Returns:
        SHA-256 of what was written.

    Raises:
        ValueError: the old file ends before.
    """
    digest, made, done = sha256(), part.content, 0
    for chosen, source in pieces(layout, max(1, step // part.width)):
        origin = layout.origin[chosen].numpy()
        fresh = origin < 0
        block = np.empty((len(origin), part.width), dtype=np.uint8)
        block[~fresh] = _read(old, begin, part.width, source)[origin[~fresh] - source.start]
        block[fresh] = made[done : done + int(fresh.sum())]
        done += int(fresh.sum())
        content = block.tobytes()
        digest.update(content)
        new.write(content)
    return digest.hexdigest()


def same_rows(old: BinaryIO, begin: int, new: BinaryIO, start: int, part: Resized, layout: Layout, step: int) -> bool:
    """Whether the rows of a resized tensor are the old ones byte for byte, and the made ones as they were made.

    Args:
        old: the file with the old rows.
        begin: of their first byte in it.
        new: the file that was written.
        start: of the first byte of the new rows in it.
        part: the tensor.
        layout: of its rows.
        step: bytes held in memory.
    """
    made, done = part.content, 0
    for chosen, source in pieces(layout, max(1, step // part.width)):
        origin = layout.origin[chosen].numpy()
        fresh = origin < 0
        written = _read(new, start, part.width, chosen)
        kept = _read(old, begin, part.width, source)[origin[~fresh] - source.start]
        wanted = made[done : done + int(fresh.sum())]
        done += len(wanted)
        if not (np.array_equal(written[~fresh], kept) and np.array_equal(written[fresh], wanted)):
            return False
    return True


def _read(file: BinaryIO, begin: int, width: int, rows: slice) -> UInt8[np.ndarray, "n B"]:
    size = (rows.stop - rows.start) * width
    file.seek(begin + rows.start * width)
    content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{plain(file.name)} became shorter while it was read; start again")
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, width)
