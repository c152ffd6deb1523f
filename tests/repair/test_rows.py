"""Lists of rows from a share or a file."""

from pathlib import Path

import pytest

from decone.repair.rows import last_rows, read_ids


def test_ids_of_a_file() -> None:
    Path("ids.txt").write_text("# rare ones\n7, 3\n3\t12 # again\r\n\n0\n")
    assert read_ids(Path("ids.txt"), 13).tolist() == [0, 3, 7, 12]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n-2\n", "line 2: '-2' is no id"),
        ("a b", "line 1: 'a' is no id"),
        ("1\n13", "line 2: id 13 is beyond the table's 13 rows"),
        ("# nothing\n", "lists no id"),
        ("", "empty"),
        ("٣", "is no id"),
        ("9" * 40, "is no id"),
    ],
)
def test_other_files_are_refused(text: str, said: str) -> None:
    Path("ids.txt").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_ids(Path("ids.txt"), 13)


def test_no_file() -> None:
    with pytest.raises(ValueError, match="takes all, rare, last:SHARE"):
        read_ids(Path("rarest"), 13)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, 0.01, float("nan")])
def test_shares_that_leave_nothing(share: float) -> None:
    with pytest.raises(ValueError, match="give a share above 0"):
        last_rows(10, share)


def test_shares() -> None:
    assert last_rows(10, 1.0).tolist() == list(range(10))
    assert last_rows(10, 0.2).tolist() == [8, 9]
