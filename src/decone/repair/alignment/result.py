"""Tokens with their definitions, and how much of a vocabulary a lexicon defines.

`LexiconCoverage` is what `decone lexicon --json` prints.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from jaxtyping import Int64
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from decone.data.lexicons import Lexicon, Sense
from decone.document import Document, DocumentModel
from decone.files.foreign import quoted
from decone.repair.alignment.surfaces import DEFINABLE, KINDS, Surface, SurfaceKind
from decone.vocab.counts import frequency_groups

Case = Literal["auto", "exact", "fold"]
Senses = Literal["all", "first"]
MatchKind = Literal["exact", "normalised", "folded", "inflection", "number", "host"]
MATCH_KINDS: tuple[MatchKind, ...] = get_args(MatchKind)
WHOLE_WORD_MATCHES = ("exact", "normalised", "folded")
MAX_SENSES = 64  # of a token; no word has more that a model could tell apart
SCHEMA: Literal["decone.lexicon/1"] = "decone.lexicon/1"
EXAMPLES = 10  # of each sort
LISTED = 50_000  # ids without a definition that are listed
CUT = 200  # characters of a foreign string


class HostWord(NamedTuple):
    """A word that a piece is part of.

    Attributes:
        word: as the tokenizer writes it.
        ids: its tokens.
        position: of the piece among them, from 0.
        senses: of the word.
    """

    word: str
    ids: tuple[int, ...]
    position: int
    senses: tuple[Sense, ...]


class TokenEntry(NamedTuple):
    """A token and its definitions.

    Attributes:
        id: its row.
        surface: the text it stands for.
        match: how it came to its senses: "exact" when a word of the lexicon is written as it is, "normalised" when the
            tokenizer writes the word so, "folded" when they differ in case, "inflection" of a defined word, "number"
            spelled out, "host" when it is a piece of a defined word.
        senses: in the order of the lexicon; `senses[i].word` is the lexicon's word. At least one.
        host: for the match "host", the word and the position in it.
    """

    id: int
    surface: Surface
    match: MatchKind
    senses: tuple[Sense, ...]
    host: HostWord | None = None

    @property
    def glosses(self) -> tuple[str, ...]:
        """Definitions, one per sense."""
        return tuple(sense.gloss for sense in self.senses)


@dataclass(frozen=True)
class AlignmentSettings:
    """Settings of `align`.

    Attributes:
        case: "auto" takes words that the tokenizer writes as the token and, for a token with none, words that differ
            in case only; "exact" only words written as the token; "fold" adds those that differ in case to the others.
        senses: "all" of a token, 64 at most, or the "first".
        follow: append to a sense that only names the word it is a form of, that word's first gloss.
        inflections: undo English suffixes for words without a definition.
        numbers: spell out numbers without a definition.
        pieces: define pieces as parts of the shortest word of the lexicon that holds them.
    """

    case: str = "auto"
    senses: str = "all"
    follow: bool = True
    inflections: bool = False
    numbers: bool = False
    pieces: bool = False

    def __post_init__(self) -> None:
        for name, value, values in (("case", self.case, get_args(Case)), ("senses", self.senses, get_args(Senses))):
            if value not in values:
                raise ValueError(f"{name} cannot be {quoted(str(value))}; choose one of {', '.join(values)}")


@dataclass
class TokenAlignment:
    """The tokens of a vocabulary with their definitions.

    Attributes:
        surfaces: of every row, by id.
        entries: the defined tokens by rising id.
        lexicon: its sources count the entries that the latest reading used and skipped.
        settings: of the matching.
        tally: senses of the lexicon that were not used, by reason, and forms of other words followed or kept.
    """

    surfaces: list[Surface]
    entries: dict[int, TokenEntry]
    lexicon: Lexicon
    settings: AlignmentSettings
    tally: Counter[str] = field(default_factory=Counter)

    @property
    def undefined_ids(self) -> list[int]:
        """Rising ids of the tokens that stand for some text and have no definition; their rows stay as they are."""
        open_kinds: set[SurfaceKind] = {*DEFINABLE, "piece"}
        return [id for id, surface in enumerate(self.surfaces) if surface.kind in open_kinds and id not in self.entries]

    def defined_ids(self, *kinds: SurfaceKind) -> list[int]:
        """Rising ids of the defined tokens, of these kinds or all."""
        return [id for id, entry in self.entries.items() if not kinds or entry.surface.kind in kinds]

    def select(self, ids: Iterable[int]) -> list[TokenEntry]:
        """The entries of some tokens, one per token, by rising id.

        Raises:
            IndexError: an id is negative or beyond the table.
            ValueError: a token is special, unused, padding or part of a character.
            KeyError: tokens have no definition; up to ten are named.
        """
        rows = sorted(set(ids))
        if rows and not 0 <= rows[0] <= rows[-1] < len(self.surfaces):
            wrong = rows[0] if rows[0] < 0 else rows[-1]
            raise IndexError(f"there is no row {wrong}; the table has rows 0 to {len(self.surfaces) - 1}")
        fixed = [id for id in rows if self.surfaces[id].kind in ("special", "unused", "padding", "byte")]
        if fixed:
            names = ", ".join(f"{id} ({self.surfaces[id].kind})" for id in fixed[:10])
            raise ValueError(f"these rows stand for no text that a definition can describe: {names}; leave them out")
        missing = [id for id in rows if id not in self.entries]
        if missing:
            names = ", ".join(f"{id} {quoted(self.surfaces[id].token)}" for id in missing[:10])
            raise KeyError(
                f"{len(missing)} tokens have no definition in the lexicon: {names}; leave them out or define them"
            )
        return [self.entries[id] for id in rows]


class CoverageModel(BaseModel):
    """A section of the report: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class LexiconSource(CoverageModel):
    """Counts of one source of the lexicon."""

    name: str
    format: str
    licence: str = Field(description="goes with vectors made from its glosses")
    senses: int
    skipped: dict[str, int] = Field(description="entries left out, by reason")


class CoverageShare(CoverageModel):
    """Number of tokens of some sort, and how many of them have a definition."""

    tokens: int
    covered: int


class DefinitionExample(CoverageModel):
    """A token with its first definition; foreign strings, cut at 200 characters."""

    id: int
    token: str
    match: str = Field(alias="way")
    word: str = Field(description="of the lexicon")
    gloss: str


class UndefinedTokens(CoverageModel):
    """Tokens that stand for some text and have no definition; they are never changed."""

    count: int
    ids: list[int] = Field(description="the first 50,000")
    tokens: list[str] = Field(description="some words among them; foreign strings")


class SharedGlosses(CoverageModel):
    """Tokens that have exactly the same glosses, and so will get the same vector."""

    tokens: int
    groups: int
    first_gloss: int = Field(description="tokens that share their first gloss with another one")
    examples: list[list[str]]


class LexiconCoverage(CoverageModel, DocumentModel):
    """Share of a vocabulary that a lexicon defines."""

    schema_: Literal["decone.lexicon/1"] = Field(SCHEMA, alias="schema")
    model: str
    rows: int = Field(description="V of the table")
    sources: list[LexiconSource]
    settings: dict[str, str | bool] = Field(alias="choices")
    covered: int
    words: int = Field(description="of them, whole words: letters only, matched as they are and not as forms or parts")
    kinds: dict[str, CoverageShare] = Field(description="by kind of token")
    matches: dict[str, int] = Field(alias="ways", description="covered tokens by how they were matched")
    groups: dict[str, CoverageShare] | None = Field(None, description="by frequency, where counts were given")
    senses: int = Field(description="of all covered tokens")
    several: int = Field(description="covered tokens with more than one sense")
    inner: int = Field(description="covered tokens without a mark that can stand inside a word too")
    self_mentions: int = Field(description="tokens whose first gloss names them")
    sharing: SharedGlosses
    unused: dict[str, int] = Field(description="senses of the lexicon that describe no token, by reason")
    examples: list[DefinitionExample]
    missing: UndefinedTokens

    def to_document(self) -> Document:
        """The coverage for a page, a terminal and markdown."""
        from decone.repair import view

        return view.coverage_document(self)


def coverage(alignment: TokenAlignment, model: str, counts: Int64[Tensor, " V"] | None = None) -> LexiconCoverage:
    """Counts what an alignment covers.

    Args:
        alignment: of the model's vocabulary.
        model: its name, for the report.
        counts: occurrences per row, [V]; splits the tokens that a lexicon could define into frequency groups.

    Raises:
        ValueError: the counts are not one per row.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from decone.repair.alignment.align import align
        >>> tokenizer = Tokenizer(models.WordLevel({"ice": 0, "cone": 1, "42": 2}, unk_token="ice"))
        >>> report = coverage(align(tokenizer, Lexicon.of({"ice": "frozen water"})), "tiny")
        >>> report.covered, report.kinds["word"], report.missing.ids
        (1, CoverageShare(tokens=2, covered=1), [1, 2])
    """
    surfaces, entries = alignment.surfaces, alignment.entries
    missing = alignment.undefined_ids
    tokens = Counter(surface.kind for surface in surfaces)
    covered = Counter(entry.surface.kind for entry in entries.values())
    matches = Counter(entry.match for entry in entries.values())
    samples = [id for id in missing if surfaces[id].kind == "word"] or missing
    return LexiconCoverage(
        schema=SCHEMA,
        model=model,
        rows=len(surfaces),
        sources=[
            LexiconSource(
                name=source.name,
                format=source.format,
                licence=source.licence,
                senses=source.senses,
                skipped=dict(source.skipped.most_common()),
            )
            for source in alignment.lexicon.sources
        ],
        choices=dict(vars(alignment.settings)),
        covered=len(entries),
        words=sum(entry.surface.text.isalpha() and entry.match in WHOLE_WORD_MATCHES for entry in entries.values()),
        kinds={kind: CoverageShare(tokens=tokens[kind], covered=covered[kind]) for kind in KINDS if tokens[kind]},
        ways={match: matches[match] for match in MATCH_KINDS if matches[match]},
        groups=None if counts is None else _groups(alignment, counts),
        senses=sum(len(entry.senses) for entry in entries.values()),
        several=sum(len(entry.senses) > 1 for entry in entries.values()),
        inner=sum(entry.surface.inner for entry in entries.values()),
        self_mentions=sum(bool(mentions(entry.senses[0].gloss, entry.surface.text)) for entry in entries.values()),
        sharing=_sharing(list(entries.values())),
        unused=dict(alignment.tally.most_common()),
        examples=[_example(entry) for match in MATCH_KINDS for entry in _samples(alignment, match)],
        missing=UndefinedTokens(
            count=len(missing),
            ids=missing[:LISTED],
            tokens=[surfaces[id].token[:CUT] for id in samples[:: max(1, len(samples) // EXAMPLES)][:EXAMPLES]],
        ),
    )


def mentions(gloss: str, text: str) -> list[tuple[int, int]]:
    """Spans where a gloss names the token it defines: begin and end of whole words, whatever their case.

    Example:
        >>> mentions("a Cone of ice-cream, or two cones", "cone")
        [(2, 6)]
    """
    if not text or text.lower() not in gloss.lower():
        return []
    return [match.span() for match in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", gloss, re.IGNORECASE)]


def collisions(entries: list[TokenEntry]) -> list[list[int]]:
    """Ids of tokens with exactly the same glosses, in rising groups; their vectors are the same by construction."""
    same: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for entry in entries:
        if entry.host is None:  # read at different positions of their words
            same[entry.glosses].append(entry.id)
    return sorted(sorted(ids) for ids in same.values() if len(ids) > 1)


def _sharing(entries: list[TokenEntry]) -> SharedGlosses:
    groups = collisions(entries)
    first = Counter(entry.senses[0].gloss for entry in entries)
    tokens = {entry.id: entry.surface.token[:CUT] for entry in entries}
    return SharedGlosses(
        tokens=sum(map(len, groups)),
        groups=len(groups),
        first_gloss=sum(first[entry.senses[0].gloss] > 1 for entry in entries),
        examples=[[tokens[id] for id in group[:EXAMPLES]] for group in groups[:EXAMPLES]],
    )


def _groups(alignment: TokenAlignment, counts: Int64[Tensor, " V"]) -> dict[str, CoverageShare]:
    if counts.shape != (len(alignment.surfaces),):
        raise ValueError(
            f"there are {counts.numel():,} counts for {len(alignment.surfaces):,} rows; count with its tokenizer"
        )
    ids = [id for id, surface in enumerate(alignment.surfaces) if surface.kind in DEFINABLE or surface.kind == "piece"]
    return {
        name: CoverageShare(tokens=len(group), covered=sum(ids[index] in alignment.entries for index in group.tolist()))
        for name, group in frequency_groups(counts[ids]).items()
    }


def _samples(alignment: TokenAlignment, match: MatchKind) -> list[TokenEntry]:
    entries = [entry for entry in alignment.entries.values() if entry.match == match]
    return entries[:: max(1, len(entries) // 3)][:3]


def _example(entry: TokenEntry) -> DefinitionExample:
    sense = entry.senses[0]
    token, word, gloss = (text[:CUT] for text in (entry.surface.token, sense.word, sense.gloss))
    return DefinitionExample(id=entry.id, token=token, way=entry.match, word=word, gloss=gloss)
