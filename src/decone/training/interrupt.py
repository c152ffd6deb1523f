"""Ctrl-C as a wish: the loop ends its step, writes a checkpoint, and says how to go on.

Imports no torch: the command line catches these exceptions before it knows whether torch is needed.
"""

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Interrupted(Exception):  # noqa: N818  # the user's wish, no error
    """Training stopped at the user's wish after writing a checkpoint; `run` names the folder that resumes."""

    def __init__(self, run: Path, step: int) -> None:
        super().__init__(f"stopped after step {step}; resume with: decone train --resume {shlex.quote(str(run))}")
        self.run, self.step = run, step

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[Path, int]]:
        return Interrupted, (self.run, self.step)  # so that it survives the way home from a worker process


class Stopped(Exception):  # noqa: N818  # the user's wish, no error
    """The study was interrupted; every run has a checkpoint and the same command resumes."""


@contextmanager
def catch_interrupt() -> Iterator[threading.Event]:
    """Turns Ctrl-C into an event that the loop looks at between steps; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
