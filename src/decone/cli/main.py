"""`decone`: parses the command line, calls the package, prints the result.

Importing this room imports neither torch nor rich, so that help and mistakes in options are answered at once; each
command imports what it calls.
"""

import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from decone.cli import repair, scan, studies, train
from decone.cli.console import say
from decone.files.failure import WriteError, is_full
from decone.files.foreign import plain
from decone.training.interrupt import Interrupted, Stopped, exit_code, raise_on_termination

app = typer.Typer(
    name="decone",
    help="Find, cure and prove the cure of token-embedding degeneration in language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Exit 0 good, 1 a check failed or the disk did, 2 the input is wrong, 130, 143 or 129 stopped by Ctrl-C, SIGTERM or
    SIGHUP.
    """
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
        with raise_on_termination():
            try:
                command(**arguments)
                sys.stdout.flush()
            except (Interrupted, Stopped, KeyboardInterrupt) as error:
                _end(str(error) or "stopped; the same command resumes", exit_code(error))
            except BrokenPipeError:
                _end("", 141)  # what a shell reports for a reader that left
            except WriteError as error:
                _end(f"decone: {error}", 1)
            except ValueError as error:
                _end(f"decone: {' '.join(str(error).split())}", 2)
            except OSError as error:
                file = f"{plain(error.filename)}: " if error.filename else ""
                _end(f"decone: {file}{error.strerror or plain(error)}", 1 if is_full(error) else 2)
            except (MemoryError, RuntimeError) as error:
                if not (isinstance(error, MemoryError) or _SHORTAGE.search(str(error))):
                    raise
                reason = plain(str(error).strip().partition("\n")[0] or "none is left")
                _end(f"decone: not enough memory ({reason}); make batch, text or model smaller, or use --device", 1)

    return run


_SHORTAGE = re.compile("out of memory|not enough memory|can't allocate memory")  # torch has no class for all of these


def _end(sentence: str, code: int) -> NoReturn:
    """Says a sentence and ends; where it cannot be written, as after SIGHUP, the code alone speaks."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is sys.stderr and sentence:
                say(sentence)
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    raise typer.Exit(code) from None


COMMANDS: dict[str, Callable[..., None]] = {
    "compare": studies.compare,
    "train": train.train,
    "eval": train.evaluate,
    "scan": scan.scan,
    "counts": scan.counts,
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
