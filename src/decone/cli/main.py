"""`decone`: finds, cures and proves the cure of token-embedding degeneration."""

import os
import sys

import click
import typer

from decone.cli import compare, doctor, eval, methods, report, reproduce, train
from decone.cli.console import say
from decone.studies.pool import Stopped
from decone.training.loop import Interrupted

app = typer.Typer(
    name="decone",
    help="Find, cure and prove the cure of token-embedding degeneration in language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for room in (compare, train, eval, reproduce, report, methods, doctor):
    app.command(name=room.__name__.rpartition(".")[2])(room.command)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; exit 0 good, 1 a check failed, 2 the input is wrong, 130 interrupted."""
    try:
        code = app(arguments, standalone_mode=False)
    except click.exceptions.Abort:
        code = _interrupted("stopped")
    except click.ClickException as error:
        error.show(sys.stderr)
        code = error.exit_code
    except (Interrupted, Stopped, KeyboardInterrupt) as error:
        code = _interrupted(str(error) or "stopped; the same command resumes")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141  # what a shell reports for a reader that left
    except (ValueError, OSError) as error:
        say(f"decone: {' '.join(str(error).split())}")
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _interrupted(message: str) -> int:
    say(message)
    return 130
