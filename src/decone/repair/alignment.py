"""Which token a definition belongs to: every token of a vocabulary against the words of a lexicon.

A word is a token when the tokenizer's own normaliser turns it into what the token stands for without its marks of a
space. Everything else is opt-in: forms of a defined word, numbers spelled out, pieces as parts of a longer word.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from itertools import groupby
from operator import itemgetter

from tokenizers import Tokenizer

from decone.data.lexicons import Lexicon, Sense
from decone.repair.entries import MOST, Alignment, Choices, Entry, Way
from decone.repair.host_words import Hosts
from decone.repair.inflections import stems
from decone.repair.number_words import spelled
from decone.repair.surfaces import DEFINABLE, Surface, surfaces

__all__ = ["Alignment", "Choices", "Entry", "align"]

BATCH = 4096  # words of the lexicon looked at at once


def align(
    tokenizer: Tokenizer,
    lexicon: Lexicon,
    rows: int | None = None,
    special: Collection[int] = (),
    choices: Choices | None = None,
) -> Alignment:
    """Finds the definitions of every token of a vocabulary, in one pass over the lexicon.

    A second pass follows where senses name a word they are a form of. Only senses of tokens are kept.

    Args:
        tokenizer: of the model; left as it is.
        lexicon: senses of words.
        rows: V of the table; without it as many as the tokenizer has ids.
        special: ids never to define, beside those that the tokenizer marks.
        choices: how to match; without them the lexicon's words as the tokenizer writes them, all senses.

    Raises:
        ValueError: the lexicon cannot be read, or defines no token.

    Example:
        >>> from tokenizers import models
        >>> tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "cone": 1, "cones": 2, "##s": 3}, unk_token="[UNK]"))
        >>> found = align(tokenizer, Lexicon.of({"cone": "a solid that narrows to a point"}))
        >>> found.entries[1].glosses, found.undefined
        (('a solid that narrows to a point',), [0, 2, 3])
    """
    choices = choices or Choices()
    known = surfaces(tokenizer, rows, special)
    tally: Counter[str] = Counter()
    matcher = _Matcher(tokenizer, known, choices.case)
    wanted = _stems_wanted(known) if choices.inflections else set[str]()
    hosts = Hosts(tokenizer, known, tally)
    found: defaultdict[int, list[Sense]] = defaultdict(list)
    folded: defaultdict[int, list[Sense]] = defaultdict(list)
    stem_senses: defaultdict[str, list[Sense]] = defaultdict(list)
    for batch in _batches(lexicon, tally):
        others: list[tuple[str, str, list[Sense]]] = []
        for (word, senses), key in zip(batch, matcher.keys([word for word, _ in batch]), strict=True):
            same, but_for_case = matcher.by_text.get(key), matcher.by_fold.get(key.lower())
            for id in same or ():
                found[id] += senses[: MOST - len(found[id])]
            for id in but_for_case or ():
                if not same or id not in same:
                    folded[id] += senses[: MOST - len(folded[id])]
            if key in wanted:
                stem_senses[key] += senses[: MOST - len(stem_senses[key])]
            if not same and not but_for_case:
                others.append((word, key, senses))
        hosts.look(others)
    entries = _entries(known, found, folded, stem_senses, wanted, hosts if choices.pieces else None, choices)
    if not entries:
        raise ValueError(_mismatch(lexicon, known))
    if choices.follow:
        entries = _followed(entries, lexicon, tally)
    if choices.senses == "first":
        entries = {id: entry._replace(senses=entry.senses[:1]) for id, entry in entries.items()}
    return Alignment(known, entries, lexicon, choices, tally)


class _Matcher:
    """From a word of the lexicon to the tokens that stand for it."""

    def __init__(self, tokenizer: Tokenizer, known: list[Surface], case: str) -> None:
        self.normalizer = None if case == "exact" else tokenizer.normalizer
        self.by_text: defaultdict[str, list[int]] = defaultdict(list)
        self.by_fold: defaultdict[str, list[int]] = defaultdict(list)
        for id, surface in enumerate(known):
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
    """Some words at a time, each with its consecutive senses."""
    batch: list[tuple[str, list[Sense]]] = []
    for word, group in groupby(lexicon, key=itemgetter(0)):
        senses: list[Sense] = []
        for sense in group:
            if len(senses) < MOST:
                senses.append(sense)
            else:
                tally[f"beyond the first {MOST} senses of a word"] += 1
        batch.append((word, senses))
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _stems_wanted(known: list[Surface]) -> set[str]:
    """Words whose definitions may serve for one of their forms."""
    words = (surface.text.lower() for surface in known if surface.kind == "word")
    return {stem.word for word in words for stem in stems(word)}


def _entries(
    known: list[Surface],
    found: dict[int, list[Sense]],
    folded: dict[int, list[Sense]],
    stem_senses: dict[str, list[Sense]],
    wanted: Collection[str],
    hosts: Hosts | None,
    choices: Choices,
) -> dict[int, Entry]:
    """The best way to the senses of each token, by rising id."""
    entries: dict[int, Entry] = {}
    for id, surface in enumerate(known):
        senses = found.get(id, [])
        if senses:
            way: Way = "exact" if any(sense.word == surface.text for sense in senses) else "normalised"
            more = folded.get(id, []) if choices.case == "fold" else []
            entries[id] = Entry(id, surface, way, tuple([*senses, *more][:MOST]))
        elif folded.get(id):
            entries[id] = Entry(id, surface, "folded", tuple(folded[id]))
        elif wanted and surface.kind == "word" and (forms := _inflected(surface.text, stem_senses)):
            entries[id] = Entry(id, surface, "inflection", forms)
        elif choices.numbers and surface.kind == "number":
            sense = Sense(surface.text, f"the number {spelled(surface.text)}", "number")
            entries[id] = Entry(id, surface, "number", (sense,))
        elif hosts is not None and (chosen := hosts.of(id)):
            entries[id] = Entry(id, surface, "host", tuple(chosen.senses), chosen)
    return entries


def _inflected(word: str, stem_senses: dict[str, list[Sense]]) -> tuple[Sense, ...]:
    """The senses of the likeliest stem, of the right part of speech where the lexicon tells it."""
    for stem in stems(word.lower()):
        senses = stem_senses.get(stem.word, [])
        fitting = [sense for sense in senses if sense.part_of_speech in ("", *stem.parts)]
        same = [sense for sense in fitting if sense.word == stem.word]
        # Canadians are Canadian, but lights are not of Light, and has is not of HA.
        chosen = same or ([] if len(stem.word) < 3 else fitting)
        if chosen:
            return tuple(sense._replace(gloss=f"form of {stem.word}: {sense.gloss}") for sense in chosen)
    return ()


def _followed(entries: dict[int, Entry], lexicon: Lexicon, tally: Counter[str]) -> dict[int, Entry]:
    """Entries whose mere forms of other words say what those mean, where the lexicon knows them."""
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


def _mismatch(lexicon: Lexicon, known: list[Surface]) -> str:
    size = sum(source.senses for source in lexicon.sources)
    shown = [surface.token[:40] for surface in known if surface.kind in DEFINABLE]
    some = ", ".join(repr(token) for token in shown[:: max(1, len(shown) // 5)][:5])
    return (
        f"none of the lexicon's {size:,} senses defines one of the {len(known):,} tokens, such as {some or 'none'}; "
        "name a lexicon in the language of the model"
    )
