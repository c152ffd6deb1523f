"""New tokens: read, sorted out, and put into the files of a tokenizer."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from decone.data.corpora import read_text
from decone.files.folder import read_object
from decone.files.foreign import join_names, plain
from decone.repair.vocabulary.configured import written
from decone.repair.vocabulary.tokenizer_parts import encoded, opened
from decone.vocab.scripts import script

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
        return [line.strip() for line in read_text(path).removesuffix("\n").split("\n")]
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
