"""A process that starts commands as forks of itself, kills them at an event on disk, or takes away their disk.

It is born in the nursery with everything imported, reads what to do from faults.json, and leaves answers there.
"""

import ctypes
import importlib
import json
import mmap
import multiprocessing
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

PATIENCE = 300.0  # seconds, on a machine with much else to do
WORK = Path("work").absolute()  # all that a command may touch
IMPORTS = (
    "decone.cli.main",
    "decone.repair.api",
    "decone.repair.checkpoint",
    "decone.repair.vocabulary.grow",
    "decone.repair.vocabulary.trim",
    "decone.studies.compare",
    "decone.studies.reproduce",
    "decone.studies.exhibits",
    "plotly.graph_objects",
    "torch._dynamo",
)
VARIABLE = re.compile(  # what differs between two undisturbed commands
    rb'\d{4}-\d\d-\d\d[T ][\d:.+]*|"(?:seconds|date|commit)"[:,] [^,}\]\n]+'
)

_events: mmap.mmap  # number of events so far, shared by all processes of a command
_last = -1  # the event that kills


def event(half: Path | None = None) -> None:
    """Counts an event, and dies at the one that is to be the last, a file half written."""
    (number,) = struct.unpack("q", _events[:8])
    _events[:8] = struct.pack("q", number + 1)
    if number == _last:
        _events[:8] = struct.pack("q", 1 << 40)  # the other processes of the command live on
        if half is not None and half.is_file() and number % 2:
            os.truncate(half, half.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def watch(name: str, arguments: tuple[Any, ...]) -> None:
    """Sees changes of files below `WORK` before they happen."""
    if name == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    if name in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"):
        path = arguments[0]
        if isinstance(path, str | bytes | os.PathLike) and str(WORK) in os.path.abspath(os.fsdecode(path)):
            event()


def hook() -> None:
    """Watches this process and its workers."""
    sys.addaudithook(watch)
    real = os.fsync

    def fsync(handle: int) -> None:
        event(Path(f"/proc/self/fd/{handle}").resolve())
        real(handle)

    os.fsync = fsync


def prepare() -> None:
    """Workers are forks too, a page has short samples, and a table of a paper takes a second."""
    from decone.studies import exhibits, pool, reproduce
    from decone.studies.table import MEASURES
    from decone.training.config import RunConfig

    context = multiprocessing.get_context("fork")
    pool.multiprocessing.get_context = lambda method: context  # type: ignore[attr-defined, assignment]
    pool.POLL = 0.01
    exhibits.exhibit = partial(exhibits.exhibit, length=5)
    base = RunConfig.read(Path("tiny.toml")).model_dump(exclude={"method", "seed"})
    published = {language: dict.fromkeys((measure.key for measure in MEASURES), 1.5) for language in ("HR", "LR")}
    rows = tuple(
        reproduce.PaperRow(name, name, method, published)
        for name, method in (("base", "mle"), ("new", "threshold:margin=1"))
    )
    reproduce.EXHIBITS = {"tiny:table1": reproduce.PaperTable("tiny", "table1", "A tiny table", base, rows)}


def command(arguments: list[str], last: int = -1) -> tuple[int, str, int]:
    """Runs a command to its end or its death, its workers too.

    Returns:
        Exit code, negative for a signal; stderr; the number of events.
    """
    global _last
    _events[:8] = struct.pack("q", 0)
    alive, inherited = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.close(alive)
            os.set_inheritable(inherited, True)
            for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
                os.dup2(os.open(f"../{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
            _last = last
            hook()
            from decone.cli.main import main

            try:
                main(arguments)
            except SystemExit as stop:
                code = int(stop.code or 0)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(inherited)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not select.select([alive], [], [], PATIENCE)[0]:  # readable when no process has the writing end any more
        raise RuntimeError("a worker lives on")
    os.close(alive)
    return status, Path("../err").read_text(), struct.unpack("q", _events[:8])[0]


def tree(folder: Path) -> dict[str, str]:
    """Everything in a folder by name: the content of files without dates and seconds."""
    content = dict[str, str]()
    for path in sorted(folder.rglob("*")):
        data = b"" if path.is_dir() else VARIABLE.sub(b"", path.read_bytes())
        content[str(path.relative_to(folder))] = "folder" if path.is_dir() else str(hash(data))
        if path.name == "report.html":
            content[str(path.relative_to(folder))] = str(data.rstrip().endswith(b"</html>"))
    return content


def clear(folder: Path) -> None:
    """Empties the folder that a command writes to."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def differences(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def kills(spec: dict[str, Any]) -> dict[str, Any]:
    """Undisturbed, then killed at events and called again."""
    target, sources = Path("target"), Path()
    answers: dict[str, Any] = {"trials": []}
    target.mkdir()
    code, error, count = command(spec["arguments"])
    undisturbed = tree(target)
    answers |= {"code": code, "error": error, "events": count}
    clear(target)
    before = {name: value for name, value in tree(sources).items() if not name.startswith("target/")}
    for share in spec["shares"]:
        last = int(share * count)
        killed, error, _ = command(spec["arguments"], last)
        between = sorted(tree(target))
        again, error, _ = command(spec["arguments"])
        wrong = differences(tree(target), undisturbed)
        after = {name: value for name, value in tree(sources).items() if not name.startswith("target/")}
        trial = {"event": last, "killed": killed, "again": again, "error": error, "wrong": wrong, "between": between}
        answers["trials"].append({**trial, "source": differences(after, before)})
        clear(target)
    return answers


def full_disks(spec: dict[str, Any]) -> dict[str, Any]:
    """On a disk of its own, which is full at some byte and grows before the command is called again."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(0x00020000 | (0x10000000 if user else 0)):  # CLONE_NEWNS, CLONE_NEWUSER
        return {"skip": os.strerror(ctypes.get_errno())}
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    target, sources = Path("target"), Path()
    target.mkdir()

    def resize(size: int, kind: str = "remount,") -> bool:
        words = ["mount", "-t", "tmpfs", "-o", f"{kind}size={size}", "none", str(target)]
        return subprocess.run(words, capture_output=True).returncode == 0

    large = 1 << 26
    if subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode or not resize(large, ""):
        return {"skip": "no disk can be mounted here"}
    answers: dict[str, Any] = {"trials": []}
    code, error, _ = command(spec["arguments"])
    undisturbed, room = tree(target), os.statvfs(target)
    used = (room.f_blocks - room.f_bfree) * room.f_frsize
    answers |= {"code": code, "error": error, "bytes": used}
    clear(target)
    before = {name: value for name, value in tree(sources).items() if not name.startswith("target/")}
    for share in spec["shares"]:
        size = max(1, int(share * used))
        assert resize(size)
        full, sentence, _ = command(spec["arguments"])
        between = sorted(tree(target))
        assert resize(large)
        again, error, _ = command(spec["arguments"])
        wrong = differences(tree(target), undisturbed)
        after = {name: value for name, value in tree(sources).items() if not name.startswith("target/")}
        trial = {"bytes": size, "full": full, "sentence": sentence, "between": between, "again": again}
        answers["trials"].append({**trial, "error": error, "wrong": wrong, "source": differences(after, before)})
        clear(target)
    return answers


def run() -> None:
    """Does what faults.json asks for."""
    global _events
    file = Path("faults.json").absolute()
    spec = json.loads(file.read_text())
    for name in IMPORTS:
        importlib.import_module(name)
    _events = mmap.mmap(-1, 8)
    os.chdir(WORK)
    prepare()
    try:
        answers = {"kills": kills, "full": full_disks}[spec["fault"]](spec)
    except Exception:
        answers = {"failure": traceback.format_exc()}
    file.write_text(json.dumps(answers))


if __name__ == "__main__":
    run()
