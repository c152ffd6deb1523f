"""Byte-pair encoding: which smaller tokens a token is built from, for it cannot be met without them.

Where a token comes out of a text, all merges inside it happened in the order of their ranks, and none across its ends;
so they are those that build it alone. A vocabulary that keeps them cuts the text the same: at every step the merge of
the lowest rank is one that is kept, and in the end no other is left that was not left before.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

Pair = tuple[str, str]


def read_merges(model: Mapping[str, Any]) -> list[Pair]:
    """The merges of a tokenizer.json, the first first; both ways of writing them down."""
    return [
        (parts[0], parts[2]) if isinstance(merge, str) else (str(merge[0]), str(merge[1]))
        for merge in model.get("merges") or []
        for parts in [merge.partition(" ") if isinstance(merge, str) else ("", "", "")]
    ]


def joined(pair: Pair, prefix: str = "") -> str:
    """What a merge makes: the mark of a continued word stands in front alone.

    Example:
        >>> joined(("lo", "##w"), "##")
        'low'
    """
    return pair[0] + pair[1].removeprefix(prefix)


def parts_of(tokens: Iterable[str], merges: Iterable[Pair], prefix: str = "", suffix: str = "") -> set[str]:
    """All tokens that others are built from, those themselves included where merges build them.

    Args:
        tokens: to build.
        merges: of the vocabulary, the first first.
        prefix: mark of pieces that continue a word.
        suffix: mark of pieces that end one.

    Example:
        >>> sorted(parts_of(["low", "zoo"], [("l", "o"), ("lo", "w"), ("o", "w")]))
        ['l', 'lo', 'low', 'o', 'w']
    """
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
    found: set[str] = set()
    for token in tokens:
        symbols = _symbols(token, prefix, suffix)
        seen = set(symbols)
        while len(symbols) > 1:
            rank, place = min((ranks.get(pair, len(ranks)), place) for place, pair in enumerate(pairwise(symbols)))
            if rank == len(ranks):
                break
            symbols[place : place + 2] = [joined((symbols[place], symbols[place + 1]), prefix)]
            seen.add(symbols[place])
        if symbols == [token]:
            found |= seen
    return found


def _symbols(token: str, prefix: str, suffix: str) -> list[str]:
    """The characters a token begins from, each with its mark."""
    inner = bool(prefix) and token.startswith(prefix) and len(token) > len(prefix)
    last = bool(suffix) and token.endswith(suffix) and len(token) > len(suffix)
    bare = token[len(prefix) if inner else 0 : len(token) - (len(suffix) if last else 0)]
    symbols = [(prefix if inner or place else "") + character for place, character in enumerate(bare)]
    if last:
        symbols[-1] += suffix
    return symbols
