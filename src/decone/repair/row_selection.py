"""Rows that a repair changes, named in one grammar by every repair.

    all | rare | rare:SHARE | seen:SHARE | last:SHARE | a file of ids

and for a repair that can tell them, `doubtful`. Shares are of the candidates: rows, or tokens with a definition.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Int64
from torch import Tensor

from decone.data.corpora import read_text
from decone.files.foreign import plain
from decone.repair.alignment.result import TokenAlignment

RowKind = Literal["all", "rare", "seen", "last", "doubtful", "file"]
Strategy = Literal["index", "counts", "task"]
RARE = 0.2  # of the candidates, where "rare" has no share
GRAMMAR = "rare, rare:SHARE, seen:SHARE, last:SHARE, all, or a file of ids"
BY_INDEX = "rare is what has a high id; give --counts to go by how often a token occurs"


@dataclass(frozen=True)
class RowSelection:
    """Rows by name, as a command line writes them.

    Attributes:
        text: as written.
        kind: of the name.
        share: behind the colon; None without one.
    """

    text: str
    kind: RowKind
    share: float | None = None

    def strategy(self, counts: Int64[Tensor, " V"] | None) -> Strategy:
        """The strategy of `rarest` for a share of the candidates."""
        if self.kind == "seen":
            return "task"
        return "index" if self.kind == "last" or counts is None else "counts"


def parse_rows(text: str, doubtful: bool = False) -> RowSelection:
    """Reads the name of rows.

    Args:
        text: as on a command line.
        doubtful: allow "doubtful".

    Raises:
        ValueError: it is none of the names and no file, or its share is no number.

    Example:
        >>> parse_rows("rare:0.1"), parse_rows("all").kind
        (RowSelection(text='rare:0.1', kind='rare', share=0.1), 'all')
    """
    word, _, number = text.partition(":")
    if text == "all" or (doubtful and text == "doubtful"):
        return RowSelection(text, "all" if text == "all" else "doubtful")
    for kind in ("rare", "seen", "last"):
        if word == kind and (number or kind == "rare"):
            try:
                return RowSelection(text, kind, float(number) if number else None)
            except ValueError:
                raise ValueError(f"--rows {plain(text, 40)!r} is no share; write e.g. {word}:0.2") from None
    if not Path(text).is_file():
        names = f"doubtful, {GRAMMAR}" if doubtful else GRAMMAR
        raise ValueError(f"no file {plain(text, 80)}; --rows takes {names}")
    return RowSelection(text, "file")


def select_rows(selection: RowSelection, size: int, counts: Int64[Tensor, " V"] | None = None) -> Int64[Tensor, " M"]:
    """Selects rows of a table by name.

    Args:
        selection: of rows.
        size: V of the table.
        counts: occurrences per row, [V].

    Returns:
        Rising ids.

    Raises:
        ValueError: no row is selected, counts are missing, or a file holds anything but ids of the table.

    Example:
        >>> select_rows(parse_rows("last:0.25"), 10).tolist()
        [8, 9]
    """
    everything = torch.arange(size)
    if selection.kind == "all":
        return everything
    if selection.kind == "file":
        return read_ids(Path(selection.text), size)
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
        ValueError: no token is selected, counts are missing, or ids of a file are special or not defined.
    """
    defined = torch.tensor(alignment.defined_ids(), dtype=torch.long)
    if selection.kind == "all":
        return defined
    if selection.kind == "file":
        ids = read_ids(Path(selection.text), len(alignment.surfaces))
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
        raise ValueError(f"choose tokens by one of {', '.join(get_args(Strategy))}, not {str(strategy)[:40]!r}")
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


def read_ids(path: Path, size: int) -> Int64[Tensor, " M"]:
    """Reads a list of ids, separated by anything that is white or a comma; "#" begins a remark.

    Returns:
        The different ids, rising.

    Raises:
        ValueError: the file cannot be read, or holds something else than ids of a table with `size` rows.
    """
    if not path.is_file():
        raise ValueError(f"no file {plain(path, 80)}; --rows takes {GRAMMAR}")
    ids: set[int] = set()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        for word in re.split(r"[\s,]+", line.partition("#")[0].strip()):
            if word and not re.fullmatch(r"[0-9]{1,12}", word):
                raise ValueError(f"{path}, line {number}: {word[:40]!r} is no id; write whole numbers from 0 on")
            if word and int(word) >= size:
                raise ValueError(
                    f"{path}, line {number}: id {word} is beyond the table's {size:,} rows (0 to {size - 1})"
                )
            if word:
                ids.add(int(word))
    if not ids:
        raise ValueError(f"{path} lists no id; write one per line")
    return torch.tensor(sorted(ids))


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
        raise ValueError(f"--rows {plain(selection.text, 40)} chooses none of {noun}; give a share above 0: last:0.2")
    return ids
