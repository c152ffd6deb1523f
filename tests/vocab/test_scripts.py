"""Scripts of texts: what letters decide, and what stands in where there are none."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decone.vocab.scripts import script


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" the", "Latin"),
        ("naïve", "Latin"),
        ("nai\u0308ve", "Latin"),  # an accent of its own takes the letter's script
        ("ªº", "Latin"),
        ("\uff21\uff11", "Latin"),  # full width
        ("Жук.", "Cyrillic"),
        ("Ω", "Greek"),
        ("µ", "Greek"),
        ("日本", "Han"),
        ("々", "Han"),
        ("か", "Hiragana"),
        ("カー", "Katakana"),
        ("ｶ", "Katakana"),
        ("한국", "Hangul"),
        ("سلام", "Arabic"),
        ("שלום", "Hebrew"),
        ("हिन्दी", "Devanagari"),
        ("ि", "Devanagari"),  # a vowel sign alone
        ("ไทย", "Thai"),
        ("aЖ", "mixed"),
        ("a日", "mixed"),
        ("a\u13c0", "mixed"),
        ("aꔀ", "mixed"),  # Vai is not listed, but it is not Latin
        ("ꔀ", "other"),
        ("42", "digits"),
        ("-3.14%", "digits"),
        ("٣", "digits"),
        ("Ⅷ", "digits"),
        ("½", "digits"),
        (").", "punctuation"),
        (" +", "punctuation"),
        ("€😀", "punctuation"),
        (" ", "space"),
        ("\t\r\n", "space"),
        ("\u00a0\u3000", "space"),
        ("", "other"),
        ("\ufffd", "other"),
        ("\x00", "other"),
        ("\u202e", "other"),
        ("\u0301", "other"),
        ("\ue000", "other"),
        ("a\ufffd", "Latin"),
    ],
)
def test_scripts_by_example(text: str, expected: str) -> None:
    assert script(text) == expected


@given(st.text(max_size=8), st.text(alphabet=" .,!?1", max_size=4))
def test_any_text_has_one_and_what_is_no_letter_does_not_change_a_letter(text: str, around: str) -> None:
    name = script(text)
    assert name
    assert name == script(text[::-1])
    if name not in {"digits", "punctuation", "space", "other"}:
        assert script(around + text + around) == name


def test_every_character_has_one() -> None:
    names = {script(chr(point)) for point in range(0, sys.maxunicode, 13)}
    assert {"Latin", "Han", "Hangul", "digits", "punctuation", "space", "other"} <= names
    assert "mixed" not in names
    assert all(name.isalpha() for name in names)
