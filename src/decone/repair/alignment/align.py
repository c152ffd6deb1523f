"""Matches the tokens of a vocabulary with the words of a lexicon.

A word is a token when the tokenizer's own normaliser turns it into what the token stands for without its marks of a
space. Everything else is opt-in: forms of a defined word, numbers spelled out, pieces as parts of a longer word.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from decone.data.lexicons import Lexicon, Sense
from decone.files.foreign import quoted
from decone.files.settings import Progress
from decone.models.tables import ModelTables
from decone.repair.alignment.result import (
    MAX_SENSES,
    AlignmentSettings,
    HostWord,
    MatchKind,
    TokenAlignment,
    TokenEntry,
)
from decone.repair.alignment.surfaces import DEFINABLE, Surface, surfaces

FORMS = ("follow", "keep", "skip")
BATCH = 4096  # words of the lexicon looked up at once
LONGEST_NUMBER = 12  # digits; longer ones, and those with a zero in front, are read digit by digit
NOUN, VERB, COMPARED = ("noun", "verb"), ("verb",), ("adjective", "adverb")
_SHORT = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")  # one short syllable: hop, not hope or help


def open_lexicons(paths: Sequence[Path], format: str = "auto", language: str = "en", forms: str = "follow") -> Lexicon:
    """Opens several lexicons as one; earlier ones go first.

    Args:
        paths: files, or WordNet's folder.
        format: one of `FORMATS`; "auto" looks at the content.
        language: of Wiktionary: the code of the entries to read, or "all".
        forms: "skip" leaves out senses that only name the word they are a form of.

    Raises:
        ValueError: one cannot be read, or an argument is none of these.
    """
    if forms not in FORMS:
        raise ValueError(f"--forms {quoted(forms)} is not one of {', '.join(FORMS)}")
    if not paths:
        raise ValueError("name a lexicon: --lexicon FILE")
    code = None if language == "all" else language
    lexicons = [Lexicon.open(path, format, code, forms != "skip") for path in paths]
    return sum(lexicons[1:], lexicons[0])


def align_model(
    model_tables: ModelTables,
    lexicon: Lexicon,
    settings: AlignmentSettings | None = None,
    progress: Progress | None = None,
) -> TokenAlignment:
    """Finds the definitions of the tokens of a model.

    Raises:
        ValueError: it has no tokenizer, or as `align`.
    """
    if model_tables.tokenizer is None:
        reason = "; ".join(model_tables.notes) or "its folder holds none"
        raise ValueError(f"{model_tables.name} has no tokenizer to align a lexicon with ({reason})")
    if progress is not None:
        progress("reading the lexicon", 0, 1)
    return align(model_tables.tokenizer, lexicon, model_tables.embedding.shape[0], model_tables.special, settings)


def align(
    tokenizer: Tokenizer,
    lexicon: Lexicon,
    rows: int | None = None,
    special: Collection[int] = (),
    settings: AlignmentSettings | None = None,
) -> TokenAlignment:
    """Finds the definitions of every token of a vocabulary, in one pass over the lexicon.

    A second pass follows where senses name a word they are a form of. Only senses of tokens are kept.

    Args:
        tokenizer: of the model; left as it is.
        lexicon: senses of words.
        rows: V of the table; without it as many as the tokenizer has ids.
        special: ids never to define, beside those that the tokenizer marks.
        settings: how to match; without them the lexicon's words as the tokenizer writes them, all senses.

    Raises:
        ValueError: the lexicon cannot be read, or defines no token.

    Example:
        >>> from tokenizers import models
        >>> tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "cone": 1, "cones": 2, "##s": 3}, unk_token="[UNK]"))
        >>> alignment = align(tokenizer, Lexicon.of({"cone": "a solid that narrows to a point"}))
        >>> alignment.entries[1].glosses, alignment.undefined_ids
        (('a solid that narrows to a point',), [0, 2, 3])
    """
    settings = settings or AlignmentSettings()
    vocabulary = surfaces(tokenizer, rows, special)
    tally: Counter[str] = Counter()
    matcher = _Matcher(tokenizer, vocabulary, settings.case)
    stem_words = _stem_words(vocabulary) if settings.inflections else set[str]()
    hosts = HostWords(tokenizer, vocabulary, tally)
    exact: defaultdict[int, list[Sense]] = defaultdict(list)
    folded: defaultdict[int, list[Sense]] = defaultdict(list)
    stem_senses: defaultdict[str, list[Sense]] = defaultdict(list)
    for batch in _batches(lexicon, tally):
        unmatched: list[tuple[str, str, list[Sense]]] = []
        for (word, senses), key in zip(batch, matcher.keys([word for word, _ in batch]), strict=True):
            same_text, same_fold = matcher.by_text.get(key), matcher.by_fold.get(key.lower())
            for id in same_text or ():
                exact[id] += senses[: MAX_SENSES - len(exact[id])]
            for id in same_fold or ():
                if not same_text or id not in same_text:
                    folded[id] += senses[: MAX_SENSES - len(folded[id])]
            if key in stem_words:
                stem_senses[key] += senses[: MAX_SENSES - len(stem_senses[key])]
            if not same_text and not same_fold:
                unmatched.append((word, key, senses))
        hosts.add(unmatched)
    entries = _entries(vocabulary, exact, folded, stem_senses, hosts if settings.pieces else None, settings)
    if not entries:
        raise ValueError(_mismatch(lexicon, vocabulary))
    if settings.follow:
        entries = _follow_forms(entries, lexicon, tally)
    if settings.senses == "first":
        entries = {id: entry._replace(senses=entry.senses[:1]) for id, entry in entries.items()}
    return TokenAlignment(vocabulary, entries, lexicon, settings, tally)


class _Matcher:
    """Index from a word of the lexicon to the tokens that stand for it."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: list[Surface], case: str) -> None:
        self.normalizer = None if case == "exact" else tokenizer.normalizer
        self.by_text: defaultdict[str, list[int]] = defaultdict(list)
        self.by_fold: defaultdict[str, list[int]] = defaultdict(list)
        for id, surface in enumerate(vocabulary):
            if surface.kind in DEFINABLE and surface.text:
                self.by_text[surface.text].append(id)
                if case != "exact":
                    self.by_fold[surface.text.lower()].append(id)

    def keys(self, words: list[str]) -> list[str]:
        """Words as the tokenizer writes them."""
        if self.normalizer is None:
            return words
        # Normalisers of SentencePiece put its mark for spaces, which surfaces are without.
        return [self.normalizer.normalize_str(word).replace("▁", " ").strip() for word in words]


def _batches(lexicon: Lexicon, tally: Counter[str]) -> Iterator[list[tuple[str, list[Sense]]]]:
    """Batches of words, each word with its consecutive senses."""
    batch: list[tuple[str, list[Sense]]] = []
    for word, group in groupby(lexicon, key=itemgetter(0)):
        senses: list[Sense] = []
        for sense in group:
            if len(senses) < MAX_SENSES:
                senses.append(sense)
            else:
                tally[f"beyond the first {MAX_SENSES} senses of a word"] += 1
        batch.append((word, senses))
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _stem_words(vocabulary: list[Surface]) -> set[str]:
    """Words whose definitions may serve for one of their forms."""
    words = (surface.text.lower() for surface in vocabulary if surface.kind == "word")
    return {stem.word for word in words for stem in stems(word)}


def _entries(
    vocabulary: list[Surface],
    exact: dict[int, list[Sense]],
    folded: dict[int, list[Sense]],
    stem_senses: dict[str, list[Sense]],
    hosts: "HostWords | None",
    settings: AlignmentSettings,
) -> dict[int, TokenEntry]:
    """The best match of each token, by rising id."""
    entries: dict[int, TokenEntry] = {}
    for id, surface in enumerate(vocabulary):
        senses = exact.get(id, [])
        if senses:
            match: MatchKind = "exact" if any(sense.word == surface.text for sense in senses) else "normalised"
            more = folded.get(id, []) if settings.case == "fold" else []
            entries[id] = TokenEntry(id, surface, match, tuple([*senses, *more][:MAX_SENSES]))
        elif folded.get(id):
            entries[id] = TokenEntry(id, surface, "folded", tuple(folded[id]))
        elif settings.inflections and surface.kind == "word" and (forms := _inflected(surface.text, stem_senses)):
            entries[id] = TokenEntry(id, surface, "inflection", forms)
        elif settings.numbers and surface.kind == "number":
            sense = Sense(surface.text, f"the number {spell_number(surface.text)}", "number")
            entries[id] = TokenEntry(id, surface, "number", (sense,))
        elif hosts is not None and (host := hosts.of(id)):
            entries[id] = TokenEntry(id, surface, "host", tuple(host.senses), host)
    return entries


def _inflected(word: str, stem_senses: dict[str, list[Sense]]) -> tuple[Sense, ...]:
    """The senses of the likeliest stem, of the right part of speech where the lexicon has one."""
    for stem in stems(word.lower()):
        senses = stem_senses.get(stem.word, [])
        fitting = [sense for sense in senses if sense.part_of_speech in ("", *stem.parts_of_speech)]
        same_word = [sense for sense in fitting if sense.word == stem.word]
        # Canadians are Canadian, but lights are not of Light, and has is not of HA.
        selection = same_word or ([] if len(stem.word) < 3 else fitting)
        if selection:
            return tuple(sense._replace(gloss=f"form of {stem.word}: {sense.gloss}") for sense in selection)
    return ()


def _follow_forms(entries: dict[int, TokenEntry], lexicon: Lexicon, tally: Counter[str]) -> dict[int, TokenEntry]:
    """Appends the gloss of the base word to senses that only name it, where the lexicon has one."""
    targets = {sense.form_of for entry in entries.values() for sense in entry.senses if sense.form_of}
    if not targets:
        return entries
    glosses: dict[str, str] = {}
    for sense in lexicon:
        if sense.word in targets and not sense.form_of:
            glosses.setdefault(sense.word, sense.gloss)

    def follow(sense: Sense) -> Sense:
        if not sense.form_of:
            return sense
        tally["forms of another word, followed" if sense.form_of in glosses else "forms of another word, kept"] += 1
        return sense._replace(gloss=": ".join([sense.gloss.rstrip(" .:"), glosses.get(sense.form_of, "")]).rstrip(": "))

    return {id: entry._replace(senses=tuple(map(follow, entry.senses))) for id, entry in entries.items()}


def _mismatch(lexicon: Lexicon, vocabulary: list[Surface]) -> str:
    size = sum(source.senses for source in lexicon.sources)
    tokens = [surface.token[:40] for surface in vocabulary if surface.kind in DEFINABLE]
    examples = ", ".join(repr(token) for token in tokens[:: max(1, len(tokens) // 5)][:5])
    return (
        f"none of the lexicon's {size:,} senses defines one of the {len(vocabulary):,} tokens, such as "
        f"{examples or 'none'}; name a lexicon in the language of the model"
    )


class HostWords:
    """Words of a lexicon that are no single token: the best one for each piece, and counts by reason.

    The best is the shortest word without blanks or signs, of equal ones the alphabetically first.

    Args:
        tokenizer: of the model; a copy without truncation is used.
        vocabulary: surface of each token.
        tally: counts senses of these words by why the word is no token.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: list[Surface], tally: Counter[str]) -> None:
        content = tokenizer.to_str()
        self.tokenizer = Tokenizer.from_str(content)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        model = json.loads(content)["model"]
        unknown = model.get("unk_id") if "unk_id" in model else tokenizer.token_to_id(model.get("unk_token") or "")
        self.unknown: int | None = unknown
        self.inner = {id for id, surface in enumerate(vocabulary) if surface.inner and surface.kind != "byte"}
        # Byte-level vocabularies write a word within a text with a space in front.
        self.lead = " " if any(surface.token.startswith("Ġ") for surface in vocabulary) else ""
        self.tally = tally
        self.best: dict[int, HostWord] = {}
        self.rank: dict[int, tuple[int, str]] = {}

    def add(self, words: list[tuple[str, str, list[Sense]]]) -> None:
        """Adds words that match no token, each also as the tokenizer writes it, with their senses."""
        for (word, key, senses), ids in zip(words, self._encode([word for word, _, _ in words]), strict=True):
            several = len(word.split()) > 1
            if not ids or self.unknown in ids:
                self.tally["word with unknown characters"] += len(senses)
                continue
            if several or len(ids) > 1:
                self.tally["several words" if several else "word of several tokens"] += len(senses)
            else:
                self.tally["word of one token that is not matched"] += len(senses)
            if not key.isalnum():
                continue
            for position, id in enumerate(ids):
                if id in self.inner and (id not in self.best or (len(key), key) < self.rank[id]):
                    self.best[id], self.rank[id] = HostWord(key, tuple(ids), position, tuple(senses)), (len(key), key)

    def of(self, id: int) -> HostWord | None:
        """The best word that a piece is part of."""
        return self.best.get(id)

    def _encode(self, words: list[str]) -> list[list[int]]:
        """The tokens of each word; none for one that the tokenizer cannot take."""
        try:
            texts = [self.lead + word for word in words]
            return [encoded.ids for encoded in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # the library raises bare Exception for unknown characters, and its panics are none
            if len(words) < 2:
                return [[] for _ in words]
            middle = len(words) // 2
            return self._encode(words[:middle]) + self._encode(words[middle:])


class Stem(NamedTuple):
    """A word that another one may be a form of."""

    word: str
    parts_of_speech: tuple[str, ...]  # it must have one of them for that


def stems(word: str) -> list[Stem]:
    """Words that a lower-case English word may be a form of, the likeliest first.

    Only the endings -s, -ed, -ing, -er and -est (of adjectives and adverbs) and -men are undone; many of the stems are
    no words, which a lexicon decides. Rules and not a lemmatiser: morphy of NLTK needs WordNet's data beside the
    lexicon in use.

    Example:
        >>> [stem.word for stem in stems("hoping")], [stem.word for stem in stems("hopped")]
        (['hope', 'hop'], ['hop', 'hopp', 'hoppe'])
        >>> [stem.word for stem in stems("berries")], stems("bus")
        (['berry', 'berrie', 'berri'], [])
    """
    return list(dict.fromkeys(stem for stem in _candidates(word) if len(stem.word) > 1))


def _candidates(word: str) -> Iterator[Stem]:
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        yield from _singulars(word)
    for ending, parts_of_speech in (("ed", VERB), ("ing", VERB), ("est", COMPARED), ("er", COMPARED)):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            for stem in _without_ending(word.removesuffix(ending), ending):
                yield Stem(stem, parts_of_speech)
    if word.endswith("men") and len(word) > 4:
        yield Stem(f"{word.removesuffix('men')}man", ("noun",))


def _singulars(word: str) -> Iterator[Stem]:
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


def _without_ending(stem: str, ending: str) -> Iterator[str]:
    """Words that take an ending beginning with a vowel in this form."""
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


def spell_number(digits: str) -> str:
    """Spells a number in English words.

    Args:
        digits: decimal digits of any script.

    Raises:
        ValueError: it holds anything else.

    Example:
        >>> spell_number("1984"), spell_number("007"), spell_number("40")
        ('one thousand nine hundred eighty-four', 'zero zero seven', 'forty')
    """
    if not digits.isdecimal():
        raise ValueError(f"{quoted(digits)} is not a number in digits")
    from num2words import num2words  # only now: it takes longer to import than a vocabulary to align

    if len(digits) > LONGEST_NUMBER or (len(digits) > 1 and int(digits[0]) == 0):
        return " ".join(str(num2words(int(digit))) for digit in digits)
    return str(num2words(int(digits))).replace(",", "").replace(" and ", " ")
