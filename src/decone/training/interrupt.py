"""Ctrl-C, SIGTERM and SIGHUP as a wish: the loop ends its step, writes a checkpoint, and says how to go on.

A signal that is ignored from the start, as SIGHUP under nohup, stays ignored. Imports no torch: the command line
catches these exceptions before it knows whether torch is needed.
"""

import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

TERMINATIONS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
SIGNALS = (signal.SIGINT, *TERMINATIONS)

Handler = Callable[[int, FrameType | None], Any]


class Interrupted(Exception):  # noqa: N818  # the user's wish, no error
    """Training stopped at the user's wish after writing a checkpoint; `run` names the folder that resumes."""

    def __init__(self, run: Path, step: int, number: int = signal.SIGINT) -> None:
        super().__init__(f"stopped after step {step}; resume with: decone train --resume {shlex.quote(str(run))}")
        self.run, self.step, self.number = run, step, number

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[Path, int, int]]:
        return Interrupted, (self.run, self.step, self.number)  # so that it survives the way home from a worker process


class Stopped(Exception):  # noqa: N818  # the user's wish, no error
    """The study was interrupted by a signal; every run has a checkpoint and the same command resumes."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__("stopped; the same command resumes")
        self.number = number


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised where Ctrl-C raises KeyboardInterrupt: whatever serves the latter serves all."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_code(error: BaseException) -> int:
    """Exit code of a process that a signal stopped, as shells have it: 130 for Ctrl-C, 143 SIGTERM, 129 SIGHUP."""
    return 128 + signal_number(error)


def signal_number(error: BaseException) -> int:
    """Number of the signal behind an exception; that of Ctrl-C where it does not say."""
    return int(getattr(error, "number", signal.SIGINT))


class StopEvent(threading.Event):
    """An event that says which signal set it."""

    number: int = signal.SIGINT


_terminating = False  # SIGTERM or SIGHUP came; a closing terminal sends the latter twice


@contextmanager
def catch_interrupt() -> Iterator[StopEvent]:
    """Turns a signal into an event that the loop looks at between steps; a second Ctrl-C stops at once."""
    event = StopEvent()

    def note(number: int, frame: FrameType | None) -> None:
        global _terminating
        if not event.is_set():
            event.number = number
        event.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT])
        else:
            _terminating = True

    with handled(SIGNALS, note) as before:
        yield event


@contextmanager
def raise_on_termination() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP raise `Terminated` while the block runs; the first of them only."""
    global _terminating
    if any(signal.getsignal(number) is _raise for number in TERMINATIONS):  # the command line has done it
        yield
        return
    _terminating = False
    with handled(TERMINATIONS, _raise):
        yield


def _raise(number: int, frame: FrameType | None) -> None:
    global _terminating
    if not _terminating:
        _terminating = True
        raise Terminated(number)


@contextmanager
def handled(numbers: Sequence[int], handler: Handler) -> Iterator[dict[int, Any]]:
    """Handles signals while the block runs, in the main thread, without those that are ignored.

    Returns:
        Handlers from before, by signal; empty in another thread.
    """
    before = dict[int, Any]()
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler) or signal.SIG_DFL
    try:
        yield before
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
