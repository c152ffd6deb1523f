"""Rows that a repair changes, named in one grammar by every repair.

    all | rare | rare:SHARE | seen:SHARE | last:SHARE | a list of ids, ranges of ids and tokens | a file of such

and for repairs that can tell them, `doubtful` and `untrained`. Shares are of the candidates: rows, or tokens with a
definition.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Int64
from torch import Tensor

from decone.data.corpora import read_text
from decone.files.foreign import plain, quoted
from decone.repair.alignment.result import TokenAlignment

RowKind = Literal["all", "rare", "seen", "last", "doubtful", "untrained", "list"]
Strategy = Literal["index", "counts", "task"]
_SPAN = re.compile(r"([0-9]{1,12})(?:-([0-9]{1,12}))?")
RARE = 0.2  # of the candidates, where "rare" has no share
GRAMMAR = "rare, rare:SHARE, seen:SHARE, last:SHARE, all, ids and tokens like 5,7-9,<s>, or a file of them"
BY_INDEX = "rare is what has a high id; give --counts to go by how often a token occurs"


@dataclass(frozen=True)
class RowSelection:
    """Rows by name, as a command line writes them.

    Attributes:
        text: as written.
        kind: of the name.
        share: behind the colon; None without one.
        option: that the text stands behind, for messages.
        names: that it may be, for messages.
    """

    text: str
    kind: RowKind
    share: float | None = None
    option: str = "--rows"
    names: str = GRAMMAR

    def strategy(self, counts: Int64[Tensor, " V"] | None) -> Strategy:
        """The strategy of `rarest` for a share of the candidates."""
        if self.kind == "seen":
            return "task"
        return "index" if self.kind == "last" or counts is None else "counts"


def parse_rows(text: str, special: RowKind | None = None, option: str = "--rows") -> RowSelection:
    """Reads the name of rows.

    Args:
        text: as on a command line.
        special: "doubtful" or "untrained", for a repair that can tell such rows.
        option: that the text stands behind, for messages.

    Raises:
        ValueError: a share is no number.

    Example:
        >>> parse_rows("rare:0.1").share, parse_rows("5,7-9").kind
        (0.1, 'list')
    """
    word, _, number = text.partition(":")
    selection = RowSelection(text, "list", None, option, GRAMMAR if special is None else f"{special}, {GRAMMAR}")
    if text == "all":
        return replace(selection, kind="all")
    if special is not None and text == special:
        return replace(selection, kind=special)
    for kind in ("rare", "seen", "last"):
        if word == kind and (number or kind == "rare"):
            try:
                return replace(selection, kind=kind, share=float(number) if number else None)
            except ValueError:
                raise ValueError(f"{option} {quoted(text)} is no share; write e.g. {word}:0.2") from None
    return selection


def select_rows(
    selection: RowSelection,
    size: int,
    counts: Int64[Tensor, " V"] | None = None,
    tokens: Mapping[str, int] | None = None,
) -> Int64[Tensor, " M"]:
    """Selects rows of a table by name.

    Args:
        selection: of rows.
        size: V of the table.
        counts: occurrences per row, [V].
        tokens: ids of the tokens that a list may name.

    Returns:
        Rising ids.

    Raises:
        ValueError: no row is selected, counts are missing, or a list names anything but ids and tokens of the table.

    Example:
        >>> select_rows(parse_rows("last:0.25"), 10).tolist()
        [8, 9]
    """
    everything = torch.arange(size)
    if selection.kind == "all":
        return everything
    if selection.kind == "list":
        return read_ids(selection, size, tokens)
    return _share(selection, everything, size, counts, f"{size:,} rows")


def select_defined_rows(
    selection: RowSelection, alignment: TokenAlignment, counts: Int64[Tensor, " V"] | None = None
) -> Int64[Tensor, " M"]:
    """Selects rows among the tokens that have a definition; "doubtful" are candidates, the rare ones.

    Args:
        selection: of rows.
        alignment: of the vocabulary.
        counts: occurrences per row, [V].

    Returns:
        Rising ids.

    Raises:
        ValueError: no token is selected, counts are missing, or tokens of a list are special or not defined.
    """
    defined = torch.tensor(alignment.defined_ids(), dtype=torch.long)
    if selection.kind == "all":
        return defined
    if selection.kind == "list":
        tokens = {surface.token: index for index, surface in enumerate(alignment.surfaces)}
        ids = read_ids(selection, len(alignment.surfaces), tokens)
        try:
            alignment.select(ids.tolist())
        except KeyError as error:
            raise ValueError(str(error.args[0])) from None
        return ids
    return _share(selection, defined, len(alignment.surfaces), counts, f"{len(defined):,} defined tokens")


def select_tokens(
    alignment: TokenAlignment, strategy: Strategy, ratio: float, counts: Int64[Tensor, " V"] | None = None
) -> Int64[Tensor, " M"]:
    """Selects a share of the tokens that have a definition.

    Args:
        alignment: of the vocabulary.
        strategy: "index" the highest ids, where their order stands for frequency; "counts" the rarest; "task" the
            rarest of those that occur at all, as the released code of DefinitionEMB does for a task.
        ratio: share of the defined tokens, 0 to 1, rounded down; with "task" of those that occur.
        counts: occurrences per row, [V].

    Returns:
        Rising ids; equal counts go by id, higher ones first.

    Raises:
        ValueError: the ratio or the strategy cannot be, or counts are missing or of another length.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from decone.data.lexicons import Lexicon
        >>> from decone.repair.alignment.align import align
        >>> tokenizer = Tokenizer(models.WordLevel({"ice": 0, "cone": 1, "sea": 2}, unk_token="ice"))
        >>> alignment = align(tokenizer, Lexicon.of({"ice": "frozen water", "cone": "a solid", "sea": "salt water"}))
        >>> select_tokens(alignment, "task", 0.5, torch.tensor([7, 0, 3])).tolist()
        [2]
    """
    return rarest(
        torch.tensor(alignment.defined_ids(), dtype=torch.long), len(alignment.surfaces), strategy, ratio, counts
    )


def rarest(
    candidates: Int64[Tensor, " N"],
    size: int,
    strategy: str,
    ratio: float,
    counts: Int64[Tensor, " V"] | None = None,
) -> Int64[Tensor, " M"]:
    """Selects a share of candidates, as `select_tokens` does of the defined tokens.

    Args:
        candidates: rising ids.
        size: V of the table.
        strategy: as of `select_tokens`.
        ratio: share of the candidates.
        counts: occurrences per row, [V].

    Raises:
        ValueError: as `select_tokens`.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"choose tokens by one of {', '.join(get_args(Strategy))}, not {quoted(str(strategy))}")
    if not 0 <= ratio <= 1:
        raise ValueError(f"the share of tokens is {ratio:g}; give one from 0 to 1")
    if strategy == "index":
        return candidates[len(candidates) - int(ratio * len(candidates)) :]
    if counts is None or counts.shape != (size,):
        raise ValueError(f"by {strategy}, tokens are chosen by counts of all {size:,} rows; give them")
    ranked = candidates[counts[candidates] > 0] if strategy == "task" else candidates
    # Rarest first, of equal ones the higher id first.
    order = torch.tensor(
        sorted(range(len(ranked)), key=lambda index: (int(counts[ranked[index]]), -int(ranked[index]))),
        dtype=torch.long,
    )
    return ranked[order[: int(ratio * len(ranked))]].sort().values


def read_ids(selection: RowSelection, size: int, tokens: Mapping[str, int] | None = None) -> Int64[Tensor, " M"]:
    """Reads a list of ids, ranges of ids such as 7-9, and tokens as they stand in the vocabulary.

    In a text they stand between commas. In a file each token has a line to itself, ids and ranges are separated by
    commas or anything that is white, and "#" begins a remark. What looks like an id is one, whatever tokens there are.

    Args:
        selection: of kind "list".
        size: V of the table.
        tokens: ids by token.

    Returns:
        The different ids, rising.

    Raises:
        ValueError: the file cannot be read, or something is neither an id below `size` nor a token.

    Example:
        >>> read_ids(parse_rows("5, 7-9, <s>"), 10, {"<s>": 1}).tolist()
        [1, 5, 7, 8, 9]
    """
    text, tokens, ids = selection.text, tokens or {}, set[int]()
    words, source = _words(selection, tokens)
    for where, word in words:
        span = _SPAN.fullmatch(word)
        if span is None and word not in tokens:
            if word == text.strip():
                raise ValueError(f"no file {plain(text, 80)}; {selection.option} takes {selection.names}")
            raise ValueError(
                f"{where}: {quoted(word)} is no id and no token of the model; write whole numbers from 0 on, "
                "ranges like 5-9, or tokens as they stand in its vocabulary"
            )
        first, last = (tokens[word],) * 2 if span is None else (int(span[1]), int(span[2] or span[1]))
        if max(first, last) >= size:
            raise ValueError(f"{where}: id {max(first, last)} is beyond the table's {size:,} rows (0 to {size - 1})")
        if last < first:
            raise ValueError(f"{where}: {word} ends before it begins; write {last}-{first}")
        ids.update(range(first, last + 1))
    if not ids:
        raise ValueError(f"{source} lists no id; write one per line")
    return torch.tensor(sorted(ids))


def _words(selection: RowSelection, tokens: Mapping[str, int]) -> tuple[Iterator[tuple[str, str]], str]:
    """The words of a list, each with its position for messages, and the name of the list."""
    path, stated = Path(selection.text), f"{selection.option} {plain(selection.text, 40)}"
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a long list is no name of a file
        is_file = False
    if not is_file:
        text = selection.text.strip()
        words = [text] if text in tokens else [word.strip() for word in text.split(",")]
        return ((stated, word) for word in words if word), stated
    lines = ((f"{path}, line {number}", line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1))
    return (
        (where, word)
        for where, line in lines
        for word in ([line] if line in tokens else re.split(r"[\s,]+", line.partition("#")[0]))
        if word
    ), str(path)


def _share(
    selection: RowSelection,
    candidates: Int64[Tensor, " N"],
    size: int,
    counts: Int64[Tensor, " V"] | None,
    noun: str,
) -> Int64[Tensor, " M"]:
    share = RARE if selection.share is None else selection.share
    ids = rarest(candidates, size, selection.strategy(counts), share, counts)
    if not len(ids):
        raise ValueError(
            f"{selection.option} {plain(selection.text, 40)} chooses none of {noun}; give a share above 0: last:0.2"
        )
    return ids
