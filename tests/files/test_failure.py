"""Whatever a disk refuses is one sentence with the reason and the remedy."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from decone.files.failure import WriteError, folders_above, make_folder, write_failures


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EFBIG"])
def test_a_disk_that_is_full_asks_for_space(name: str) -> None:
    number = getattr(errno, name)
    with pytest.raises(WriteError) as failure, write_failures("a.json"):
        raise OSError(number, os.strerror(number))
    assert str(failure.value) == f"cannot write a.json: {os.strerror(number)}; free space or choose another place"


@pytest.mark.parametrize("name", ["EIO", "EROFS", "EACCES", "ENOENT", "ENAMETOOLONG"])
def test_another_refusal_does_not(name: str) -> None:
    number = getattr(errno, name)
    with pytest.raises(WriteError) as failure, write_failures("a\n.json"):
        raise OSError(number, os.strerror(number))
    sentence = f"cannot write a\\n.json: {os.strerror(number)}; check its disk and permissions, or choose another place"
    assert str(failure.value) == sentence


def test_a_failure_survives_the_way_home_from_a_worker() -> None:
    failure = WriteError("a", "full").continued(" and go on")
    again = pickle.loads(pickle.dumps(failure))
    assert str(again) == str(failure) == "cannot write a: full; free space and go on"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
def test_a_folder_that_cannot_be_is_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"cannot write to /proc/decone: .*; choose another folder") as refusal:
        make_folder(Path("/proc/decone"))
    assert not isinstance(refusal.value, WriteError)


def test_folders_above_go_when_they_stay_empty() -> None:
    Path("a").mkdir()
    with pytest.raises(KeyError), folders_above(Path("a/b/c/d")):
        assert Path("a/b/c").is_dir()
        raise KeyError
    assert [path.name for path in Path().rglob("*")] == ["a"]


def test_folders_above_that_are_used_stay() -> None:
    with pytest.raises(KeyError), folders_above(Path("b/c/d")):
        Path("b/file").touch()
        raise KeyError
    assert sorted(map(str, Path().rglob("*"))) == ["b", "b/file"]
