"""The files of a tokenizer as JSON: what they say that a change of the vocabulary must know."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from tokenizers import Encoding, Tokenizer

from decone.data import corpora
from decone.files.folder import inside, read_object, read_text
from decone.files.foreign import join_names, plain
from decone.models.tokenizer_files import MAKE, SIZE_LIMIT, declared_tokens
from decone.repair.vocabulary.config_ids import written
from decone.vocab.scripts import script


def read_parts(folder: Path) -> dict[str, Any]:
    """The tokenizer.json of a folder.

    Raises:
        ValueError: it cannot be read, is of an unknown kind, or the other files declare tokens that it lacks: those
            would get ids of their own when transformers loads it.
    """
    try:
        parts = json.loads(read_text(folder, "tokenizer.json", SIZE_LIMIT) or "")
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{folder / 'tokenizer.json'} is not JSON ({plain(error)}); {MAKE}") from None
    if not isinstance(parts, dict) or not isinstance(parts.get("model"), dict):
        raise ValueError(f"{folder / 'tokenizer.json'} has no model; {MAKE}")
    tokenizer = opened(parts, folder)
    absent = [token for token in declared_tokens(folder) if tokenizer.token_to_id(token) is None]
    if absent:
        raise ValueError(
            f"the files beside tokenizer.json in {folder} declare tokens that it lacks ({join_names(absent)}), which "
            f"get their ids only when it is loaded; {MAKE}"
        )
    return parts


def opened(parts: dict[str, Any], where: object) -> Tokenizer:
    """A tokenizer from its JSON, without truncation and padding.

    Raises:
        ValueError: the library refuses it.
    """
    try:
        tokenizer = Tokenizer.from_str(json.dumps(parts))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics beside it
        reason = plain(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise ValueError(f"the tokenizer of {where} cannot be read ({reason}); {MAKE}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """What a tokenizer makes of texts, without marks around them.

    Raises:
        ValueError: it cannot take one: it has no token for what it does not know.
    """
    try:
        return list(tokenizer.encode_batch(texts, add_special_tokens=False))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics beside it
        reason = plain(str(error).splitlines()[0] if str(error) else type(error).__name__)
        if len(texts) > 1:  # says which
            for text in texts:
                encoded(tokenizer, [text])
        said = plain(texts[0] if texts else "", 60)
        raise ValueError(
            f"the tokenizer cannot take {said!r} ({reason}); give another text, or a tokenizer with an unknown token"
        ) from None


def unknown_ids(parts: dict[str, Any], tokenizer: Tokenizer) -> set[int]:
    """Ids that stand for what the tokenizer does not know."""
    model = parts["model"]
    found = {model.get("unk_id")} if isinstance(model.get("unk_id"), int) else set()
    if isinstance(model.get("unk_token"), str):
        found.add(tokenizer.token_to_id(model["unk_token"]))
    return {index for index in found if isinstance(index, int)}


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


Match = Literal["word", "anywhere"]
# Written without spaces between words: there a token stands between letters of other words.
_UNSPACED = {"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Yi", "mixed"}
_LIKE_FILES = (".txt", ".tsv", ".csv", ".list", ".json")


@dataclass
class NewTokens:
    """Tokens to add.

    Attributes:
        tokens: those that are new, in the order given.
        left_out: others, by the reason.
    """

    tokens: list[str]
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """One sentence on what was left out, or none."""
        parts = [
            f"{len(names):,} {reason}" + (f" ({join_names(names)})" if any(names) else "")
            for reason, names in self.left_out.items()
        ]
        return [f"left out: {'; '.join(parts)}"] if parts else []


def read_tokens(given: str) -> list[str]:
    """Tokens as the command line names them, white space around them taken away.

    Args:
        given: a UTF-8 file with one token per line, or the tokens themselves with commas between them.

    Raises:
        ValueError: there is no such file, or it is not text.

    Example:
        >>> read_tokens("covid, blog")
        ['covid', 'blog']
    """
    path = Path(given)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a long list is no name of a file
        is_file = False
    if is_file:
        return [line.strip() for line in corpora.read_text(path).removesuffix("\n").split("\n")]
    if "," not in given and (given.endswith(_LIKE_FILES) or os.sep in given):
        raise ValueError(f"no file {plain(given)}; name a file with one token per line, or tokens: covid,blog")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ValueError("the tokens are not UTF-8; write them into a file, one per line") from None
    return [token.strip() for token in given.split(",")]


def sort_out(tokens: Iterable[str], tokenizer: Tokenizer, unknown: set[int]) -> NewTokens:
    """Which of some tokens are new to a tokenizer.

    Args:
        tokens: as they were given.
        tokenizer: the old one.
        unknown: its ids for what it does not know.

    Raises:
        ValueError: none is.

    Example:
        >>> from tokenizers import models
        >>> found = sort_out(["a", "b", "b", ""], Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), {0})
        >>> found.tokens, found.notes()
        (['b'], ['left out: 1 known already (a); 1 given twice (b); 1 empty'])
    """
    new: dict[str, None] = {}
    left: dict[str, list[str]] = {"known already": [], "read as one token already": [], "given twice": [], "empty": []}
    known = tokenizer.get_vocab(with_added_tokens=True)
    for token in tokens:
        if not token.strip():
            left["empty"].append(token)
        elif token in known:
            left["known already"].append(token)
        elif token in new:
            left["given twice"].append(token)
        else:
            new[token] = None
    for token, found in zip(list(new), encoded(tokenizer, list(new)), strict=True):
        ids = found.ids
        if len(ids) == 1 and ids[0] not in unknown and not _added(tokenizer, ids[0]):
            left["read as one token already"].append(token)
            del new[token]
    sorted_out = NewTokens(list(new), {reason: names for reason, names in left.items() if names})
    if not new:
        said = "; ".join(sorted_out.notes()) or "none was given"
        raise ValueError(f"there is no new token ({said}); give some that the tokenizer does not have")
    return sorted_out


def grown_files(
    folder: Path, parts: dict[str, Any], tokens: list[str], match: Match = "word"
) -> tuple[dict[str, bytes], list[int]]:
    """The files of a tokenizer with tokens added to it.

    Args:
        folder: of the model.
        parts: its tokenizer.json.
        tokens: all new.
        match: "word": a token is not found inside a longer word, but for those of scripts that put no spaces between
            words; "anywhere": inside words too.

    Returns:
        New content by name of the file, and the ids of the tokens.

    Raises:
        ValueError: the tokenizer does not find a token again, or its ids have gaps that new ones would collide with.
    """
    old = opened(parts, folder)
    taken = old.get_vocab(with_added_tokens=True)
    entries = [_entry(token, old, match) for token in tokens]
    before = parts.get("added_tokens") or []
    new = opened({**parts, "added_tokens": [*before, *_numbered(entries, taken)]}, folder)
    after = new.get_vocab(with_added_tokens=True)
    ids = [after[token] for token in tokens]
    moved = any(after[token] != index for token, index in taken.items())
    if moved or len(set(ids)) < len(ids) or set(ids) & set(taken.values()):
        raise ValueError(
            f"the ids of the tokenizer of {folder} have gaps, so that new tokens would get ids of old ones; "
            "load it with transformers, fill the gaps, and save it again"
        )
    for entry, index in zip(entries, ids, strict=True):
        entry["id"] = index
    _require_found(new, tokens, ids)
    ordered = sorted(entries, key=lambda entry: int(entry["id"]))
    files = {"tokenizer.json": written({**parts, "added_tokens": [*before, *ordered]})}
    return files | _beside(folder, ordered), ids


def _entry(token: str, tokenizer: Tokenizer, match: Match) -> dict[str, Any]:
    normalizer = tokenizer.normalizer
    plainly = token if normalizer is None else normalizer.normalize_str(token)
    return {
        "id": -1,
        "content": token,
        "single_word": match == "word" and script(token) not in _UNSPACED,
        "lstrip": False,
        "rstrip": False,
        # Found in any case where the tokenizer knows one only; but a mark for a space would become part of it.
        "normalized": plainly.strip() != "" and "▁" not in plainly,
        "special": False,
    }


def _numbered(entries: list[dict[str, Any]], taken: Mapping[str, int]) -> list[dict[str, Any]]:
    """The library numbers tokens itself, in the order of the ids given here."""
    first = max(taken.values(), default=-1) + 1
    return [{**entry, "id": first + place} for place, entry in enumerate(entries)]


def _require_found(tokenizer: Tokenizer, tokens: list[str], ids: list[int]) -> None:
    texts = [text for token in tokens for text in (token, f"x {token} x")]
    found = [each.ids for each in encoded(tokenizer, texts)]
    lost = [
        token
        for place, (token, index) in enumerate(zip(tokens, ids, strict=True))
        if index not in found[2 * place] or index not in found[2 * place + 1]
    ]
    if lost:
        raise ValueError(
            f"the tokenizer does not find {join_names(lost)} in a text again: its normalizer makes another token or "
            "nothing of it; leave it out, or write it as the tokenizer does, e.g. in lower case"
        )


def _beside(folder: Path, entries: list[dict[str, Any]]) -> dict[str, bytes]:
    """The same tokens in the older files that list added ones, where there are such."""
    files: dict[str, bytes] = {}
    config = read_object(folder, "tokenizer_config.json") or {}
    if isinstance(config.get("added_tokens_decoder"), dict):
        for entry in entries:
            described = {key: value for key, value in entry.items() if key != "id"}
            config["added_tokens_decoder"][str(entry["id"])] = described
        files["tokenizer_config.json"] = written(config)
    added = read_object(folder, "added_tokens.json")
    if added is not None:
        files["added_tokens.json"] = written(added | {entry["content"]: entry["id"] for entry in entries})
    return files


def _added(tokenizer: Tokenizer, index: int) -> bool:
    return index in tokenizer.get_added_tokens_decoder()


Ids = Mapping[int, int]

# Files that hold a whole vocabulary in a form that is not rewritten; a tokenizer.json does not need them.
_FORMS = ("*.model", "*.spm", "*.tiktoken", "tekken.json", "vocab.bpe", "encoder.json", "bpe.codes", "dict.txt")


def kind_of(model: Mapping[str, Any]) -> str:
    """WordPiece, BPE, Unigram or WordLevel; older files do not say.

    Raises:
        ValueError: it is of another kind.

    Example:
        >>> kind_of({"vocab": [["a", -1.0]], "unk_id": 0})
        'Unigram'
    """
    said = model.get("type")
    if said is None:
        said = "Unigram" if isinstance(model.get("vocab"), list) else "BPE" if "merges" in model else "WordPiece"
    if said not in ("WordPiece", "BPE", "Unigram", "WordLevel"):
        raise ValueError(f"the tokenizer is a {plain(said, 40)}; WordPiece, BPE, Unigram and WordLevel can be trimmed")
    return str(said)


def trimmed_parts(parts: Mapping[str, Any], new: Ids) -> dict[str, Any]:
    """A tokenizer.json with the tokens that stay.

    Args:
        parts: the old one.
        new: the new id of every old one that stays, in the same order.

    Raises:
        ValueError: it is of an unknown kind.
    """
    found: dict[str, Any] = json.loads(json.dumps(parts))
    model = found["model"]
    kind = kind_of(model)
    if kind == "Unigram":
        if isinstance(model.get("unk_id"), int):
            model["unk_id"] = new[model["unk_id"]]
        model["vocab"] = [entry for place, entry in enumerate(model["vocab"]) if place in new]
    else:
        model["vocab"] = trimmed_vocabulary(model["vocab"], new)
    if kind == "BPE":
        prefix = model.get("continuing_subword_prefix") or ""
        pairs = read_merges(model)
        kept = [{*pair, joined(pair, prefix)} <= model["vocab"].keys() for pair in pairs]
        model["merges"] = [merge for merge, stays in zip(model["merges"], kept, strict=True) if stays]
    found["added_tokens"] = [
        {**entry, "id": new[entry["id"]]} for entry in found.get("added_tokens") or [] if entry["id"] in new
    ]
    for processor in _processors(found.get("post_processor")):
        for entry in (processor.get("special_tokens") or {}).values():
            entry["ids"] = [new[index] for index in entry["ids"]]
        for role in ("sep", "cls"):
            if isinstance(processor.get(role), list):
                processor[role] = [processor[role][0], new[processor[role][1]]]
    if isinstance(found.get("padding"), dict) and found["padding"].get("pad_id") in new:
        found["padding"]["pad_id"] = new[found["padding"]["pad_id"]]
    return found


def marks(parts: Mapping[str, Any]) -> set[int]:
    """Ids that a tokenizer puts around texts, or fills them up with."""
    found = {parts["padding"].get("pad_id")} if isinstance(parts.get("padding"), dict) else set()
    for processor in _processors(parts.get("post_processor")):
        for entry in (processor.get("special_tokens") or {}).values():
            found.update(entry["ids"])
        found.update(processor[role][1] for role in ("sep", "cls") if isinstance(processor.get(role), list))
    return {index for index in found if isinstance(index, int)}


def trimmed_vocabulary(vocabulary: Mapping[str, int], new: Ids) -> dict[str, int]:
    """Tokens with their new ids, in the order of these.

    Example:
        >>> trimmed_vocabulary({"b": 4, "a": 2, "c": 3}, {2: 0, 4: 1})
        {'a': 0, 'b': 1}
    """
    kept = {token: new[index] for token, index in vocabulary.items() if index in new}
    return dict(sorted(kept.items(), key=lambda pair: pair[1]))


def trimmed_files(folder: Path, parts: Mapping[str, Any], new: Ids) -> dict[str, bytes | None]:
    """The other files of a tokenizer that hold its vocabulary; None where one is not rewritten but left out.

    Args:
        folder: of the model.
        parts: the new tokenizer.json.
        new: the new id of every old one that stays.
    """
    files: dict[str, bytes | None] = {"tokenizer.json": written(parts)}
    for form in _FORMS:
        files |= dict.fromkeys((path.name for path in sorted(folder.glob(form)) if path.is_file()), None)
    for name in ("vocab.json", "added_tokens.json"):
        if (listed := read_object(folder, name)) is not None:
            files[name] = written(trimmed_vocabulary(listed, new)) if _ids_alone(listed) else None
    if (text := read_text(folder, "vocab.txt")) is not None:
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        files["vocab.txt"] = "".join(f"{line}\n" for place, line in enumerate(lines) if place in new).encode()
    if inside(folder, "merges.txt").is_file():
        pairs = read_merges(parts["model"])
        files["merges.txt"] = ("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in pairs)).encode()
    return files


def _ids_alone(listed: Mapping[str, Any]) -> bool:
    return all(isinstance(index, int) for index in listed.values())


def _processors(processor: Any) -> Iterator[dict[str, Any]]:
    if isinstance(processor, dict):
        yield processor
        for inner in processor.get("processors") or ():
            yield from _processors(inner)
