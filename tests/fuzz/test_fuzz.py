"""Mutated input of every kind through every command: one sentence, in bounds, and nothing else is touched."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(first: int, count: int) -> subprocess.CompletedProcess[str]:
    """Runs cases in a process of its own, which forks each of them and has no hooks of pytest."""
    command = [sys.executable, "-m", "tests.fuzz.cases", "--first", str(first), "--count", str(count)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")
@pytest.mark.parametrize("first", range(0, 10_000, 1000))
def test_a_thousand_mutated_inputs(first: int) -> None:
    pytest.importorskip("transformers")
    process = run(first, 1000)
    assert process.returncode == 0, process.stdout[-20_000:] + process.stderr[-2000:]
