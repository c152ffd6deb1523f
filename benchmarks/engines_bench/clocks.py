"""Clocks: variants in turn, A B C A B C, so that a machine that slows down slows all of them."""

import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch

Step = Callable[[], None]
Name = TypeVar("Name")


class Lap(NamedTuple):
    """Seconds of one call: processor time (of the GPU, where there is one) and wall clock."""

    busy: float
    wall: float


def lap(step: Step, device: str) -> Lap:
    """Times one call."""
    if device == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        began = time.perf_counter()
        begin.record()
        step()
        end.record()
        torch.cuda.synchronize()
        return Lap(begin.elapsed_time(end) / 1e3, time.perf_counter() - began)
    began, spent = time.perf_counter(), time.process_time()
    step()
    busy, wall = time.process_time() - spent, time.perf_counter() - began
    return Lap(busy if torch.get_num_threads() == 1 else wall, wall)  # several threads add up


def clock(device: str) -> str:
    """What `Lap.busy` is."""
    return "GPU" if device == "cuda" else "processor" if torch.get_num_threads() == 1 else "wall"


def interleave(
    steps: dict[Name, Step],
    every: Callable[[Name], int],
    rounds: int,
    device: str,
    tell: Callable[[str], None],
) -> tuple[dict[Name, dict[int, Lap]], dict[Name, str]]:
    """Times steps in turn after a round that warms up.

    Args:
        steps: what is timed, by name.
        every: in which rounds a slow one runs: each, every third, and so on.
        rounds: how many are counted.
        device: "cpu" or "cuda".
        tell: hears of progress.

    Returns:
        Laps by name and round; and for each step that failed, why. The others went on.
    """
    laps: dict[Name, dict[int, Lap]] = {name: {} for name in steps}
    failed: dict[Name, str] = {}
    for turn in range(-1, rounds):
        for name, step in steps.items():
            if name in failed or (turn >= 0 and turn % every(name)):
                continue
            try:
                found = lap(step, device)
            except Exception as error:  # out of memory, or a kernel that gives up
                failed[name] = reason(error)
                if device == "cuda":
                    torch.cuda.empty_cache()
                continue
            if turn >= 0:
                laps[name][turn] = found
        tell(f"  round {turn + 1} of {rounds}" if turn >= 0 else "  warm")
    return {name: laps[name] for name in steps if name not in failed}, failed


def reason(error: Exception) -> str:
    """An error as one sentence."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else 'no message'}"
