"""Which seeds a word on the command line means."""

import pytest

from decone.studies.seeds import seeds


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1", [1337]),
        (" 3 ", [1337, 1, 2]),
        ("7,", [7]),
        ("1337, 7", [1337, 7]),
        ("0,5", [0, 5]),
        ("5,,6", [5, 6]),
    ],
)
def test_a_number_or_a_list(text: str, wanted: list[int]) -> None:
    assert seeds(text) == wanted


def test_many_seeds_differ() -> None:
    found = seeds("2000")
    assert len(found) == len(set(found)) == 2000
    assert found[0] == 1337


@pytest.mark.parametrize("text", ["0", "-1", "x", "", ",", "1.5", "3 4", "1,1", "1,-2", "1,x"])
def test_what_is_no_number_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=f"--seeds {text!r}") as error:
        seeds(text)
    assert "\n" not in str(error.value)
