"""From an inflected English word to the words it may be a form of, by plain rules of suffixes."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_SHORT = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")  # one short syllable: hop, not hope or help


class Stem(NamedTuple):
    """A word that another one may be a form of."""

    word: str
    parts: tuple[str, ...]  # of speech, any of which it must be for that


NOUN, VERB, COMPARED = ("noun", "verb"), ("verb",), ("adjective", "adverb")


def stems(word: str) -> list[Stem]:
    """Words that a lower-case English word may be a form of, the likeliest first.

    Only the endings -s, -ed, -ing, -er and -est (of adjectives and adverbs) and -men are undone; many of the stems are
    no words, which a lexicon tells.

    Example:
        >>> [stem.word for stem in stems("hoping")], [stem.word for stem in stems("hopped")]
        (['hope', 'hop'], ['hop', 'hopp', 'hoppe'])
        >>> [stem.word for stem in stems("berries")], stems("bus")
        (['berry', 'berrie', 'berri'], [])
    """
    return list(dict.fromkeys(stem for stem in _all(word) if len(stem.word) > 1))


def _all(word: str) -> Iterator[Stem]:
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        yield from _plural(word)
    for ending, parts in (("ed", VERB), ("ing", VERB), ("est", COMPARED), ("er", COMPARED)):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            for stem in _bare(word.removesuffix(ending), ending):
                yield Stem(stem, parts)
    if word.endswith("men") and len(word) > 4:
        yield Stem(f"{word.removesuffix('men')}man", ("noun",))


def _plural(word: str) -> Iterator[Stem]:
    if word.endswith("ies") and len(word) > 4:
        yield Stem(f"{word.removesuffix('ies')}y", NOUN)
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        yield Stem(word.removesuffix("s"), NOUN)
        yield Stem(word.removesuffix("es"), NOUN)
        return
    yield Stem(word.removesuffix("s"), NOUN)
    if word.endswith("ves"):  # only now: gives is not of gif
        yield Stem(f"{word.removesuffix('ves')}f", ("noun",))
        yield Stem(f"{word.removesuffix('ves')}fe", ("noun",))
    if word.endswith("es"):
        yield Stem(word.removesuffix("es"), NOUN)


def _bare(stem: str, ending: str) -> Iterator[str]:
    """What an ending that begins with a vowel may have been put to."""
    if stem.endswith("i") and ending != "ing":
        yield f"{stem[:-1]}y" if len(stem) > 2 else f"{stem}e"
    if ending == "ing" and len(stem) == 2 and stem.endswith("y"):
        yield f"{stem[:-1]}ie"
    doubled = len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in "aeiou"
    if doubled and stem[-1] not in "lsfz":
        yield stem[:-1]
    if _SHORT.fullmatch(stem):
        yield f"{stem}e"
        yield stem
        return
    yield stem
    if doubled:
        yield stem[:-1]
    yield f"{stem}e"
