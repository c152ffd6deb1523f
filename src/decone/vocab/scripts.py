"""The Unicode script of a piece of text: Latin, Cyrillic, Han, Arabic, digits, punctuation, and so on.

An approximation: Python's standard library has no script property, but the official name of nearly every letter says
the script ("CYRILLIC SMALL LETTER A"), and names never change. Where the name says nothing the answer is "other".
"""

import unicodedata
from functools import lru_cache

_SCRIPTS = """
    Arabic Armenian Bengali Bopomofo Cherokee Coptic Cyrillic Devanagari Ethiopic Georgian Glagolitic Gothic Greek
    Gujarati Gurmukhi Hangul Hebrew Hiragana Javanese Kannada Katakana Khmer Lao Latin Malayalam Mongolian Myanmar Ogham
    Oriya Runic Sinhala Syriac Tamil Telugu Thaana Thai Tibetan Tifinagh Yi
"""
_NAMED = {name.upper(): name for name in _SCRIPTS.split()} | {"CJK": "Han"}  # by the first word of a letter's name
# Words that stand before the script in names of variants: FULLWIDTH LATIN SMALL LETTER A.
_FORMS = {"FULLWIDTH", "HALFWIDTH", "MODIFIER", "COMBINING", "SUBSCRIPT", "SUPERSCRIPT", "PRESENTATION"}
_SINGLE = {"ª": "Latin", "º": "Latin", "µ": "Greek", "々": "Han", "ー": "Katakana"}
_UNLISTED = "letter"  # of a script that is not in the list
_LESSER = ("digits", "punctuation", "space")  # what a text without letters is, the first that occurs in it


@lru_cache(maxsize=1 << 16)
def script(text: str) -> str:
    r"""Name the script of a text from its characters.

    Letters decide; numbers, punctuation, spaces and combining marks only matter where there is no letter.

    Args:
        text: A token's text as it reads, decoded: " the", not "Ġthe".

    Returns:
        A script ("Latin", "Cyrillic", "Han", ...), "mixed" for letters of several, else "digits" (all numbers),
        "punctuation" (symbols too), "space", or "other": controls, unassigned and unnamed characters, the replacement
        character that stands for a part of a character, letters of scripts not listed here, and no text at all.

    Example:
        >>> [script(text) for text in (" the", "Жук", "日本", "naïve", "aЖ", "3.14", "!?", " ", "\ufffd")]
        ['Latin', 'Cyrillic', 'Han', 'Latin', 'mixed', 'digits', 'punctuation', 'space', 'other']
    """
    kinds = {_kind(character) for character in text}
    letters = kinds - {*_LESSER, "mark", "other"}
    if len(letters) > 1:
        return "mixed"
    if letters:
        return letters.pop().replace(_UNLISTED, "other")
    return next((kind for kind in _LESSER if kind in kinds), "other")


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    """The script of a letter; else digits, punctuation, space, mark (which takes the letter's script) or other."""
    category = unicodedata.category(character)
    if category.startswith("L") or category in ("Mn", "Mc"):
        known = _SINGLE.get(character) or _named(unicodedata.name(character, ""))
        # A vowel sign alone still tells its script, an accent does not.
        return known or (_UNLISTED if category.startswith("L") else "mark")
    if category.startswith("N"):
        return "digits"
    if character == "\ufffd":
        return "other"
    if category[0] in "PS":
        return "punctuation"
    return "space" if category.startswith("Z") or character in "\t\n\r\v\f" else "other"


def _named(name: str) -> str | None:
    words = name.split()
    while words and words[0] in _FORMS:
        words = words[1:]
    return _NAMED.get(words[0]) if words else None
