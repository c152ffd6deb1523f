"""What is written is there completely or not at all, whatever stops the writing."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from decone.files.atomic import UNFINISHED, atomic_file, atomic_folder, new_folder, require_vacant, write_text
from decone.files.lock import HOST

FILE, FOLDER = Path("result.json"), Path("above/model")


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path = Path()) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_has_its_bytes_and_leaves_nothing_beside_it() -> None:
    write_text(FILE, "é\n")
    assert FILE.read_bytes() == "é\n".encode()
    write_text(FILE, "new\r\n")
    assert FILE.read_bytes() == b"new\r\n"
    assert names() == ["result.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(FILE, "old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(ValueError, match=r"^cannot write result\.json: No space left on device; free space or choose"):
        write_text(FILE, "new")
    assert FILE.read_text() == "old"
    assert names() == ["result.json"]


def test_an_error_without_a_number_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(ValueError, match=r"cannot write result\.json: no space left; "):
        write_text(FILE, "new")


def test_a_folder_that_is_absent_is_said() -> None:
    with pytest.raises(ValueError, match=r"cannot write absent/a: No such file or directory; .*choose another place"):
        write_text(Path("absent/a"), "new")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whatever_stops_the_writing_leaves_nothing(error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_file(FILE) as beside:
        beside.write_text("half")
        raise error
    with pytest.raises(error), atomic_folder(FOLDER) as folder:
        (folder / "half").write_text("half")
        raise error
    assert names() == []


def dead_process() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def leave(path: Path, writer: object) -> Path:
    """What a process leaves that is killed while it writes a file or folder."""
    beside = path.with_name(f".{path.name}.{writer}{UNFINISHED}")
    if path is FOLDER:
        beside.mkdir(parents=True)
        (beside / "half").touch()
    else:
        beside.parent.mkdir(exist_ok=True)
        beside.touch()
    return beside


WRITES: dict[str, tuple[Path, Callable[[], object]]] = {
    "file": (FILE, lambda: write_text(FILE, "new")),
    "folder": (FOLDER, lambda: atomic_folder(FOLDER).__enter__()),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_a_dead_process_was_writing_goes_with_the_next_write(name: str) -> None:
    path, write = WRITES[name]
    beside = leave(path, f"{dead_process()}@{HOST}")
    write()
    assert not beside.exists()


@pytest.mark.parametrize("writer", [f"1@{HOST}", f"{os.getppid()}@{HOST}", "1@elsewhere", "mine", "7x", "", "7@a b"])
@pytest.mark.parametrize("name", WRITES)
def test_what_may_be_somebodys_stays(name: str, writer: str) -> None:
    path, write = WRITES[name]
    beside = leave(path, writer)
    write()
    assert beside.exists()


@pytest.mark.parametrize("writer", ["1@elsewhere", f"1@{HOST}", "123"])
def test_a_new_folder_removes_all_unfinished_ones_for_it_has_the_lock(writer: str) -> None:
    Path("model").mkdir()
    leave(FOLDER, writer)
    similar = leave(FOLDER, "notes")
    (FOLDER.parent / ".model.lock").write_text("1 elsewhere\n")
    with new_folder(FOLDER, Path("model")) as folder:
        (folder / "a").touch()
    assert names() == ["above", *map(str, (similar, similar / "half")), "above/model", "above/model/a", "model"]


def test_a_target_that_is_there_is_refused_and_what_a_kill_left_beside_it_goes() -> None:
    Path("model").mkdir()
    FOLDER.mkdir(parents=True)
    leave(FOLDER, "1@elsewhere")
    (FOLDER.parent / ".model.lock").touch()
    with pytest.raises(ValueError, match="above/model exists; remove it, or choose another --out"):
        require_vacant(FOLDER, Path("model"))
    assert names() == ["above", "above/model", "model"]


def test_two_processes_do_not_write_the_same_target() -> None:
    Path("model").mkdir()
    sentence = (
        rf"above/model is being written by process {os.getpid()} on \S+; wait for its end, or choose another --out"
    )
    with new_folder(FOLDER, Path("model")) as folder:
        for refuse in (require_vacant, lambda *paths: new_folder(*paths).__enter__()):
            with pytest.raises(ValueError, match=sentence):
                refuse(FOLDER, Path("model"))
        (folder / "a").touch()
    assert names() == ["above", "above/model", "above/model/a", "model"]


def test_nothing_is_removed_in_the_models_own_folder() -> None:
    hidden = Path("model/.new.123.writing")
    hidden.mkdir(parents=True)
    with pytest.raises(ValueError, match="lies in the model's own folder"):
        require_vacant(Path("model/new"), Path("model"))
    assert hidden.is_dir()


def test_a_source_that_cannot_be_read_is_not_called_a_full_disk() -> None:
    def copy(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "model/a")

    with pytest.raises(ValueError, match=r"^cannot read model/a: Permission denied; check its"), atomic_folder(FOLDER):
        copy()
    with pytest.raises(ValueError, match=r"^cannot write above/model: Permission"), atomic_folder(FOLDER) as folder:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "a"))
    assert names() == []


def test_what_a_killed_process_left_is_in_nobodys_way() -> None:
    left = FILE.with_name(f".result.json.{os.getpid()}{UNFINISHED}")
    left.write_text("half")
    with atomic_file(FILE) as beside, beside.open("xb") as file:
        file.write(b"new")
    left = FOLDER.with_name(f".model.{os.getpid()}{UNFINISHED}")
    (left / "half").mkdir(parents=True)
    with atomic_folder(FOLDER) as folder:
        (folder / "a").touch()
    assert names() == ["above", "above/model", "above/model/a", "result.json"]


def test_a_folder_is_brought_to_disk_file_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real: Callable[[int], None] = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_folder(FOLDER) as folder:
        (folder / "sub").mkdir()
        for name in ("a", "sub/b"):
            (folder / name).touch()
    paths = [FOLDER, FOLDER.parent, *FOLDER.rglob("*")]
    assert set(synced) == {path.stat().st_ino for path in paths}


def test_a_full_disk_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with atomic_folder(FOLDER) as folder:
        (folder / "old").touch()
    before = names()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for path in (FOLDER, Path("more/model")):
            with pytest.raises(ValueError, match=r"cannot write .*No space left"), atomic_folder(path, True) as folder:
                (folder / "new").touch()
    assert names() == before


def test_a_folder_takes_the_place_of_another_only_when_asked_to() -> None:
    for name, options in [("a", {}), ("b", {"overwrite": True})]:
        with atomic_folder(FOLDER, **options) as folder:
            (folder / name).touch()
        assert names(FOLDER) == [name]
    with pytest.raises(ValueError, match="cannot write above/model"), atomic_folder(FOLDER) as folder:
        (folder / "c").touch()
    assert names(FOLDER) == ["b"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("file", "file exists; remove it, or choose another --out"),
        ("link", "link exists"),
        ("model/new", "lies in the model's own folder, which stays as it is; choose another place"),
        ("model/../model/new", "lies in the model's own folder"),
    ],
)
def test_a_new_folder_is_made_where_nothing_is(path: str, reason: str) -> None:
    Path("model").mkdir()
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    for refuse in (require_vacant, lambda *paths: new_folder(*paths).__enter__()):
        with pytest.raises(ValueError, match=reason):
            refuse(Path(path), Path("model"))


def test_a_folder_that_somebody_makes_meanwhile_stays() -> None:
    Path("model").mkdir()
    with pytest.raises(ValueError, match="new exists"), new_folder(Path("new"), Path("model")) as folder:
        (folder / "a").touch()
        Path("new").mkdir()
        Path("new/theirs").touch()
    assert names() == ["model", "new", "new/theirs"]
