"""Sizes of tiles: candidates that fit the precision, and the quickest of a few by trying them on the device at hand."""

import os
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import torch

from decone.engines.triton.triton_compat import interpreted


class Tile(NamedTuple):
    """Sizes of the work of one program of a kernel.

    Attributes:
        rows: positions (products with the table's columns: columns of the table), a power of two, >= 16.
        columns: rows of the table (products with the table: hidden units), a power of two, >= 16.
        depth: steps of the summed axis, a power of two, >= 16.
        warps: groups of 32 threads.
        stages: number of steps that are loaded from memory at a time.
    """

    rows: int
    columns: int
    depth: int
    warps: int = 4
    stages: int = 2

    def area(self) -> dict[str, int]:
        """Constants of a kernel that works on a tile of logits."""
        return {"ROWS": self.rows, "COLUMNS": self.columns}

    def options(self) -> dict[str, int | bool]:
        """Settings of a launch; fused multiply-add by name, because Triton's default is about to change."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


class Tiles(NamedTuple):
    """Candidates per kernel; all have the same number of rows, which is the grain of live columns.

    Attributes:
        logits: tiles of logits, columns >= rows.
        hidden: tiles of the gradient of hidden states.
        table: tiles of the gradient of the table, all with the same rows; their depth divides the rows of `logits`.
    """

    logits: Sequence[Tile]
    hidden: Sequence[Tile]
    table: Sequence[Tile]


# Products of float32 without TF32 run on ordinary cores and keep their tile in registers: it must be smaller.
_WIDE = Tiles(
    [Tile(64, 64, 32, 4, 2), Tile(64, 64, 32, 8, 2), Tile(64, 128, 16, 8, 3)],
    [Tile(64, 64, 32, 4, 2), Tile(64, 128, 16, 8, 2)],
    [Tile(64, 64, 32, 4, 2), Tile(64, 128, 16, 8, 2)],
)
_HALF = Tiles(
    [Tile(128, 128, 32, 4, 4), Tile(128, 128, 64, 8, 3), Tile(128, 256, 64, 8, 3), Tile(128, 256, 32, 8, 4)],
    [Tile(128, 128, 32, 4, 4), Tile(128, 128, 64, 8, 3), Tile(128, 256, 64, 8, 3)],
    [Tile(128, 128, 32, 4, 4), Tile(128, 128, 64, 8, 3), Tile(128, 256, 64, 8, 3)],
)
_TINY = Tiles([Tile(16, 16, 16)], [Tile(16, 16, 16)], [Tile(16, 16, 16)])


def candidates(dtype: torch.dtype) -> Tiles:
    """Tiles worth trying for inputs of this type; one of each, and small ones, in the interpreter."""
    if interpreted():
        return _TINY
    return _WIDE if dtype == torch.float32 else _HALF


FIXED = "DECONE_TRITON_TILES"
Candidate = TypeVar("Candidate")
_FASTEST: dict[Hashable, int] = {}


def quickest(
    key: Hashable,
    choices: Sequence[Candidate],
    run: Callable[[Candidate], object],
    reset: Callable[[], object] | None = None,
) -> Candidate:
    """The choice that runs fastest, found once per key and process.

    The environment variable DECONE_TRITON_TILES, a whole number from 0, takes the choice of that index (or the last)
    untried, for every kernel: sums then have the same order, and results the same bits, in every process.

    A choice that the device has no room for is passed over. Timing waits for the device, at the first call only.

    Args:
        key: all that the answer depends on: kernel, device, types, sizes.
        choices: at least one.
        run: launches the kernel; may be called many times.
        reset: called after the last time, where the kernel adds to something.

    Returns:
        One of the choices.

    Raises:
        ValueError: DECONE_TRITON_TILES is no such number.
        RuntimeError: none of them runs; the last failure is its cause.
    """
    if len(choices) == 1:
        return choices[0]
    fixed = os.environ.get(FIXED)
    if fixed is not None:
        if not fixed.isdecimal():
            raise ValueError(f"{FIXED} must be 0 or a larger whole number, got {fixed!r}; unset it to try all tiles")
        return choices[min(int(fixed), len(choices) - 1)]
    if key not in _FASTEST:
        times = [_time(run, choice) for choice in choices]
        best = min(range(len(choices)), key=lambda i: times[i][0])
        if times[best][1] is not None:
            raise RuntimeError(f"no tile of the triton engine fits this device, tried {choices}") from times[best][1]
        _FASTEST[key] = best
        if reset is not None:
            reset()
    return choices[_FASTEST[key]]


def _time(run: Callable[[Candidate], object], choice: Candidate, rounds: int = 3) -> tuple[float, Exception | None]:
    """Milliseconds of one launch, the least of a few; infinite where the kernel does not fit."""
    least = float("inf")
    try:
        run(choice)  # compiles
        for _ in range(rounds):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            run(choice)
            end.record()
            end.synchronize()
            least = min(least, begin.elapsed_time(end))
    except _no_room() as error:
        return float("inf"), error
    return least, None


@cache
def _no_room() -> tuple[type[Exception], ...]:
    from triton.runtime.errors import OutOfResources

    return (OutOfResources,)
