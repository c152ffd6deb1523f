"""`decone`: parses the command line, calls the package, prints the result.

Importing this room imports neither torch nor rich, so that help and mistakes in options are answered at once; each
command imports what it calls.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from decone.cli import repair, scan, studies, train
from decone.cli.console import say
from decone.training.interrupt import Interrupted, Stopped

app = typer.Typer(
    name="decone",
    help="Find, cure and prove the cure of token-embedding degeneration in language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; exit 0 good, 1 a check failed, 2 the input is wrong, 130 interrupted."""
    app(arguments)  # wrong options are answered by typer itself, with the same exit code 2


@app.callback()
def options(
    version: train.Version = False,
) -> None:
    """Find, cure and prove the cure of token-embedding degeneration in language models."""


def answering(command: Callable[..., None]) -> Callable[..., None]:
    """Wraps a command so that its outcome is an exit code and one sentence instead of an exception."""

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        try:
            command(**arguments)
            sys.stdout.flush()
        except (Interrupted, Stopped, KeyboardInterrupt) as error:
            say(str(error) or "stopped; the same command resumes")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None  # what a shell reports for a reader that left
        except (ValueError, OSError) as error:
            say(f"decone: {' '.join(str(error).split())}")
            raise typer.Exit(2) from None

    return run


COMMANDS: dict[str, Callable[..., None]] = {
    "compare": studies.compare,
    "train": train.train,
    "eval": train.evaluate,
    "scan": scan.scan,
    "grow": repair.grow,
    "trim": repair.trim,
    "lexicon": repair.lexicon,
    "reproduce": studies.reproduce,
    "report": studies.report,
    "methods": train.methods,
    "doctor": train.doctor,
}
for name, command in COMMANDS.items():
    app.command(name=name)(answering(command))
app.add_typer(repair.group(answering), name="repair")
