"""A lock is one process's alone, and nobody's when that process is gone."""

import errno
import fcntl
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from decone.files import lock as locks
from decone.files.failure import WriteError
from decone.files.lock import HOST, FolderLock, is_alive, lock

FILE = Path("run/run.lock")


@pytest.fixture(autouse=True)
def folder() -> None:
    FILE.parent.mkdir()


def take(patience: float = 0.0) -> AbstractContextManager[FolderLock]:
    return lock(FILE, "the run is being trained", "choose another --out", patience)


def dead_process() -> int:
    """A process that died with the lock."""
    pid = os.fork()
    if pid == 0:
        with take():
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def test_a_second_is_refused_with_the_process_and_host_of_the_first() -> None:
    sentence = f"the run is being trained by process {os.getpid()} on {HOST}; wait for its end, or choose another --out"
    with take(), pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"), take():
        pass


def test_nothing_stays_of_a_lock_that_is_given_back() -> None:
    with take():
        assert FILE.read_text() == f"{os.getpid()} {HOST}\n"
    assert list(FILE.parent.iterdir()) == []


def test_a_lock_dies_with_its_process() -> None:
    pid = dead_process()
    assert FILE.read_text().startswith(f"{pid} "), "the file is all that stays"
    with take():
        assert FILE.read_text().startswith(f"{os.getpid()} ")
    assert not FILE.exists()


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"1 elsewhere\n", b"99999999999999999999 x\n"])
def test_what_stands_in_the_file_decides_nothing_where_the_system_has_locks(content: bytes) -> None:
    FILE.write_bytes(content)
    with take():
        assert FILE.read_text() == f"{os.getpid()} {HOST}\n"


def test_a_holder_that_ends_in_time_is_waited_for() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with take():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(60)
    threading.Timer(0.2, leave.set).start()
    with take(patience=60.0):
        assert FILE.exists()
    thread.join()


def test_a_file_that_its_holder_removes_meanwhile_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = fcntl.flock, 0

    def flock(handle: int, kind: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            FILE.unlink()
        real(handle, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with take(), pytest.raises(ValueError, match="is being trained"), take():
        pass
    assert calls == 3


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A filesystem without locks."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    yield


@pytest.mark.usefixtures("lockless")
@pytest.mark.parametrize("holder", ["dead", "nobody"])
def test_without_locks_a_dead_holder_has_no_say(holder: str) -> None:
    if holder == "dead":
        dead_process()
    with take():
        assert FILE.read_text() == f"{os.getpid()} {HOST}\n"
    assert not FILE.exists()


@pytest.mark.usefixtures("lockless")
@pytest.mark.parametrize("holder", [f"{os.getppid()} {HOST}", "1 elsewhere"], ids=["here", "elsewhere"])
def test_without_locks_any_other_holder_is_respected(holder: str) -> None:
    FILE.write_text(holder)
    sentence = rf"by process \d+ on \S+; .*\(or remove {re.escape(str(FILE))} if that process is gone\)$"
    with pytest.raises(ValueError, match=sentence), take():
        pass
    assert FILE.read_text() == holder


@pytest.mark.usefixtures("lockless")
def test_without_locks_the_last_of_two_at_the_same_moment_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: FILE.write_text(f"{os.getppid()} {HOST}\n"))
    with pytest.raises(ValueError, match="is being trained by"), take():
        pass


@pytest.mark.parametrize("vanish", [shutil.rmtree, lambda path: path.rename("renamed"), lambda path: FILE.unlink()])
def test_a_folder_that_vanishes_is_noticed(vanish: Any) -> None:
    with take() as folder_lock:
        folder_lock.require()
        vanish(FILE.parent)
        with pytest.raises(WriteError, match="cannot write run: the folder was removed or renamed meanwhile; put it"):
            folder_lock.require()


def test_the_lock_of_a_successor_is_not_removed() -> None:
    with take():
        FILE.unlink()
        FILE.write_text("another")
    assert FILE.read_text() == "another"


def test_a_folder_that_is_absent_is_one_sentence() -> None:
    with pytest.raises(WriteError, match=r"cannot write absent/run\.lock: No such file"):
        lock(Path("absent/run.lock"), "it", "go").__enter__()


@pytest.mark.parametrize(
    ("pid", "host", "alive"),
    [(os.getpid(), HOST, True), (1, HOST, True), (1, "elsewhere", True), (0, HOST, True)],
    ids=["this process", "the first process", "elsewhere", "no process"],
)
def test_a_process_is_gone_only_for_certain(pid: int, host: str, alive: bool) -> None:
    assert is_alive(pid, host) is alive


def test_a_process_that_is_gone() -> None:
    assert not is_alive(dead_process(), HOST)
