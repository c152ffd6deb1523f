"""Frequency of each token: from a text, a file of counts, a run's own training text, or the order of merges.

Both frequencies and token texts are indexed by row of the output table, in all copies of a run's vocabulary.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Int64
from pydantic import BaseModel, Field
from tokenizers import Tokenizer
from torch import Tensor

from decone.data import corpora, published
from decone.data.tokens import Languages
from decone.files.foreign import quoted
from decone.models.load import is_run
from decone.models.tables import ModelTables
from decone.training import inputs
from decone.training.run import COUNTS, Run
from decone.vocab.counts import count_tokens, frequency_groups
from decone.vocab.reach import Reach

PIECE = 4096  # characters tokenised at once, about; the library is linear in the text only for short inputs
BATCH = 256  # pieces at once
FrequencySource = Literal["text", "counts", "training", "merges", "none"]
MOST = 2**62  # occurrences in all
SOURCES: dict[FrequencySource, str] = {
    "text": "counted in the given text",
    "counts": "from the given counts",
    "training": "counted in training",
    "merges": "guessed from the tokenizer's order",
    "none": "not known",
}
MERGES = {
    "BPE": "ids of a BPE vocabulary rise as merges get rarer",
    "WordPiece": "ids of a WordPiece vocabulary rise as tokens get rarer, roughly",
    "Unigram": "ids of a Unigram vocabulary rise as scores fall",
}


class FrequencyFacts(BaseModel, extra="forbid"):
    """Source and size of the counts behind the frequencies of tokens."""

    source: FrequencySource
    tokens: int | None = Field(default=None, description="occurrences counted")
    types: int | None = Field(default=None, description="different tokens counted")
    sizes: dict[str, int] = Field(default_factory=dict, description="rows by group")
    warning: str | None = None

    @property
    def counted(self) -> bool:
        """Occurrences were counted; otherwise ranks are guessed from the order of ids."""
        return self.source in ("text", "counts", "training")


OF_TEXT = FrequencyFacts(
    source="text",
    warning="frequency groups are of this text itself, in which rare tokens hardly occur; give --counts FILE of a text "
    "like that of training, which decone counts makes",
)


@dataclass(frozen=True)
class Frequencies:
    """Frequency, rank and group of each token.

    Attributes:
        counts: occurrences, [V]; None where only an order is known.
        rank: from 1 for the most frequent, [V]; rows without a token and non-finite rows come last.
        groups: rising ids of "frequent", "medium" and "rare" tokens, 30, 50 and 20 % of those that are not special, and
            of "special" ones. Rows without a token and non-finite rows are in none.
        facts: where this comes from.
    """

    counts: Int64[Tensor, " V"] | None
    rank: Int64[Tensor, " V"]
    groups: dict[str, Int64[Tensor, " M"]]
    facts: FrequencyFacts


def frequencies(
    model_tables: ModelTables,
    text: str | None = None,
    counts: Path | None = None,
    *,
    nonfinite: Set[int] = frozenset(),
    unreachable: Set[int] = frozenset(),
) -> Frequencies:
    """Determines how frequent each token is, from the best source there is.

    Args:
        model_tables: the model.
        text: a text to count in, where neither `counts` nor counts of training are there. Its tokens count for the
            first copy of a run's vocabulary, and with a run's share of the simulated language for the second.
        counts: lines of id or token, a tab and a count, or a JSON object; goes before counts of training.
        nonfinite: rows with NaN or infinity; they come last and are in no group.
        unreachable: rows that no text leads to; where only an order is known they are rarer than all others.

    Raises:
        ValueError: the file or the text cannot be used; the message says what to change.
    """
    occurrences, facts = known_counts(model_tables, counts)
    if occurrences is None and text is not None:
        occurrences, facts = count_texts(model_tables, [text]), OF_TEXT
    last = torch.zeros(model_tables.output.shape[0], dtype=torch.bool)
    special, never = last.clone(), last.clone()
    if model_tables.vocabulary is not None:
        last[:] = True
        last[token_rows(model_tables, model_tables.vocabulary.values())] = False
    special[token_rows(model_tables, special_ids(model_tables))] = True
    last[sorted(nonfinite)] = True
    never[sorted(unreachable)] = True
    return _split(occurrences, last, special & ~last, never & ~last & ~special, facts)


def known_counts(
    model_tables: ModelTables, counts: Path | None = None
) -> tuple[Int64[Tensor, " V"] | None, FrequencyFacts]:
    """Occurrences in a file of counts, else in the training text of a run, else None; and what is known of ranks."""
    if counts is not None:
        return read_counts(counts, model_tables), FrequencyFacts(source="counts")
    occurrences, reason = _counts_in_training(model_tables)
    facts = _facts_of_order(model_tables, reason) if occurrences is None else FrequencyFacts(source="training")
    return occurrences, facts


def read_counts(path: Path, model_tables: ModelTables) -> Int64[Tensor, " V"]:
    """Reads a file of counts.

    A file whose keys are all whole numbers gives ids; any other gives tokens as they stand in the vocabulary.

    Raises:
        ValueError: it cannot be read, or names what the model does not have; the message says which line.
    """
    if not path.exists():
        raise ValueError(f'no file {path}; name a file of lines "id<TAB>count" or "token<TAB>count"')
    entries = _count_entries(corpora.read_text(path), path)
    size = model_tables.output.shape[0]
    result = torch.zeros(size, dtype=torch.int64)
    if all(re.fullmatch(r"[0-9]{1,12}", key) for key, _, _ in entries):
        rows = {str(row): row for row in range(size)}
        missing = f"is beyond the {size:,} rows of the table; are these counts of another model?"
        entries = [(str(int(key)), count, where) for key, count, where in entries]
    elif model_tables.vocabulary is None:
        raise ValueError(f"{path} counts tokens, and {model_tables.name} has no tokenizer; give ids instead of tokens")
    else:
        rows = rows_by_token(model_tables)
        missing = "is no token of the model; write tokens as they stand in its vocabulary, or ids"
    counted: set[int] = set()
    total = 0
    for key, count, where in entries:
        row = rows.get(key)
        if row is None:
            raise ValueError(f"{where}: {quoted(key)} {missing}")
        if row in counted:
            raise ValueError(f"{where}: {quoted(key)} is counted twice; add the counts up")
        counted.add(row)
        total += count
        if total > MOST:
            raise ValueError(f"{where}: the counts add up to more than {MOST:,}; divide them all by some number")
        result[row] = count
    if not total:
        raise ValueError(f"{path} counts nothing; give at least one token with a count above 0")
    return result


def token_texts(model_tables: ModelTables) -> list[str]:
    """Token of every row of the output table, see `token_names`."""
    names = token_names(model_tables)
    return [names[row] for row in range(model_tables.output.shape[0])]


def token_names(model_tables: ModelTables) -> dict[int, str]:
    """Token of every row and of every id beyond the table, as in the vocabulary; foreign strings of any length.

    Returns:
        "<padding N>" for row N without a token, "<row N>" for all rows without names of tokens, with " (LR)" at the
        end in the second copy of a run's vocabulary; of several tokens with one id the first.

    Example:
        >>> from tokenizers import models
        >>> from decone.models.tables import MemoryTable
        >>> tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
        >>> table = MemoryTable("weight", torch.zeros(5, 2))
        >>> names = token_names(ModelTables("model", "decone", "run", table, tied=True, tokenizer=tokenizer, copies=2))
        >>> list(names.values())
        ['a', 'b', 'a (LR)', 'b (LR)', '<padding 4>']
    """
    vocabulary = model_tables.vocabulary
    names = {
        row: f"<{'row' if vocabulary is None else 'padding'} {row}>" for row in range(model_tables.output.shape[0])
    }
    for copy in range(model_tables.copies):
        mark = " (LR)" if copy else ""
        rows = _rows_of_copy(model_tables, (vocabulary or {}).values(), copy)
        names |= {row: token + mark for row, token in reversed(list(zip(rows, vocabulary or (), strict=True)))}
    return names


def rows_by_token(model_tables: ModelTables) -> dict[str, int]:
    """Row of every token by its text in `token_texts`; the first of equal ones."""
    return {token: row for row, token in reversed(list(enumerate(token_texts(model_tables))))}


def token_rows(model_tables: ModelTables, ids: Iterable[int]) -> list[int]:
    """Rows of ids of the tokenizer, in all copies of the vocabulary; ids beyond the table have none."""
    unique = set(ids)
    rows = {row for copy in range(model_tables.copies) for row in _rows_of_copy(model_tables, unique, copy)}
    return sorted(row for row in rows if 0 <= row < model_tables.output.shape[0])


def special_ids(model_tables: ModelTables) -> set[int]:
    """Ids that the model or the tokenizer itself marks as special: beginning, padding, mask and the like."""
    if model_tables.tokenizer is None:
        return set(model_tables.special)
    added = model_tables.tokenizer.get_added_tokens_decoder()
    return {index for index, token in added.items() if token.special} | model_tables.special


def rows_by_reach(model_tables: ModelTables, reached: Reach | None) -> dict[str, list[int]]:
    """Rows of the output table that no whole text leads to, by kind; rising, and empty without names of tokens.

    Args:
        model_tables: the model.
        reached: reach of its tokenizer; None leaves open which tokens a text reaches.

    Returns:
        "padded" rows have no token, and none above them has; "gap" rows have none among rows that have; "shared" ones
        have several; "reserved" ones a special token, "unreachable" ones a token that no text gives, and "partial" ones
        a part of a character.
    """
    tokens = Counter((model_tables.vocabulary or {}).values())
    named = set(token_rows(model_tables, tokens))
    size = model_tables.output.shape[0]
    end = max(named, default=-1) + 1 if tokens else size
    special = special_ids(model_tables)
    return {
        "padded": list(range(end, size)),
        "gap": [row for row in range(end) if row not in named] if tokens else [],
        "shared": token_rows(model_tables, (index for index, count in tokens.items() if count > 1)),
        "reserved": token_rows(model_tables, special) if tokens else [],
        "unreachable": token_rows(model_tables, set(reached.unreachable) - special) if reached else [],
        "partial": token_rows(model_tables, reached.partial) if reached else [],
    }


def _rows_of_copy(model_tables: ModelTables, ids: Iterable[int], copy: int) -> list[int]:
    """Rows of ids in one copy of the vocabulary; a vocabulary that is copied has no gaps."""
    start = copy * len(model_tables.vocabulary or ()) if copy else 0
    return [start + index for index in ids]


def _count_entries(text: str, path: Path) -> list[tuple[str, int, str]]:
    """Keys, counts and the position of each in the file."""
    if path.suffix == ".json" or text.lstrip().startswith("{"):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            if path.suffix == ".json":
                raise ValueError(f"{path} is not JSON ({str(error)[:100]}); write an object of counts") from None
        else:
            if not isinstance(content, dict):
                raise ValueError(f'{path} is no JSON object; write {{"token": count, ...}}')
            return [(key, _count(value, f"{path}, {quoted(key)}"), str(path)) for key, value in content.items()]
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        key, tab, count = line.removesuffix("\r").rpartition("\t")
        where = f"{path}, line {number}"
        if tab:
            entries.append((key, _count(count, where), where))
        elif line.strip():
            raise ValueError(f'{where}: {quoted(line)} is not "id<TAB>count" or "token<TAB>count"')
    return entries


def _count(value: object, where: str) -> int:
    if isinstance(value, str) and re.fullmatch(r" *[0-9]{1,18} *", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return value
    raise ValueError(f"{where}: {quoted(str(value))} is no count; write a whole number from 0 on")


def count_texts(model_tables: ModelTables, texts: Iterable[str]) -> Int64[Tensor, " V"]:
    """Counts the tokens of texts, each of which is cut by itself; over all copies of a run's vocabulary.

    Raises:
        ValueError: the model has no tokenizer that can do it, or no token of it occurs.
    """
    if model_tables.tokenizer is None:
        raise ValueError(f"{model_tables.name} has no tokenizer to count tokens of a text with; give --counts FILE")
    tokenizer = Tokenizer.from_str(model_tables.tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    size = model_tables.output.shape[0]
    result = torch.zeros(size, dtype=torch.int64)
    pieces = (piece for text in texts for piece in _pieces(text))
    while batch := [piece for _, piece in zip(range(BATCH), pieces, strict=False)]:
        try:
            encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        except Exception as error:  # the library raises bare Exception for an unknown character
            raise ValueError(
                f"the tokenizer of {model_tables.name} cannot read the text ({str(error)[:100]}); remove characters it "
                "does not know, or give --counts FILE"
            ) from None
        ids = torch.tensor([index for encoding in encodings for index in encoding.ids], dtype=torch.int64)
        result += count_tokens(ids[ids < size], size)
    if not int(result.sum()):
        raise ValueError("the text has no token of the model; give a text in its language, or --counts FILE")
    return result if model_tables.copies == 1 else _spread(model_tables, result)


def _pieces(text: str) -> Iterator[str]:
    """A text cut at ends of lines, else at spaces, else anywhere."""
    start = 0
    while start < len(text):
        stop = start + PIECE
        if stop < len(text):
            cut = text.rfind("\n", start, stop) + 1 or text.rfind(" ", start, stop)
            stop = cut if cut > start else stop
        yield text[start:stop]
        start = stop


def _spread(model_tables: ModelTables, counts: Tensor) -> Tensor:
    """Occurrences of the first copy of a run's vocabulary spread over its copies."""
    assert model_tables.tokenizer is not None
    if model_tables.family != "decone" or not is_run(model_tables.name):
        return counts
    languages = Languages(
        model_tables.tokenizer.get_vocab_size(), Run.open(Path(model_tables.name)).config.language.low_resource
    )
    copies = languages.spread(counts[: languages.size])[: len(counts)]
    return torch.cat((copies, counts[len(copies) :]))


def _counts_in_training(model_tables: ModelTables) -> tuple[Tensor | None, str]:
    """Occurrences in the training split of a run's own text; None and why where there is none."""
    folder = Path(model_tables.name)
    if model_tables.family != "decone" or model_tables.tokenizer is None or not is_run(model_tables.name):
        return None, ""
    try:
        run = Run.open(folder)
        if (folder / COUNTS).is_file():
            return read_counts(folder / COUNTS, model_tables), ""
        name = run.config.corpus.name
        if not _readable_offline(name):
            return None, f"the text {name} it was trained on is not here; "
        data = inputs.read(run.config, run.tokenizer())
    except (ValueError, OSError) as error:
        return None, f"its training text cannot be counted ({error}); "
    size = model_tables.output.shape[0]
    if data.languages.vocabulary != size:
        return None, "its training text makes another vocabulary now; "
    return data.languages.spread(count_tokens(data.train, data.languages.size)), ""


def _readable_offline(name: str) -> bool:
    """A text can be read without fetching anything."""
    if name not in corpora.PUBLISHED:
        return name == corpora.DEFAULT or Path(name).is_file()
    return any(path.is_file() for path in published.local_paths(corpora.PUBLISHED[name]))


def _facts_of_order(model_tables: ModelTables, why: str) -> FrequencyFacts:
    advice = "give --text FILE or --counts FILE for real frequencies"
    if model_tables.vocabulary is None:
        warning = f"without a tokenizer ids stand for frequency ranks, which they may have nothing to do with; {advice}"
        return FrequencyFacts(source="none", warning=warning)
    kind = "" if model_tables.tokenizer is None else type(model_tables.tokenizer.model).__name__
    if kind not in MERGES:
        warning = (
            f"{why}ids of a {kind or 'listed'} vocabulary say little about frequency and stand for ranks only; {advice}"
        )
        return FrequencyFacts(source="none", warning=warning)
    warning = f"{why}frequency is only guessed: {MERGES[kind]}; {advice}"
    return FrequencyFacts(source="merges", warning=warning)


def _split(
    counts: Int64[Tensor, " V"] | None,
    last: Bool[Tensor, " V"],
    special: Bool[Tensor, " V"],
    never: Bool[Tensor, " V"],
    facts: FrequencyFacts,
) -> Frequencies:
    size = len(last)
    # Higher is more frequent. Without counts the order of ids stands in, after which come what text never produces.
    key = torch.arange(size, 0, -1) - size * never.long() - 2 * size * special.long() if counts is None else counts
    floor = int(key.min()) - 1 if size else 0
    order = torch.argsort(torch.where(last, floor, key), descending=True, stable=True)
    rank = torch.empty(size, dtype=torch.int64)
    rank[order] = torch.arange(1, size + 1)
    ordinary = (~last & ~special).nonzero().squeeze(1)
    groups = {name: ordinary[ids] for name, ids in frequency_groups(key[ordinary]).items()}
    groups["special"] = special.nonzero().squeeze(1)
    totals = {} if counts is None else {"tokens": int(counts.sum()), "types": int((counts > 0).sum())}
    sizes = {name: len(ids) for name, ids in groups.items()}
    return Frequencies(counts, rank, groups, facts.model_copy(update={"sizes": sizes, **totals}))
