"""The Unicode script of a piece of text: Latin, Cyrillic, Han, Arabic, digits, punctuation, and so on."""

import unicodedata
from functools import lru_cache

import regex

_SCRIPTS = """
    Arabic Armenian Bengali Bopomofo Cherokee Coptic Cyrillic Devanagari Ethiopic Georgian Glagolitic Gothic Greek
    Gujarati Gurmukhi Han Hangul Hebrew Hiragana Javanese Kannada Katakana Khmer Lao Latin Malayalam Mongolian Myanmar
    Ogham Oriya Runic Sinhala Syriac Tamil Telugu Thaana Thai Tibetan Tifinagh Yi
"""
_SCRIPT = regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in _SCRIPTS.split()))
_COMMON = {"µ": "Greek", "ー": "Katakana"}  # letters that Unicode counts to no single script
_UNLISTED = "letter"  # of a script that is not in the list
_FALLBACKS = ("digits", "punctuation", "space")  # for a text without letters, the first that occurs in it


@lru_cache(maxsize=1 << 16)
def script(text: str) -> str:
    r"""Name the script of a text from its characters.

    Letters decide; numbers, punctuation, spaces and combining marks only matter where there is no letter.

    Args:
        text: A token's text as it reads, decoded: " the", not "Ġthe".

    Returns:
        A script ("Latin", "Cyrillic", "Han", ...), "mixed" for letters of several, else "digits" (all numbers),
        "punctuation" (symbols too), "space", or "other": controls, unassigned and unnamed characters, the replacement
        character that stands for a fragment of a character, letters of scripts not listed here, and no text at all.

    Example:
        >>> [script(text) for text in (" the", "Жук", "日本", "naïve", "aЖ", "3.14", "!?", " ", "\ufffd")]
        ['Latin', 'Cyrillic', 'Han', 'Latin', 'mixed', 'digits', 'punctuation', 'space', 'other']
    """
    kinds = {_kind(character) for character in text}
    letters = kinds - {*_FALLBACKS, "mark", "other"}
    if len(letters) > 1:
        return "mixed"
    if letters:
        return letters.pop().replace(_UNLISTED, "other")
    return next((kind for kind in _FALLBACKS if kind in kinds), "other")


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    """The script of a letter; else digits, punctuation, space, mark (which takes the letter's script) or other."""
    category = unicodedata.category(character)
    if category.startswith("L") or category in ("Mn", "Mc"):
        match = _SCRIPT.match(character)
        # A vowel sign alone still has a script, an accent has none.
        unlisted = _UNLISTED if category.startswith("L") else "mark"
        return (match.lastgroup if match else _COMMON.get(character)) or unlisted
    if category.startswith("N"):
        return "digits"
    if character == "\ufffd":
        return "other"
    if category[0] in "PS":
        return "punctuation"
    return "space" if category.startswith("Z") or character in "\t\n\r\v\f" else "other"
