"""tokenizer.json and the older files beside it: tokens added, tokens taken out.

`spec` is the content of a tokenizer.json throughout. In byte-pair encoding a token needs the smaller ones that merges
build it from. Where a token comes out of a text, all merges inside it happened in the order of their ranks, and none
across its ends; so they are those that build it alone. A vocabulary that keeps them cuts the text the same: at every
step the merge of the lowest rank is one that is kept, and in the end no merge is left over that was not before.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from tokenizers import AddedToken, Encoding, Tokenizer

from decone.data import corpora
from decone.files.folder import read_object, read_text
from decone.files.foreign import join_names, plain
from decone.models.tokenizer_files import MAKE, SIZE_LIMIT, declared_tokens
from decone.repair.vocabulary.config_ids import json_bytes
from decone.vocab.scripts import script

Match = Literal["word", "anywhere"]
Pair = tuple[str, str]
T = TypeVar("T")

# Written without spaces between words: there a token stands between letters of other words.
_UNSPACED = {"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Yi", "mixed"}
_LIKE_FILES = (".txt", ".tsv", ".csv", ".list", ".json")


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

    tokenizer = _guard(lambda: Tokenizer.from_str(json.dumps(spec)), refuse)
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
            f"the tokenizer cannot take {plain(texts[0] if texts else '', 60)!r} ({reason}); give another text, or a "
            "tokenizer with an unknown token"
        )

    return _guard(lambda: list(tokenizer.encode_batch(texts, add_special_tokens=False)), refuse)


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


# Tokens added.


@dataclass
class NewTokens:
    """Tokens to add.

    Attributes:
        tokens: those that are new, in the order of the request.
        skipped: all others, by the reason.
    """

    tokens: list[str]
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """One sentence on the tokens that are skipped, or none."""
        reasons = [
            f"{len(names):,} {reason}" + (f" ({join_names(names)})" if any(names) else "")
            for reason, names in self.skipped.items()
        ]
        return [f"left out: {'; '.join(reasons)}"] if reasons else []


def read_tokens(argument: str) -> list[str]:
    """Reads tokens as the command line names them, without white space around them.

    Args:
        argument: a UTF-8 file with one token per line, or the tokens themselves with commas between them.

    Raises:
        ValueError: there is no such file, or it is not text.

    Example:
        >>> read_tokens("covid, blog")
        ['covid', 'blog']
    """
    path = Path(argument)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a long list is no name of a file
        is_file = False
    if is_file:
        return [line.strip() for line in corpora.read_text(path).removesuffix("\n").split("\n")]
    if "," not in argument and (argument.endswith(_LIKE_FILES) or os.sep in argument):
        raise ValueError(f"no file {plain(argument)}; name a file with one token per line, or tokens: covid,blog")
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise ValueError("the tokens are not UTF-8; write them into a file, one per line") from None
    return [token.strip() for token in argument.split(",")]


def select_new(tokens: Iterable[str], tokenizer: Tokenizer, unknown: set[int]) -> NewTokens:
    """Selects the tokens that a tokenizer does not have.

    Args:
        tokens: requested tokens.
        tokenizer: the old tokenizer.
        unknown: its ids for whatever it does not know.

    Raises:
        ValueError: none is new.

    Example:
        >>> from tokenizers import models
        >>> selection = select_new(["a", "b", "b", ""], Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), {0})
        >>> selection.tokens, selection.notes()
        (['b'], ['left out: 1 known already (a); 1 given twice (b); 1 empty'])
    """
    new: dict[str, None] = {}
    skipped: dict[str, list[str]] = {
        "known already": [],
        "read as one token already": [],
        "given twice": [],
        "empty": [],
    }
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    for token in tokens:
        if not token.strip():
            skipped["empty"].append(token)
        elif token in vocabulary:
            skipped["known already"].append(token)
        elif token in new:
            skipped["given twice"].append(token)
        else:
            new[token] = None
    added = tokenizer.get_added_tokens_decoder()
    for token, encoding in zip(list(new), encode(tokenizer, list(new)), strict=True):
        ids = encoding.ids
        if len(ids) == 1 and ids[0] not in unknown and ids[0] not in added:
            skipped["read as one token already"].append(token)
            del new[token]
    selection = NewTokens(list(new), {reason: names for reason, names in skipped.items() if names})
    if not new:
        reason = "; ".join(selection.notes()) or "none was given"
        raise ValueError(f"there is no new token ({reason}); give some that the tokenizer does not have")
    return selection


def add_tokens(
    folder: Path, spec: dict[str, Any], tokens: list[str], match: Match = "word"
) -> tuple[dict[str, bytes], list[int]]:
    """Adds tokens to the files of a tokenizer.

    Args:
        folder: folder of the model.
        spec: its tokenizer.json.
        tokens: tokens, all new.
        match: "word": a token is not found inside a longer word, but for those of scripts that put no spaces between
            words; "anywhere": inside words too.

    Returns:
        New content by name of the file, and the ids of the tokens.

    Raises:
        ValueError: the tokenizer does not find a token again, or its ids have gaps that new ones would collide with.
    """
    tokenizer = build_tokenizer(spec, folder)
    old = tokenizer.get_vocab(with_added_tokens=True)
    tokenizer.add_tokens([_added_token(token, tokenizer, match) for token in tokens])
    entries = [entry for entry in json.loads(tokenizer.to_str())["added_tokens"] if entry["content"] not in old]
    new_spec = {**spec, "added_tokens": [*(spec.get("added_tokens") or []), *entries]}
    tokenizer = build_tokenizer(new_spec, folder)  # the library numbers tokens itself, in the order of these ids
    new = tokenizer.get_vocab(with_added_tokens=True)
    ids = [new[token] for token in tokens]
    moved = any(new[token] != index for token, index in old.items())
    if moved or len(set(ids)) < len(ids) or set(ids) & set(old.values()):
        raise ValueError(
            f"the ids of the tokenizer of {folder} have gaps, so that new tokens would get ids of old ones; "
            "load it with transformers, fill the gaps, and save it again"
        )
    for entry in entries:
        entry["id"] = new[entry["content"]]
    _require_matches(tokenizer, tokens, ids)
    return {"tokenizer.json": json_bytes(new_spec)} | _list_added(folder, entries), ids


def _added_token(token: str, tokenizer: Tokenizer, match: Match) -> AddedToken:
    normal = token if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(token)
    return AddedToken(
        token,
        single_word=match == "word" and script(token) not in _UNSPACED,
        # Found in any case where the tokenizer knows one only; but a mark for a space would become part of it.
        normalized=normal.strip() != "" and "▁" not in normal,
        special=False,
    )


def _require_matches(tokenizer: Tokenizer, tokens: list[str], ids: list[int]) -> None:
    """Refuses tokens that the tokenizer does not find in a text again, alone or between words."""
    alone = encode(tokenizer, tokens)
    between = encode(tokenizer, [f"x {token} x" for token in tokens])
    missed = [
        token
        for token, index, *encodings in zip(tokens, ids, alone, between, strict=True)
        if not all(index in encoding.ids for encoding in encodings)
    ]
    if missed:
        raise ValueError(
            f"the tokenizer does not find {join_names(missed)} in a text again: its normalizer makes another token or "
            "nothing of it; leave it out, or write it as the tokenizer does, e.g. in lower case"
        )


def _list_added(folder: Path, entries: list[dict[str, Any]]) -> dict[str, bytes]:
    """Adds the same tokens to the older files that list added ones, where there are such."""
    files: dict[str, bytes] = {}
    config = read_object(folder, "tokenizer_config.json") or {}
    if isinstance(config.get("added_tokens_decoder"), dict):
        for entry in entries:
            properties = {key: value for key, value in entry.items() if key != "id"}
            config["added_tokens_decoder"][str(entry["id"])] = properties
        files["tokenizer_config.json"] = json_bytes(config)
    added = read_object(folder, "added_tokens.json")
    if added is not None:
        files["added_tokens.json"] = json_bytes(added | {entry["content"]: entry["id"] for entry in entries})
    return files


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


def _guard(call: Callable[[], T], refuse: Callable[[str], ValueError]) -> T:
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
