"""Which rows are rebuilt: the rarest, a share of the ids, a list, or all that have a definition."""

from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Int64
from torch import Tensor

from decone.files.foreign import plain
from decone.repair.entries import Alignment
from decone.repair.rows import read_ids

Strategy = Literal["index", "counts", "task"]
RARE = 0.2  # of the defined tokens


def select_tokens(
    alignment: Alignment, strategy: Strategy, ratio: float, counts: Int64[Tensor, " V"] | None = None
) -> Int64[Tensor, " M"]:
    """Chooses a share of the tokens that have a definition.

    Args:
        alignment: of the vocabulary.
        strategy: "index" the highest ids, where their order stands for frequency; "counts" the rarest; "task" the
            rarest of those that occur at all, as the released code chooses for a task.
        ratio: share of the defined tokens, 0 to 1, rounded down; with "task" of those that occur.
        counts: occurrences per row, [V].

    Returns:
        Rising ids; equal counts go by id, higher ones first.

    Raises:
        ValueError: the ratio or the strategy cannot be, or counts are missing or of another length.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from decone.data.lexicons import Lexicon
        >>> from decone.repair.alignment import align
        >>> tokenizer = Tokenizer(models.WordLevel({"ice": 0, "cone": 1, "sea": 2}, unk_token="ice"))
        >>> found = align(tokenizer, Lexicon.of({"ice": "frozen water", "cone": "a solid", "sea": "salt water"}))
        >>> select_tokens(found, "task", 0.5, torch.tensor([7, 0, 3])).tolist()
        [2]
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"choose tokens by one of {', '.join(get_args(Strategy))}, not {str(strategy)[:40]!r}")
    if not 0 <= ratio <= 1:
        raise ValueError(f"the share of tokens is {ratio:g}; give one from 0 to 1")
    defined = torch.tensor(alignment.covered(), dtype=torch.long)
    if strategy == "index":
        return defined[len(defined) - int(ratio * len(defined)) :]
    if counts is None or counts.shape != (len(alignment.surfaces),):
        raise ValueError(
            f"by {strategy}, tokens are chosen by counts of all {len(alignment.surfaces):,} rows; give them"
        )
    known = defined[counts[defined] > 0] if strategy == "task" else defined
    # Rarest first, of equal ones the higher id first.
    order = torch.tensor(
        sorted(range(len(known)), key=lambda k: (int(counts[known[k]]), -int(known[k]))), dtype=torch.long
    )
    return known[order[: int(ratio * len(known))]].sort().values


def rows_by_name(alignment: Alignment, name: str, counts: Int64[Tensor, " V"] | None = None) -> Int64[Tensor, " M"]:
    """Chooses rows as a command line names them.

    Args:
        alignment: of the vocabulary.
        name: "all" defined tokens; "rare" or "rare:SHARE" of them by counts, without counts by index; "last:SHARE" by
            index; "seen:SHARE" the rarest that occur; or a file of ids.
        counts: occurrences per row, [V].

    Returns:
        Rising ids.

    Raises:
        ValueError: the name is none of these, no token is chosen, or ids of the file are special or not defined.
    """
    word, _, text = name.partition(":")
    if name == "all":
        return torch.tensor(alignment.covered(), dtype=torch.long)
    if word in ("rare", "last", "seen") and (text or word == "rare"):
        try:
            share = float(text) if text else RARE
        except ValueError:
            raise ValueError(f"--rows {plain(name, 40)!r} is no share; write e.g. {word}:0.2") from None
        ways: dict[str, Strategy] = {"rare": "index" if counts is None else "counts", "last": "index", "seen": "task"}
        chosen = select_tokens(alignment, ways[word], share, counts)
        if not len(chosen):
            raise ValueError(f"--rows {plain(name, 40)} chooses none of {len(alignment.entries):,} defined tokens")
        return chosen
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"no file {plain(name, 80)}; --rows takes doubtful, rare, rare:SHARE, seen:SHARE, last:SHARE, all, or a "
            "file of ids"
        )
    ids = read_ids(path, len(alignment.surfaces))
    try:
        alignment.choose(ids.tolist())
    except KeyError as error:
        raise ValueError(str(error.args[0])) from None
    return ids
