"""One meaning of one word, and what is left out of a lexicon, counted by reason."""

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

WORD_LIMIT = 200  # characters; the longest lemmas published stay below
GLOSS_LIMIT = 20_000  # characters; no model reads more of a definition, and no dictionary writes it

PARTS = {
    "n": "noun",
    "v": "verb",
    "a": "adjective",
    "s": "adjective",  # WordNet's satellites
    "r": "adverb",
    "adj": "adjective",
    "adv": "adverb",
    "name": "proper noun",
    "num": "number",
}


class Sense(NamedTuple):
    """One meaning of a word.

    Attributes:
        word: as the lexicon writes it, blanks for what a source writes as underscores.
        gloss: what it means, one line, without examples.
        part_of_speech: "noun", "verb", "adjective", "adverb", else as the source calls it; empty where it does not say.
        source_rank: the source's own number of the sense among those of the word, else the number of its line: in one
            source, the lower of two senses of a word and part of speech is the earlier one.
        form_of: the word this one is a mere form of, where the gloss says no more than that; else empty.
    """

    word: str
    gloss: str
    part_of_speech: str = ""
    source_rank: int = 1
    form_of: str = ""


Skipped = Counter[str]  # entries left out, by reason


@lru_cache(256)  # of the few names there are, not of a stranger's many
def part_of_speech(name: str) -> str:
    """A part of speech in full; names that are not known stay as they are.

    Example:
        >>> part_of_speech("n-2"), part_of_speech("adj"), part_of_speech("phrase")
        ('noun', 'adjective', 'phrase')
    """
    found = PARTS.get(name) or PARTS.get(name.partition("-")[0], name)
    return " ".join(found.split())[:40]


def checked(sense: Sense, skipped: Skipped) -> Sense | None:
    r"""A sense on one line, None and one count more where it cannot be used.

    Example:
        >>> skipped = Skipped()
        >>> checked(Sense(" ice  cream ", "a frozen\ndessert"), skipped)
        Sense(word='ice cream', gloss='a frozen dessert', part_of_speech='', source_rank=1, form_of='')
        >>> checked(Sense("ice", ""), skipped), dict(skipped)
        (None, {'without a gloss': 1})
    """
    word, gloss = " ".join(sense.word.split()), " ".join(sense.gloss.split())
    plain = word.isascii() and gloss.isascii() and 0 < len(word) <= WORD_LIMIT and 0 < len(gloss) <= GLOSS_LIMIT
    if not plain and (reason := _fault(word, gloss)):
        skipped[reason] += 1
        return None
    return Sense(word, gloss, *sense[2:])


def _fault(word: str, gloss: str) -> str:
    if not word:
        return "without a word"
    if not gloss:
        return "without a gloss"
    if len(word) > WORD_LIMIT:
        return f"word of more than {WORD_LIMIT} characters"
    if len(gloss) > GLOSS_LIMIT:
        return f"gloss of more than {GLOSS_LIMIT:,} characters"
    try:
        (word + gloss).encode()
    except UnicodeEncodeError:  # JSON can say half a character, which no tokenizer takes
        return "not Unicode text"
    return ""
