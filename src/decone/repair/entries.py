"""Tokens with what they mean: the result of aligning a vocabulary with a lexicon."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from decone.data.lexicons import Lexicon, Sense
from decone.repair.host_words import Host
from decone.repair.surfaces import DEFINABLE, Kind, Surface

Case = Literal["auto", "exact", "fold"]
Senses = Literal["all", "first"]
Way = Literal["exact", "normalised", "folded", "inflection", "number", "host"]
WAYS: tuple[Way, ...] = get_args(Way)
MOST = 64  # senses kept per token; no word has more that a model could tell apart


class Entry(NamedTuple):
    """A token and what it means.

    Attributes:
        id: its row.
        surface: what it stands for.
        way: how it came to its senses: "exact" when a word of the lexicon is written as it is, "normalised" when the
            tokenizer writes the word so, "folded" when they differ in case, "inflection" of a defined word, "number"
            spelled out, "host" when it is a piece of a defined word.
        senses: in the order of the lexicon; `senses[i].word` is the lexicon's word. At least one.
        host: for the way "host", where in which word it stands.
    """

    id: int
    surface: Surface
    way: Way
    senses: tuple[Sense, ...]
    host: Host | None = None

    @property
    def glosses(self) -> tuple[str, ...]:
        """What the senses say."""
        return tuple(sense.gloss for sense in self.senses)


@dataclass(frozen=True)
class Choices:
    """How tokens are matched.

    Attributes:
        case: "auto" takes words that the tokenizer writes as the token and, for a token with none, words that differ
            in case only; "exact" only words written as the token; "fold" adds those that differ in case to the others.
        senses: "all" of a token, 64 at most, or the "first".
        follow: whether a sense that only says of which word this is a form gets that word's first gloss appended.
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
        for name, value, known in (("case", self.case, Case), ("senses", self.senses, Senses)):
            if value not in get_args(known):
                raise ValueError(f"{name} cannot be {str(value)[:40]!r}; choose one of {', '.join(get_args(known))}")


@dataclass
class Alignment:
    """The tokens of a vocabulary with their definitions.

    Attributes:
        surfaces: of every row, by id.
        entries: the defined tokens by rising id.
        lexicon: whose sources tell how much was read and skipped in the latest reading.
        choices: how tokens were matched.
        tally: senses of the lexicon that were not used, by reason, and forms of other words followed or kept.
    """

    surfaces: list[Surface]
    entries: dict[int, Entry]
    lexicon: Lexicon
    choices: Choices
    tally: Counter[str] = field(default_factory=Counter)

    @property
    def undefined(self) -> list[int]:
        """Rising ids of the tokens that stand for some text and have no definition; their rows stay as they are."""
        open_kinds: set[Kind] = {*DEFINABLE, "piece"}
        return [id for id, surface in enumerate(self.surfaces) if surface.kind in open_kinds and id not in self.entries]

    def covered(self, *kinds: Kind) -> list[int]:
        """Rising ids of the defined tokens, of some kinds or all."""
        return [id for id, entry in self.entries.items() if not kinds or entry.surface.kind in kinds]

    def choose(self, ids: Iterable[int]) -> list[Entry]:
        """The entries of some tokens, each once, by rising id.

        Raises:
            IndexError: an id is negative or beyond the table.
            ValueError: a token is special, unused, padding or part of a character.
            KeyError: tokens have no definition; up to ten are named.
        """
        wanted = sorted(set(ids))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self.surfaces):
            wrong = wanted[0] if wanted[0] < 0 else wanted[-1]
            raise IndexError(f"there is no row {wrong}; the table has rows 0 to {len(self.surfaces) - 1}")
        fixed = [id for id in wanted if self.surfaces[id].kind in ("special", "unused", "padding", "byte")]
        if fixed:
            what = ", ".join(f"{id} ({self.surfaces[id].kind})" for id in fixed[:10])
            raise ValueError(f"these rows stand for no text that a definition can describe: {what}; leave them out")
        missing = [id for id in wanted if id not in self.entries]
        if missing:
            what = ", ".join(f"{id} {self.surfaces[id].token[:40]!r}" for id in missing[:10])
            raise KeyError(
                f"{len(missing)} tokens have no definition in the lexicon: {what}; leave them out or define them"
            )
        return [self.entries[id] for id in wanted]
