"""Help and mistakes in options are answered without torch, whose import takes seconds."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from decone.cli import console, main
from decone.cli.scan import METRICS
from decone.diagnosis.checks import CHECKS, check_names
from decone.repair.vocabulary.initialisations import DEFINITIONS, INITIALISATIONS
from decone.repair.vocabulary.spelling import Match, Special

HEAVY = ("torch", "transformers", "numpy", "safetensors", "rich", "plotly")
RUN = f"""
import sys
from decone.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("modules:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""
COMMANDS = [[name] for name in main.COMMANDS] + [
    ["repair", name] for name in ("directions", "definitions", "rows", "show")
]
HELP = [[], ["repair"], *COMMANDS]
MISTAKES = [
    ["tarin"],
    ["train", "--otu", "x"],
    ["eval"],
    ["eval", "model"],
    ["compare", "--jobs", "-1"],
    ["compare", "--steps", "many"],
    ["grow", "model", "a,b", "--match", "sometimes"],
    ["repair", "directions", "model", "--centre", "middle"],
    ["repair", "mend"],
]


def imported(*arguments: str) -> tuple[int, list[str]]:
    process = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True)
    last = process.stderr.splitlines()[-1]
    assert last.startswith("modules:"), process.stderr
    return process.returncode, last.split()[1:]


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    assert imported(*command, "--help") == (0, [])


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_a_mistake_in_options_imports_nothing_heavy(arguments: list[str]) -> None:
    assert imported(*arguments) == (2, [])


def test_the_package_alone_imports_nothing_heavy() -> None:
    code = f"import sys, decone; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_every_module_of_the_room_is_quick() -> None:
    names = [f"decone.cli.{path.stem}" for path in Path(inspect.getfile(main)).parent.glob("[!_]*.py")]
    code = f"import sys, {', '.join(sorted(names))}; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("copy", "source"),
    [
        (console.CHECKS, tuple(CHECKS)),
        (tuple(sorted((*console.CHECKS, *METRICS))), tuple(sorted(check_names()))),
        (console.INITIALISATIONS, (*INITIALISATIONS, DEFINITIONS)),
        (get_args(console.Match), get_args(Match)),
        (get_args(console.Special), get_args(Special)),
    ],
)
def test_choices_are_those_of_their_rooms(copy: tuple[Any, ...], source: tuple[Any, ...]) -> None:
    assert copy == source
