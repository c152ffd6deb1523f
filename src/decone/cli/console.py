"""What commands print: results on stdout, everything else on stderr."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from decone.studies.pool import Piece

WIDTH = 120  # columns of a file or pipe; a terminal, or COLUMNS, says its own


class Stream(Console):
    """A console that leaves it to the caller what a reader that left means."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


out = Stream(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH)
err = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Writes one JSON document to stdout; NaN and infinity become null, for strict readers."""
    sys.stdout.write(json.dumps(_strict(value), indent=1) + "\n")


def say(text: str) -> None:
    """One plain line on stderr; markup in it is shown, not obeyed."""
    err.print(escape(text), soft_wrap=True)


class Watcher:
    """A progress bar per run and one over all of them."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.tasks = progress, dict[str, TaskID]()
        self.all = progress.add_task("all runs", total=total)
        self.steps = dict[str, int]()

    def watch(self, job: Piece, step: int) -> None:
        """Shows how far a run is."""
        if step and job.name not in self.tasks:
            self.tasks[job.name] = self.progress.add_task(escape(job.name), total=job.steps)
        if job.name in self.tasks:
            self.progress.update(self.tasks[job.name], completed=step)
        self._sum(job, step)

    def done(self, job: Piece, step: int) -> None:
        """Takes a finished run's bar away."""
        if job.name in self.tasks:
            self.progress.remove_task(self.tasks.pop(job.name))
        self._sum(job, step)

    def _sum(self, job: Piece, step: int) -> None:
        self.steps[job.name] = step
        self.progress.update(self.all, completed=sum(self.steps.values()))


@contextmanager
def bars(quiet: bool) -> Iterator[Progress]:
    """A progress display on stderr that leaves nothing behind; none where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as progress:
        yield progress


@contextmanager
def stages(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress display of work in stages, each told by its name, how much is done, and of how much."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as progress:
        task = progress.add_task("starting", total=None)

        def tell(stage: str, done: int, total: int) -> None:
            progress.update(task, description=escape(stage), completed=done, total=total if total > 1 else None)

        yield tell


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
