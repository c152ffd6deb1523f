"""Nothing outside a stranger's folder is opened; what is inside is read within limits."""

import contextlib
import errno
import os
from pathlib import Path

import pytest

from decone.files.folder import copy_file, inside, list_files, read_object, read_text


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/../../secret", "link", "chain", "a\0b"])
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("{}")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "chain").symlink_to("link")
    with pytest.raises(ValueError, match="lies outside it; that is not opened") as error:
        inside(folder, name)
    assert error.value.args[0].isprintable()


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with contextlib.suppress(ValueError):  # as the version of Python has it
        assert read_text(tmp_path, "loop") is None


def test_links_may_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "other.json").symlink_to("config.json")
    assert read_object(tmp_path, "other.json") == {"a": 1}


def cache(root: Path) -> tuple[Path, Path]:
    """A repository as huggingface_hub keeps it: the folder of a revision, and that of its blobs."""
    repository = root / "models--owner--name"
    snapshot, blobs = repository / "snapshots" / "0123", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    return snapshot, blobs


def test_links_of_a_hub_cache_are_followed(tmp_path: Path) -> None:
    snapshot, blobs = cache(tmp_path)
    (blobs / "abc").write_text('{"a": 1}')
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    assert read_object(snapshot, "config.json") == {"a": 1}
    shared = tmp_path / "blobs" / "01" / ("01" * 32)
    shared.parent.mkdir(parents=True)
    shared.write_text('{"b": 2}')
    (blobs / "def").symlink_to("../../blobs/01/" + shared.name)
    (snapshot / "other.json").symlink_to("../../blobs/def")
    assert read_object(snapshot, "other.json") == {"b": 2}


HASH = "01" * 32


@pytest.mark.parametrize(
    "target",
    [
        "../../secret",
        "../../../secret",
        "../../blobs/sub/file",
        "../other/file",
        f"../../other/{HASH}",
        f"../../../blobs/02/{HASH}",
        "../../../blobs/sh/short",
    ],
)
def test_other_links_of_a_hub_cache_are_not(target: str, tmp_path: Path) -> None:
    snapshot, _ = cache(tmp_path)
    aim = snapshot / target
    aim.parent.mkdir(parents=True, exist_ok=True)
    (snapshot / "config.json").symlink_to(target)
    aim.resolve().write_text("{}")
    with pytest.raises(ValueError, match="lies outside"):
        read_object(snapshot, "config.json")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(ValueError, match=r"has 1,099,511,627,776 bytes, more than any such file needs"):
        read_object(tmp_path, "config.json")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'"text"', b"[" * 100_000, b"1" * 5000, b""])
def test_what_is_no_object_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="download it again") as error:
        read_object(tmp_path, "config.json")
    assert error.value.args[0].isprintable()
    assert len(error.value.args[0]) < 500


def test_what_is_absent_is_none(tmp_path: Path) -> None:
    assert read_object(tmp_path, "config.json") is None
    (tmp_path / "folder").mkdir()
    assert read_text(tmp_path, "folder") is None


def test_files_are_listed_by_name_without_the_history(tmp_path: Path) -> None:
    for name in ("config.json", "sub/a.txt", ".git/HEAD", "sub/.git/HEAD"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("config.json")
    assert sorted(list_files(tmp_path)) == ["config.json", "link", "sub/.git/HEAD", "sub/a.txt"]


@pytest.mark.parametrize(
    ("name", "reason"), [("folder", "is a link to a folder, which is not followed"), ("pipe", "is no ordinary file")]
)
def test_what_cannot_be_copied_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    if name == "folder":
        (tmp_path / name).symlink_to("sub")
    else:
        os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=reason):
        list_files(tmp_path)


def test_a_file_is_copied_or_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path("a")
    source.write_text("content")
    copy_file(source, Path("copy"))
    copy_file(source, Path("link"), link=True)
    assert [Path(name).read_text() for name in ("copy", "link")] == ["content"] * 2
    assert [Path(name).samefile(source) for name in ("copy", "link")] == [False, True]

    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    with pytest.raises(ValueError, match=r"cannot be linked, for the new folder is on another disk; leave out --link"):
        copy_file(source, Path("more"), link=True)
