"""What is written is there completely or not at all, whatever stops the writing."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from decone.files.atomic import UNFINISHED, atomic_file, atomic_folder, new_folder, require_vacant, write_text

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
