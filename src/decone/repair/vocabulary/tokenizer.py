"""tokenizer.json and the older files beside it: reading, merges, tokens taken out.

`spec` is the content of a tokenizer.json throughout. In byte-pair encoding a token needs the smaller ones that merges
build it from. Where a token comes out of a text, all merges inside it happened in the order of their ranks, and none
across its ends; so they are those that build it alone. A vocabulary that keeps them cuts the text the same: at every
step the merge of the lowest rank is one that is kept, and in the end no merge is left over that was not before.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import Encoding, Tokenizer

from decone.files.folder import read_text
from decone.files.foreign import join_names, plain, quoted
from decone.models.tokenizer_files import MAKE, SIZE_LIMIT, declared_tokens

Pair = tuple[str, str]
T = TypeVar("T")


# Reading.


def read_spec(folder: Path) -> dict[str, Any]:
    """Reads the tokenizer.json of a folder.

    Raises:
        ValueError: it cannot be read, is of an unknown kind, or the other files declare tokens that it lacks: those
            would get ids of their own when transformers loads it.
    """
    try:
        spec = json.loads(read_text(folder, "tokenizer.json", SIZE_LIMIT) or "")
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{folder / 'tokenizer.json'} is not JSON ({plain(error)}); {MAKE}") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise ValueError(f"{folder / 'tokenizer.json'} has no model; {MAKE}")
    tokenizer = build_tokenizer(spec, folder)
    absent = [token for token in declared_tokens(folder) if tokenizer.token_to_id(token) is None]
    if absent:
        raise ValueError(
            f"the files beside tokenizer.json in {folder} declare tokens that it lacks ({join_names(absent)}), which "
            f"get their ids only when it is loaded; {MAKE}"
        )
    return spec


def build_tokenizer(spec: Mapping[str, Any], source: object) -> Tokenizer:
    """Builds a tokenizer from its JSON, without truncation and padding.

    Args:
        spec: content of a tokenizer.json.
        source: folder of the model, for the message.

    Raises:
        ValueError: the library refuses it.
    """

    def refuse(reason: str) -> ValueError:
        return ValueError(f"the tokenizer of {source} cannot be read ({reason}); {MAKE}")

    tokenizer = guard(lambda: Tokenizer.from_str(json.dumps(spec)), refuse)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """Encodes texts without marks around them.

    Raises:
        ValueError: a text cannot be encoded: the tokenizer has no token for the unknown.
    """

    def refuse(reason: str) -> ValueError:
        if len(texts) > 1:  # one alone raises with its own text in the message
            for text in texts:
                encode(tokenizer, [text])
        return ValueError(
            f"the tokenizer cannot take {quoted(texts[0] if texts else '')} ({reason}); give another text, or a "
            "tokenizer with an unknown token"
        )

    return guard(lambda: list(tokenizer.encode_batch(texts, add_special_tokens=False)), refuse)


def unknown_ids(spec: Mapping[str, Any], tokenizer: Tokenizer) -> set[int]:
    """Ids that stand for whatever the tokenizer does not know."""
    model = spec["model"]
    ids = {model.get("unk_id")} if isinstance(model.get("unk_id"), int) else set()
    if isinstance(model.get("unk_token"), str):
        ids.add(tokenizer.token_to_id(model["unk_token"]))
    return {index for index in ids if isinstance(index, int)}


def model_kind(model: Mapping[str, Any]) -> str:
    """WordPiece, BPE, Unigram or WordLevel; older files do not name it.

    Raises:
        ValueError: it is of another kind.

    Example:
        >>> model_kind({"vocab": [["a", -1.0]], "unk_id": 0})
        'Unigram'
    """
    kind = model.get("type")
    if kind is None:
        kind = "Unigram" if isinstance(model.get("vocab"), list) else "BPE" if "merges" in model else "WordPiece"
    if kind not in ("WordPiece", "BPE", "Unigram", "WordLevel"):
        raise ValueError(f"the tokenizer is a {plain(kind, 40)}; WordPiece, BPE, Unigram and WordLevel can be trimmed")
    return str(kind)


def mark_ids(spec: Mapping[str, Any]) -> set[int]:
    """Ids that a tokenizer puts around texts or pads them with."""
    ids = {spec["padding"].get("pad_id")} if isinstance(spec.get("padding"), dict) else set()
    for processor in _processors(spec.get("post_processor")):
        for entry in (processor.get("special_tokens") or {}).values():
            ids.update(entry["ids"])
        ids.update(processor[role][1] for role in ("sep", "cls") if isinstance(processor.get(role), list))
    return {index for index in ids if isinstance(index, int)}


# Merges of byte-pair encoding.


def read_merges(model: Mapping[str, Any]) -> list[Pair]:
    """Merges of a tokenizer.json by rank, from either of the two notations."""
    merges: list[Pair] = []
    for merge in model.get("merges") or []:
        if isinstance(merge, str):
            first, _, second = merge.partition(" ")
        else:
            first, second = str(merge[0]), str(merge[1])
        merges.append((first, second))
    return merges


def merge_pair(pair: Pair, prefix: str = "") -> str:
    """The token that a merge builds; only its first half keeps the mark of a continued word.

    Example:
        >>> merge_pair(("lo", "##w"), "##")
        'low'
    """
    return pair[0] + pair[1].removeprefix(prefix)


def merge_components(tokens: Iterable[str], merges: Iterable[Pair], prefix: str = "", suffix: str = "") -> set[str]:
    """All tokens that merges build others from, those themselves included.

    Args:
        tokens: tokens to build; those that merges do not build contribute nothing.
        merges: merges of the vocabulary, by rank.
        prefix: mark of pieces that continue a word.
        suffix: mark of pieces that end one.

    Example:
        >>> sorted(merge_components(["low", "zoo"], [("l", "o"), ("lo", "w"), ("o", "w")]))
        ['l', 'lo', 'low', 'o', 'w']
    """
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
    components: set[str] = set()
    for token in tokens:
        symbols = _symbols(token, prefix, suffix)
        built = set(symbols)
        while len(symbols) > 1:
            rank, index = min((ranks.get(pair, len(ranks)), index) for index, pair in enumerate(pairwise(symbols)))
            if rank == len(ranks):
                break
            symbols[index : index + 2] = [merge_pair((symbols[index], symbols[index + 1]), prefix)]
            built.add(symbols[index])
        if symbols == [token]:
            components |= built
    return components


# Tokens taken out.


def trim_spec(spec: Mapping[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
    """Reduces a tokenizer.json to the tokens that stay.

    Args:
        spec: the old content.
        new_ids: new id of every old one that stays, in the same order.

    Raises:
        ValueError: it is of an unknown kind.
    """
    new: dict[str, Any] = json.loads(json.dumps(spec))
    model = new["model"]
    kind = model_kind(model)
    if kind == "Unigram":
        if isinstance(model.get("unk_id"), int):
            model["unk_id"] = new_ids[model["unk_id"]]
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in new_ids]
    else:
        retained = {token: new_ids[index] for token, index in model["vocab"].items() if index in new_ids}
        model["vocab"] = dict(sorted(retained.items(), key=lambda pair: pair[1]))
    if kind == "BPE":
        prefix, tokens = model.get("continuing_subword_prefix") or "", model["vocab"].keys()
        pairs = zip(model["merges"], read_merges(model), strict=True)
        model["merges"] = [merge for merge, pair in pairs if {*pair, merge_pair(pair, prefix)} <= tokens]
    new["added_tokens"] = [
        {**entry, "id": new_ids[entry["id"]]} for entry in new.get("added_tokens") or [] if entry["id"] in new_ids
    ]
    for processor in _processors(new.get("post_processor")):
        for entry in (processor.get("special_tokens") or {}).values():
            entry["ids"] = [new_ids[index] for index in entry["ids"]]
        for role in ("sep", "cls"):
            if isinstance(processor.get(role), list):
                processor[role] = [processor[role][0], new_ids[processor[role][1]]]
    if isinstance(new.get("padding"), dict) and new["padding"].get("pad_id") in new_ids:
        new["padding"]["pad_id"] = new_ids[new["padding"]["pad_id"]]
    return new


def guard(call: Callable[[], T], refuse: Callable[[str], ValueError]) -> T:
    """Calls the library, which raises bare Exception and panics beside it, and turns those into one sentence."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        reason = plain(str(error).splitlines()[0] if str(error) else type(error).__name__)
    raise refuse(reason)


def _processors(processor: Any) -> Iterator[dict[str, Any]]:
    if isinstance(processor, dict):
        yield processor
        for inner in processor.get("processors") or ():
            yield from _processors(inner)


def _symbols(token: str, prefix: str, suffix: str) -> list[str]:
    """The characters that a token is built from, each with its mark."""
    inner = bool(prefix) and token.startswith(prefix) and len(token) > len(prefix)
    last = bool(suffix) and token.endswith(suffix) and len(token) > len(suffix)
    bare = token[len(prefix) if inner else 0 : len(token) - (len(suffix) if last else 0)]
    symbols = [(prefix if inner or index else "") + character for index, character in enumerate(bare)]
    if last:
        symbols[-1] += suffix
    return symbols
