"""How much of a vocabulary a lexicon defines, as data: what `decone lexicon --json` prints."""

import re
from collections import Counter, defaultdict
from typing import Literal

from jaxtyping import Int64
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from decone.repair.entries import WAYS, Alignment, Entry
from decone.repair.surfaces import DEFINABLE, KINDS
from decone.vocab.counts import frequency_groups

SCHEMA: Literal["decone.lexicon/1"] = "decone.lexicon/1"
SHOWN = 10  # examples of each sort
LISTED = 50_000  # ids without a definition that are listed
WHOLE = ("exact", "normalised", "folded")
CUT = 200  # characters of a foreign string


class Part(BaseModel):
    """A part of a report: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class SourceFacts(Part):
    """What a source of the lexicon gave."""

    name: str
    format: str
    licence: str = Field(description="goes with vectors made from its glosses")
    senses: int
    skipped: dict[str, int] = Field(description="entries left out, by reason")


class Share(Part):
    """How many tokens of some sort there are, and how many have a definition."""

    tokens: int
    covered: int


class Example(Part):
    """A token with its first definition; foreign strings, cut at 200 characters."""

    id: int
    token: str
    way: str
    word: str = Field(description="of the lexicon")
    gloss: str


class Missing(Part):
    """Tokens that stand for some text and have no definition; they are never changed."""

    count: int
    ids: list[int] = Field(description="the first 50,000")
    tokens: list[str] = Field(description="some words among them; foreign strings")


class Sharing(Part):
    """Tokens that have exactly the same glosses, and so will get the same vector."""

    tokens: int
    groups: int
    first_gloss: int = Field(description="tokens that share their first gloss with another one")
    examples: list[list[str]]


class Coverage(Part):
    """How much of a vocabulary a lexicon defines."""

    schema_: Literal["decone.lexicon/1"] = Field(SCHEMA, alias="schema")
    model: str
    rows: int = Field(description="V of the table")
    sources: list[SourceFacts]
    choices: dict[str, str | bool]
    covered: int
    words: int = Field(description="of them, whole words: letters only, matched as they are and not as forms or parts")
    kinds: dict[str, Share] = Field(description="by kind of token")
    ways: dict[str, int] = Field(description="covered tokens by how they were matched")
    groups: dict[str, Share] | None = Field(None, description="by frequency, where counts were given")
    senses: int = Field(description="of all covered tokens")
    several: int = Field(description="covered tokens with more than one sense")
    inner: int = Field(description="covered tokens without a mark that can stand inside a word too")
    self_mentions: int = Field(description="tokens whose first gloss names them")
    sharing: Sharing
    unused: dict[str, int] = Field(description="senses of the lexicon that describe no token, by reason")
    examples: list[Example]
    missing: Missing

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


def coverage(alignment: Alignment, model: str, counts: Int64[Tensor, " V"] | None = None) -> Coverage:
    """Counts what an alignment covers.

    Args:
        alignment: of the model's vocabulary.
        model: its name, for the report.
        counts: occurrences per row, [V]; splits the tokens that a lexicon could define into frequency groups.

    Raises:
        ValueError: the counts are not one per row.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from decone.data.lexicons import Lexicon
        >>> from decone.repair.alignment import align
        >>> tokenizer = Tokenizer(models.WordLevel({"ice": 0, "cone": 1, "42": 2}, unk_token="ice"))
        >>> found = coverage(align(tokenizer, Lexicon.of({"ice": "frozen water"})), "tiny")
        >>> found.covered, found.kinds["word"], found.missing.ids
        (1, Share(tokens=2, covered=1), [1, 2])
    """
    surfaces, entries = alignment.surfaces, alignment.entries
    missing = alignment.undefined
    tokens = Counter(surface.kind for surface in surfaces)
    held = Counter(entry.surface.kind for entry in entries.values())
    ways = Counter(entry.way for entry in entries.values())
    samples = [id for id in missing if surfaces[id].kind == "word"] or missing
    return Coverage(
        schema=SCHEMA,
        model=model,
        rows=len(surfaces),
        sources=[
            SourceFacts(
                name=source.name,
                format=source.format,
                licence=source.licence,
                senses=source.senses,
                skipped=dict(source.skipped.most_common()),
            )
            for source in alignment.lexicon.sources
        ],
        choices=dict(vars(alignment.choices)),
        covered=len(entries),
        words=sum(entry.surface.text.isalpha() and entry.way in WHOLE for entry in entries.values()),
        kinds={kind: Share(tokens=tokens[kind], covered=held[kind]) for kind in KINDS if tokens[kind]},
        ways={way: ways[way] for way in WAYS if ways[way]},
        groups=None if counts is None else _groups(alignment, counts),
        senses=sum(len(entry.senses) for entry in entries.values()),
        several=sum(len(entry.senses) > 1 for entry in entries.values()),
        inner=sum(entry.surface.inner for entry in entries.values()),
        self_mentions=sum(bool(mentions(entry.senses[0].gloss, entry.surface.text)) for entry in entries.values()),
        sharing=_sharing(list(entries.values())),
        unused=dict(alignment.tally.most_common()),
        examples=[_example(entry) for way in WAYS for entry in _some(alignment, way)],
        missing=Missing(
            count=len(missing),
            ids=missing[:LISTED],
            tokens=[surfaces[id].token[:CUT] for id in samples[:: max(1, len(samples) // SHOWN)][:SHOWN]],
        ),
    )


def mentions(gloss: str, text: str) -> list[tuple[int, int]]:
    """Where a gloss names the token it defines: begin and end of each whole word that is the same but for case.

    Example:
        >>> mentions("a Cone of ice-cream, or two cones", "cone")
        [(2, 6)]
    """
    if not text or text.lower() not in gloss.lower():
        return []
    return [found.span() for found in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", gloss, re.IGNORECASE)]


def collisions(entries: list[Entry]) -> list[list[int]]:
    """Ids of tokens with exactly the same glosses, each group rising; their vectors are the same by construction."""
    same: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for entry in entries:
        if entry.host is None:  # read at different places of their words
            same[entry.glosses].append(entry.id)
    return sorted(sorted(ids) for ids in same.values() if len(ids) > 1)


def _sharing(entries: list[Entry]) -> Sharing:
    groups = collisions(entries)
    first = Counter(entry.senses[0].gloss for entry in entries)
    tokens = {entry.id: entry.surface.token[:CUT] for entry in entries}
    return Sharing(
        tokens=sum(map(len, groups)),
        groups=len(groups),
        first_gloss=sum(first[entry.senses[0].gloss] > 1 for entry in entries),
        examples=[[tokens[id] for id in group[:SHOWN]] for group in groups[:SHOWN]],
    )


def _groups(alignment: Alignment, counts: Int64[Tensor, " V"]) -> dict[str, Share]:
    if counts.shape != (len(alignment.surfaces),):
        raise ValueError(
            f"there are {counts.numel():,} counts for {len(alignment.surfaces):,} rows; count with its tokenizer"
        )
    ids = [id for id, surface in enumerate(alignment.surfaces) if surface.kind in DEFINABLE or surface.kind == "piece"]
    split = frequency_groups(counts[ids])
    return {
        name: Share(tokens=len(places), covered=sum(ids[place] in alignment.entries for place in places.tolist()))
        for name, places in split.items()
    }


def _some(alignment: Alignment, way: str) -> list[Entry]:
    found = [entry for entry in alignment.entries.values() if entry.way == way]
    return found[:: max(1, len(found) // 3)][:3]


def _example(entry: Entry) -> Example:
    sense = entry.senses[0]
    token, word, gloss = (text[:CUT] for text in (entry.surface.token, sense.word, sense.gloss))
    return Example(id=entry.id, token=token, way=entry.way, word=word, gloss=gloss)
