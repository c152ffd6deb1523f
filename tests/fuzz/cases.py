"""One mutated input after another, each in a process of its own that is watched from outside.

A case is good when its command ends with an exit code of 0, 1 or 2 and, if not 0, one sentence that decone itself
raised; in ten seconds of processor time and a gibibyte; and has changed nothing but what it may write.

    python -m tests.fuzz.cases --first 0 --count 10000      # from the root of the repository
"""

import argparse
import json
import os
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutations import mutate_file, mutate_word
from tests.fuzz.world import DOORS, Door, make

import decone
from decone.cli import main
from decone.studies import compare

SECONDS, PATIENCE = 10, 120  # of the processor, and on the clock of a busy machine
MEMORY = 1 << 30  # bytes beyond those of the parent
MESSAGE = 1000  # characters of a sentence
PACKAGE = str(Path(decone.__file__).parent)


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        number: seed of the case.
        command: as run.
        mutation: what was changed.
        code: exit code, None where the process was killed.
        faults: why it is no good; empty if it is.
        seconds: on the clock.
        bytes: memory beyond the parent's.
    """

    number: int
    command: str
    mutation: str
    code: int | None
    faults: tuple[str, ...]
    seconds: float
    bytes: int

    def __str__(self) -> str:
        head = f"case {self.number}: decone {self.command}\n  {self.mutation}\n  exit {self.code}, {self.seconds:.1f} s"
        return "\n  ".join((f"{head}, {self.bytes >> 20} MiB", *self.faults))


def prepare(folder: Path) -> None:
    """Makes the world in `folder`, and runs every command once as it is, so that children find everything imported."""
    folder.mkdir(parents=True)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", DECONE_DATA="nowhere")
    os.environ.update(dict.fromkeys(("DECONE_CACHE", "HF_HOME", "XDG_CACHE_HOME"), str(folder / "cache")))
    os.chdir(folder)
    make(folder)
    compare.run_all = _refuse  # runs are trained by `train`; here plans alone count
    broken = []
    for door in DOORS:
        scratch = folder.parent / "warm"
        words = _lay_out(door, folder, scratch)
        os.chdir(scratch)
        code, said = _quietly([word.removeprefix("~") for word in words])
        os.chdir(folder)
        shutil.rmtree(scratch)
        if code != 0:
            broken.append(f"{door.command}: exit {code}, {said}")
    if broken:
        raise AssertionError("commands that cannot be tried: " + "; ".join(broken))


def _quietly(arguments: list[str]) -> tuple[object, str]:
    """Runs a command line in this process; its exit code and what it wrote to stderr."""
    streams = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile("w+") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            main.main(arguments)
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
        file.seek(0)
        return code, file.read()[-2000:]


def _refuse(*_: object) -> Any:
    raise SystemExit(0)


def run_case(number: int, world: Path, folder: Path) -> Outcome:
    """Mutates the input of a command, runs it, and looks at what it left."""
    draw = Random(number)
    door = draw.choices(DOORS, [door.weight for door in DOORS])[0]
    arguments, mutation = _mutate(door, draw, _lay_out(door, world, folder), folder)
    before, around = _tree(folder), sorted(os.listdir(folder.parent))
    start = time.monotonic()
    report, status, usage = _watch(arguments, folder)
    seconds, size = time.monotonic() - start, max(0, usage.ru_maxrss * 1024 - _resident())
    faults = list(_faults(report, status, seconds, size))
    after = _tree(folder)
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    faults += [f"changed {name}" for name in sorted(changed) if not _allowed(name, door)]
    faults += ["wrote beside its folder"] if sorted(os.listdir(folder.parent)) != around else []
    code = os.waitstatus_to_exitcode(status)
    return Outcome(number, shlex.join(arguments), mutation, code if code >= 0 else None, tuple(faults), seconds, size)


def _lay_out(door: Door, world: Path, folder: Path) -> list[str]:
    """Copies what a command reads into a folder; gives its words."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in door.inputs.replace("=", "").split():
        source = world / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return door.command.split()


def _mutate(door: Door, draw: Random, words: list[str], folder: Path) -> tuple[list[str], str]:
    hit = [name for name in door.inputs.split() if not name.startswith("=")]
    mutable = [index for index, word in enumerate(words) if word.startswith("~")]
    words = [word.removeprefix("~") for word in words]
    files = sorted(path for name in hit for path in _files(folder / name))
    if not files:
        chosen = draw.sample(mutable, draw.randint(1, min(2, len(mutable))))
        told = []
        for index in chosen:
            words[index], change = mutate_word(words[index], draw)
            told.append(change)
        return words, "; ".join(told)
    path = draw.choice(files)
    return words, f"{path.relative_to(folder)}: {mutate_file(path, draw)}"


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def _allowed(name: str, door: Door) -> bool:
    if "." in door.writes:  # where it writes was mutated itself: only what was there must stay
        return not any(name == entry or name.startswith(f"{entry}/") for entry in door.inputs.replace("=", "").split())
    return any(name == entry or name.startswith(f"{entry}/") for entry in door.writes)


def _watch(arguments: list[str], folder: Path) -> tuple[dict[str, Any], int, resource.struct_rusage]:
    """Runs a command line in a child, and waits for it or kills it."""
    report = folder.with_suffix(".json")
    report.unlink(missing_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _child(arguments, folder, report)
    deadline = time.monotonic() + PATIENCE
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    content = json.loads(report.read_text()) if report.is_file() else {}
    report.unlink(missing_ok=True)
    return content, status, usage


def _child(arguments: list[str], folder: Path, report: Path) -> None:
    """The child's life; never returns."""
    content: dict[str, Any] = {"says": [], "trace": "", "raised": "", "err": ""}
    code = 70
    try:
        os.chdir(folder)
        for number, end in enumerate((".out", ".err"), 1):
            os.dup2(os.open(report.with_suffix(end), os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY + MEMORY // 2,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        main.say = _recorder(content)
        try:
            main.main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 71
        except BaseException:
            content["trace"] = traceback.format_exc()[-3000:]
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        content["err"] = report.with_suffix(".err").read_text(errors="replace")[:4000]
    except BaseException:
        content["trace"] = traceback.format_exc()[-3000:]
    finally:
        for end in (".out", ".err"):
            report.with_suffix(end).unlink(missing_ok=True)
        report.write_text(json.dumps(content))
        os._exit(code)


def _recorder(content: dict[str, Any]) -> Any:
    say = main.say

    def record(text: str) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            content["says"].append(text)
            last = traceback.extract_tb(error.__traceback__)[-1]
            inside = last.filename.startswith(PACKAGE) or isinstance(error, OSError)  # a sentence of the system
            content["raised"] = "" if inside else "".join(traceback.format_exception(error))[-3000:]
        say(text)

    return record


def _faults(report: dict[str, Any], status: int, seconds: float, size: int) -> Iterator[str]:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        kind = {signal.SIGPROF: f"more than {SECONDS} s", signal.SIGKILL: "hangs"}.get(-code, f"signal {-code}")
        yield f"killed: {kind} after {seconds:.0f} s"
    if size > MEMORY:
        yield f"took {size >> 20} MiB"
    if report.get("trace"):
        yield report["trace"]
    elif code not in (0, 1, 2) and code >= 0:
        yield f"exit code {code}: {report.get('err')}"
    if report.get("raised"):
        yield f"not decone's own error: {report['raised']}"
    if code == 2 and not report.get("says") and "Usage: " not in report.get("err", ""):
        yield f"no sentence: {report.get('err')!r}"
    for text in report.get("says", ()):
        if len(text) > MESSAGE or "\n" in text or not text.startswith("decone: "):
            yield f"no short sentence ({len(text)} signs): {text[:300]!r}"
        elif "\x1b" in text or "\u202e" in text:
            yield f"foreign signs in the message: {text!r:.300}"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_cases(numbers: range, folder: Path) -> Iterator[Outcome]:
    """Runs cases of these numbers in a folder that is made for them."""
    world = folder / "world"
    prepare(world)
    sound = _tree(world)
    for number in numbers:
        yield run_case(number, world, folder / "cases" / "case")
    if _tree(world) != sound:
        raise AssertionError("a case has changed files of the world")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10000)
    options = parser.parse_args()
    codes, bad, slowest, largest = Counter[object](), 0, 0.0, 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for outcome in run_cases(range(options.first, options.first + options.count), Path(folder).resolve() / "fuzz"):
            codes[outcome.code] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.bytes)
            if outcome.faults:
                bad += 1
                print(outcome, flush=True)
    print(f"{options.count} cases, {bad} with faults, exit codes {dict(codes)}, {time.monotonic() - start:.0f} s")
    print(f"slowest {slowest:.1f} s, largest {largest >> 20} MiB")
    sys.exit(bad > 0)


if __name__ == "__main__":
    _main()
