"""Which tokens stay when a vocabulary is trimmed, and why.

Beside those that are wanted stay special and added tokens, what the configuration names, the alphabet that spells
everything else, and for byte-pair encoding the smaller tokens that kept ones are built from.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from decone.repair.vocabulary.merges import parts_of, read_merges
from decone.repair.vocabulary.trimmed_tokenizer import kind_of, marks

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def kept_ids(
    parts: Mapping[str, Any], tokenizer: Tokenizer, wanted: Iterable[int], needed: Mapping[str, set[int]], reason: str
) -> dict[str, set[int]]:
    """Ids that stay, each under the first reason that holds.

    Args:
        parts: the tokenizer.json.
        tokenizer: made of it.
        wanted: ids that were asked for.
        needed: ids that the model needs, by the reason, e.g. "special".
        reason: the name of those that were asked for.

    Returns:
        Disjoint sets: those of `needed`, "added", "alphabet", the wanted ones, and "parts" of others.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    by_id = {index: token for token, index in vocabulary.items()}
    found: dict[str, set[int]] = {}

    def add(name: str, ids: Iterable[int]) -> None:
        found[name] = found.get(name, set()) | (set(ids) - set().union(*found.values()))

    for name, ids in needed.items():
        add(name, ids)
    add("special", marks(parts))
    add("added", tokenizer.get_added_tokens_decoder())
    add("alphabet", (vocabulary[token] for token in alphabet(parts) if token in vocabulary))
    add(reason, wanted)
    model = parts["model"]
    if kind_of(model) == "BPE":
        prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
        tokens = [by_id[index] for ids in found.values() for index in ids if index in by_id]
        add("parts", (vocabulary[token] for token in parts_of(tokens, read_merges(model), prefix, suffix)))
    return found


def alphabet(parts: Mapping[str, Any]) -> set[str]:
    """Tokens that spell what no other token holds: bytes, and what the price of the unknown hangs on.

    Example:
        >>> alphabet({"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -3.0]]}})
        {'b'}
    """
    model = parts["model"]
    if kind_of(model) == "Unigram":
        # What is unknown costs ten more than the least likely piece: that piece stays, so that the price does.
        least = min(model["vocab"], key=lambda entry: float(entry[1]), default=None)
        tokens = {entry[0] for entry in model["vocab"]}
        return ({least[0]} if least else set()) | {token for token in tokens if _BYTE.fullmatch(token)}
    tokens = set(model["vocab"])
    suffix = model.get("end_of_word_suffix") or ""
    spoken = str([parts.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")])
    letters = set(pre_tokenizers.ByteLevel.alphabet()) if "'ByteLevel'" in spoken else set()
    letters |= {letter + suffix for letter in letters}
    return (tokens & letters) | {token for token in tokens if model.get("byte_fallback") and _BYTE.fullmatch(token)}


def failed_pieces(parts: Mapping[str, Any], tokenizer: Tokenizer, text: str) -> set[int]:
    """Pieces that a WordPiece tokenizer tries in words that it then gives up as unknown.

    Without them it would try others, and a word that was unknown might become known.

    Args:
        parts: the tokenizer.json.
        tokenizer: made of it.
        text: to look through.
    """
    model = parts["model"]
    if kind_of(model) != "WordPiece":
        return set()
    normal = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
    splitter = tokenizer.pre_tokenizer
    words = {normal} if splitter is None else {word for word, _ in splitter.pre_tokenize_str(normal)}
    vocabulary, prefix = model["vocab"], model.get("continuing_subword_prefix") or ""
    longest = max(map(len, vocabulary), default=0)
    found: set[int] = set()
    for word in words:
        start, tried = 0, list[int]()
        while start < len(word):
            for end in range(min(len(word), start + longest), start, -1):
                piece = (prefix if start else "") + word[start:end]
                if piece in vocabulary:
                    tried.append(vocabulary[piece])
                    start = end
                    break
            else:
                found.update(tried)
                break
    return found
