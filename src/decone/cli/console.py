"""Shared by all commands: options that mean the same in each, and printing.

Choices are literals, so that help needs no torch. Results go to stdout, everything else to stderr; rich is
imported when something is printed.
"""

import functools
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

# Copies of what the rooms define; tests/cli/test_quick.py compares them with the source of truth.
CHECKS = (
    *("cone", "rare-cone", "first-direction", "undertrained", "unreachable", "beyond", "chat", "identical", "zero"),
    *("non-finite", "padded", "repetition", "perplexity"),
)
INITIALISATIONS = ("pieces", "mean", "sample", "neighbours", "definitions")
Match = Literal["word", "anywhere"]
Special = Literal["marks", "all", "none"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
OptionalDevice = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=0, help="Runs at once; 0 is one per core.")]
Seeds = Annotated[str, typer.Option("--seeds", help="A number of seeds, or the seeds themselves: 3, or 1337,1,2.")]
Counts = Annotated[
    Path | None, typer.Option(help="Token frequencies, of decone counts: lines of id or token, tab, count.")
]
Embedding = Annotated[str | None, typer.Option(help="Name of the input table in the file.")]
Head = Annotated[str | None, typer.Option(help="Name of the output table in the file.")]
NewFolder = Annotated[Path | None, typer.Option("--out", "-o", help="The new folder; it must not exist.")]
LinkFiles = Annotated[bool, typer.Option("--link", help="Link other files instead of copying them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, write nothing.")]
Leave = Annotated[
    list[str] | None,
    typer.Option(help="A tensor or a file that would be refused and has nothing to do with tokens; may be repeated."),
]


if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

    from decone.document import Document, DocumentModel
    from decone.files import settings

WIDTH = 120  # columns of a file or pipe; a terminal, or COLUMNS, says its own


@functools.cache
def stdout() -> "Console":
    """Returns the console of results; it leaves it to the caller what a closed pipe means."""
    from rich.console import Console

    class Stream(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Stream(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH)


@functools.cache
def stderr() -> "Console":
    """Returns the console of messages and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def write(renderable: "RenderableType", *, soft_wrap: bool = False) -> None:
    """Writes something that rich can render to stdout."""
    stdout().print(renderable, soft_wrap=soft_wrap)


def print_result(result: "DocumentModel", as_json: bool, document: "Document | None" = None) -> None:
    """Writes a result to stdout: as JSON, or its document, or another one, for people."""
    if as_json:
        print_json(result.to_dict())
    else:
        write_document(document or result.to_document())


def write_document(document: "Document") -> None:
    """Writes a document to stdout."""
    from decone.document import terminal

    write(terminal.render(document))


def print_json(value: Any) -> None:
    """Writes one JSON document to stdout; NaN and infinity become null, for strict readers."""
    sys.stdout.write(json.dumps(_strict(value), indent=1) + "\n")


def say(text: str) -> None:
    """Writes one plain line to stderr; markup in it is not read."""
    from rich.markup import escape

    stderr().print(escape(text), soft_wrap=True)


class Watcher:
    """A progress bar per run and one over all of them."""

    ALL = "all runs"

    def __init__(self, progress: "Progress") -> None:
        self.progress, self.tasks = progress, dict[str, "TaskID"]()

    def show(self, name: str, step: int, steps: int) -> None:
        """Shows the step that a run, or all of them, has reached; the bar of a finished run goes."""
        from rich.markup import escape

        if name != self.ALL and step >= steps:
            if name in self.tasks:
                self.progress.remove_task(self.tasks.pop(name))
            return
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(escape(name), total=steps)
        self.progress.update(self.tasks[name], completed=step)


@contextmanager
def bars(quiet: bool) -> Iterator["Progress"]:
    """Opens a progress display on stderr that leaves nothing behind; none where stderr is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr(), transient=True, disable=quiet or not stderr().is_terminal) as progress:
        yield progress


@contextmanager
def stages(quiet: bool) -> Iterator["settings.Progress"]:
    """Opens a progress display of work in stages, called with the name of the stage, the amount done and the total."""
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=quiet or not stderr().is_terminal) as progress:
        task = progress.add_task("starting", total=None)

        def update(stage: str, done: int, total: int) -> None:
            progress.update(task, description=escape(stage), completed=done, total=total if total > 1 else None)

        yield update


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
