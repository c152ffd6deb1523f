"""`decone`: finds, cures and proves the cure of token-embedding degeneration."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from decone import __version__
from decone.cli import compare, doctor, eval, grow, lexicon, methods, repair, report, reproduce, scan, train, trim
from decone.cli.console import out, say
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


def tell_version(wanted: bool) -> bool:
    """Prints the version and ends."""
    if wanted:
        out.print(f"decone {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=tell_version, is_eager=True)
    ] = False,
) -> None:
    """Find, cure and prove the cure of token-embedding degeneration in language models."""


def answering(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose outcome is an exit code and one sentence instead of an exception."""

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


for room in (compare, train, eval, scan, grow, trim, lexicon, reproduce, report, methods, doctor):
    app.command(name=room.__name__.rpartition(".")[2])(answering(room.command))
app.add_typer(repair.group(answering), name="repair")
