"""How frequent each token is: from a text, a file of counts, a run's own training text, or the order of merges."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64
from tokenizers import Tokenizer
from torch import Tensor

from decone.data import corpora, published
from decone.diagnosis.result import FrequencyFacts
from decone.diagnosis.rows import Rows
from decone.models.tables import ModelTables
from decone.token_texts import special_ids, token_rows, token_strings, token_texts
from decone.training import inputs
from decone.training.run import CONFIG, Run
from decone.vocab.counts import count_tokens
from decone.vocab.groups import frequency_groups

PIECE = 4096  # characters tokenised at once, about; the library is linear in the text only for short inputs
BATCH = 256  # pieces at once
Source = Literal["text", "counts", "training", "merges", "none"]
MOST = 2**62  # occurrences in all
MERGES = {
    "BPE": "ids of a BPE vocabulary rise as merges get rarer",
    "WordPiece": "ids of a WordPiece vocabulary rise as tokens get rarer, roughly",
    "Unigram": "ids of a Unigram vocabulary rise as scores fall",
}


@dataclass(frozen=True)
class Frequencies:
    """How frequent each token is.

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
    model_tables: ModelTables, text: str | None = None, counts: Path | None = None, rows: Rows | None = None
) -> Frequencies:
    """Finds how frequent each token is, from the best source there is.

    Args:
        model_tables: the model.
        text: a text to count in. Its tokens count for the first copy of a run's vocabulary, and with a run's share of
            the simulated language for the second.
        counts: lines of id or token, a tab and a count, or a JSON object; goes before the text.
        rows: what `find_rows` gave; without it non-finite rows are not told from others, nor unreachable ones.

    Raises:
        ValueError: the file or the text cannot be used; the message says what to change.
    """
    found: Tensor | None = None
    if counts is not None:
        found, facts = read_counts(counts, model_tables), _facts("counts")
    elif text is not None:
        found, facts = _in_text(model_tables, text), _facts("text")
    else:
        found, warning = _in_training(model_tables)
        facts = _by_order(model_tables, warning) if found is None else _facts("training")
    last = torch.zeros(model_tables.output.shape[0], dtype=torch.bool)
    special, never = last.clone(), last.clone()
    if model_tables.tokenizer is not None:
        last[:] = True
        last[token_rows(model_tables, token_strings(model_tables.tokenizer))] = False
    special[
        token_rows(model_tables, special_ids(model_tables))
        if model_tables.tokenizer
        else sorted(special_ids(model_tables))
    ] = True
    if rows is not None:
        last[sorted(rows.of("non-finite"))] = True
        never[sorted(rows.of("unreachable"))] = True
    return _split(found, last, special & ~last, never & ~last & ~special, facts)


def read_counts(path: Path, model_tables: ModelTables) -> Int64[Tensor, " V"]:
    """Reads a file of counts.

    A file whose keys are all whole numbers gives ids; any other gives tokens as they stand in the vocabulary.

    Raises:
        ValueError: it cannot be read, or names what the model does not have; the message says which line.
    """
    if not path.exists():
        raise ValueError(f'no file {path}; name a file of lines "id<TAB>count" or "token<TAB>count"')
    found = _pairs(corpora.read_text(path), path)
    size = model_tables.output.shape[0]
    result = torch.zeros(size, dtype=torch.int64)
    if all(re.fullmatch(r"[0-9]{1,12}", key) for key, _, _ in found):
        names = {str(row): row for row in range(size)}
        missing = f"is beyond the {size:,} rows of the table; are these counts of another model?"
        found = [(str(int(key)), count, where) for key, count, where in found]
    elif model_tables.tokenizer is None:
        raise ValueError(f"{path} counts tokens, and {model_tables.name} has no tokenizer; give ids instead of tokens")
    else:
        names = {token: row for row, token in reversed(list(enumerate(token_texts(model_tables))))}
        missing = "is no token of the model; write tokens as they stand in its vocabulary, or ids"
    seen: set[int] = set()
    total = 0
    for key, count, where in found:
        row = names.get(key)
        if row is None:
            raise ValueError(f"{where}: {key[:40]!r} {missing}")
        if row in seen:
            raise ValueError(f"{where}: {key[:40]!r} is counted twice; add the counts up")
        seen.add(row)
        total += count
        if total > MOST:
            raise ValueError(f"{where}: the counts add up to more than {MOST:,}; divide them all by some number")
        result[row] = count
    if not total:
        raise ValueError(f"{path} counts nothing; give at least one token with a count above 0")
    return result


def _pairs(text: str, path: Path) -> list[tuple[str, int, str]]:
    """Keys, counts and where each stands."""
    if path.suffix == ".json" or text.lstrip().startswith("{"):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            if path.suffix == ".json":
                raise ValueError(f"{path} is not JSON ({str(error)[:100]}); write an object of counts") from None
        else:
            return [(key, _whole(count, f"{path}, {key[:40]!r}"), str(path)) for key, count in _object(content, path)]
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        key, tab, count = line.removesuffix("\r").rpartition("\t")
        where = f"{path}, line {number}"
        if tab:
            pairs.append((key, _whole(count, where), where))
        elif line.strip():
            raise ValueError(f'{where}: {line[:40]!r} is not "id<TAB>count" or "token<TAB>count"')
    return pairs


def _object(content: object, path: Path) -> Iterator[tuple[str, object]]:
    if not isinstance(content, dict):
        raise ValueError(f'{path} is no JSON object; write {{"token": count, ...}}')
    yield from content.items()


def _whole(count: object, where: str) -> int:
    if isinstance(count, str) and re.fullmatch(r" *[0-9]{1,18} *", count):
        return int(count)
    if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 10**18:
        return count
    raise ValueError(f"{where}: {str(count)[:40]!r} is no count; write a whole number from 0 on")


def _in_text(model_tables: ModelTables, text: str) -> Int64[Tensor, " V"]:
    if model_tables.tokenizer is None:
        raise ValueError(
            f"{model_tables.name} has no tokenizer to count tokens of a text with; give --counts FILE with ids"
        )
    tokenizer = Tokenizer.from_str(model_tables.tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    size = model_tables.output.shape[0]
    result = torch.zeros(size, dtype=torch.int64)
    pieces = _pieces(text)
    while batch := [piece for _, piece in zip(range(BATCH), pieces, strict=False)]:
        try:
            found = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        except Exception as error:  # the library raises bare Exception for an unknown character
            raise ValueError(
                f"the tokenizer of {model_tables.name} cannot read the text ({str(error)[:100]}); remove characters it does "
                "not know, or give --counts FILE"
            ) from None
        ids = torch.tensor([index for piece in found for index in piece.ids], dtype=torch.int64)
        result += count_tokens(ids[ids < size], size)
    if not int(result.sum()):
        raise ValueError("the text has no token of the model; give a text in its language, or --counts FILE")
    return _share(model_tables, result, _low_resource(model_tables)) if model_tables.copies > 1 else result


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


def _share(model_tables: ModelTables, counts: Tensor, low: float) -> Tensor:
    """Occurrences of the first copy spread over two, as training windows are."""
    assert model_tables.tokenizer is not None
    size = model_tables.tokenizer.get_vocab_size()
    first = counts[:size].double()
    result = counts.clone()
    result[:size] = (first * (1 - low)).round().long()
    result[size : 2 * size] = (first * low).round().long()[: len(result) - size]
    return result


def _low_resource(model_tables: ModelTables) -> float:
    folder = Path(model_tables.name)
    if model_tables.family != "decone" or not (folder / CONFIG).is_file():
        return 0.0
    return Run.open(folder).config.language.low_resource


def _in_training(model_tables: ModelTables) -> tuple[Tensor | None, str]:
    """Occurrences in the training part of a run's own text; None and why where there is none."""
    folder = Path(model_tables.name)
    if model_tables.family != "decone" or model_tables.tokenizer is None or not (folder / CONFIG).is_file():
        return None, ""
    try:
        run = Run.open(folder)
        name = run.config.corpus.name
        if not _is_here(name):
            return None, f"the text {name} it was trained on is not here; "
        given = inputs.read(run.config, run.tokenizer())
    except (ValueError, OSError) as error:
        return None, f"its training text cannot be counted ({error}); "
    size = model_tables.output.shape[0]
    if given.languages.vocabulary != size:
        return None, "its training text makes another vocabulary now; "
    found = count_tokens(given.train, size)
    return (_share(model_tables, found, given.languages.low_resource) if given.languages.simulated else found), ""


def _is_here(name: str) -> bool:
    """Whether a text can be read without fetching anything."""
    if name not in corpora.PUBLISHED:
        return name == corpora.DEFAULT or Path(name).is_file()
    return any(path.is_file() for path in published.places(corpora.PUBLISHED[name]))


def _by_order(model_tables: ModelTables, why: str) -> FrequencyFacts:
    advice = "give --text FILE or --counts FILE for real frequencies"
    if model_tables.tokenizer is None:
        warning = f"without a tokenizer ids stand for frequency ranks, which they may have nothing to do with; {advice}"
        return _facts("none", warning)
    kind = type(model_tables.tokenizer.model).__name__
    if kind not in MERGES:
        warning = f"{why}ids of a {kind} vocabulary say little about frequency and stand for ranks only; {advice}"
        return _facts("none", warning)
    return _facts("merges", f"{why}frequency is only guessed: {MERGES[kind]}; {advice}")


def _facts(source: Source, warning: str | None = None) -> FrequencyFacts:
    return FrequencyFacts(source=source, tokens=None, types=None, warning=warning)


def _split(counts: Tensor | None, last: Tensor, special: Tensor, never: Tensor, facts: FrequencyFacts) -> Frequencies:
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
    known = {} if counts is None else {"tokens": int(counts.sum()), "types": int((counts > 0).sum())}
    sizes = {name: len(ids) for name, ids in groups.items()}
    return Frequencies(counts, rank, groups, facts.model_copy(update={"sizes": sizes, **known}))
