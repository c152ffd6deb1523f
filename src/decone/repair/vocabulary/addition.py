"""New tokens in the files of a tokenizer: as added tokens, or in the vocabulary of its model where that is right.

An added token is cut out of a text before the rest of the tokenizer sees it. What lies beside it is then a text of its
own, before which a SentencePiece tokenizer writes a space. So a new token goes into the vocabulary of the model where
the tokenizer can find it there: with a score in Unigram, as a piece inside words in WordPiece, as a letter in BPE.
Longer pieces of BPE would need merges, and these more tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from decone.files.folder import read_object, read_text
from decone.repair.vocabulary.config_ids import json_bytes
from decone.repair.vocabulary.spelling import Spelling
from decone.repair.vocabulary.tokenizer import build_tokenizer, encode, model_kind

MARGIN = 1e-4  # of a score, per border


@dataclass(frozen=True)
class Addition:
    """Tokens added to a tokenizer, before anything is written.

    Attributes:
        names: the new tokens as they stand in the vocabulary.
        ids: their ids.
        pieces: ids and strings that the old tokenizer cuts each of them into.
        entries: those that become added tokens, as tokenizer.json has them.
        model: the model in tokenizer.json with all tokens, None where it stays as it is.
        files: new content of older files by name.
    """

    names: list[str]
    ids: list[int]
    pieces: list[tuple[list[int], list[str]]]
    entries: list[dict[str, Any]]
    model: dict[str, Any] | None
    files: dict[str, bytes | None]

    def respell(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Makes the new tokenizer.json of the old one, or of a copy."""
        model = spec["model"] if self.model is None else self.model
        return {**spec, "added_tokens": [*(spec.get("added_tokens") or []), *self.entries], "model": model}


def add_tokens(folder: Path, spec: dict[str, Any], tokenizer: Tokenizer, spellings: Sequence[Spelling]) -> Addition:
    """Adds tokens to the files of a tokenizer.

    Args:
        folder: folder of the model.
        spec: its tokenizer.json.
        tokenizer: the tokenizer that it describes.
        spellings: the tokens, all new.

    Raises:
        ValueError: the ids have gaps that new ones would collide with.
    """
    old = tokenizer.get_vocab(with_added_tokens=True)
    names = [spelling.name for spelling in spellings]
    complete = old | {name: index for index, name in enumerate(names, max(old.values(), default=-1) + 1)}
    entries = [_added_token(spelling, tokenizer) for spelling in spellings if spelling.piece is None]
    in_model = len(entries) < len(names)
    addition = Addition(
        names=names,
        ids=[],
        pieces=[_old_pieces(spelling, spec, tokenizer) for spelling in spellings],
        entries=entries,
        model=_extended_model(spec["model"], complete, tokenizer, spellings) if in_model else None,
        files={},
    )
    new = build_tokenizer(addition.respell(spec), folder).get_vocab(with_added_tokens=True)
    if len(set(new.values())) < len(complete) or any(new[token] != index for token, index in old.items()):
        raise ValueError(  # the library numbers tokens itself
            f"the ids of the tokenizer of {folder} have gaps, so that new tokens would get ids of old ones; "
            "load it with transformers, fill the gaps, and save it again"
        )
    addition.ids.extend(new[name] for name in names)
    for entry in entries:
        entry["id"] = new[entry["content"]]
    addition.files.update(_list_added(folder, entries) | (_list_vocabulary(folder, new) if in_model else {}))
    return addition


def _added_token(spelling: Spelling, tokenizer: Tokenizer) -> dict[str, Any]:
    name = spelling.name
    normal = name if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(name)
    return {
        "id": 0,  # the library gives it one
        "content": name,
        "single_word": spelling.position == "word",
        "lstrip": False,
        "rstrip": False,
        # Found in any case where the tokenizer knows one only; but a mark for a space would become part of it.
        "normalized": not spelling.special and normal.strip() != "" and "▁" not in normal,
        "special": spelling.special,
    }


def _extended_model(
    model: Mapping[str, Any], complete: Mapping[str, int], tokenizer: Tokenizer, spellings: Sequence[Spelling]
) -> dict[str, Any]:
    """The model with all tokens, the added ones too: the library counts those on behind it."""
    ordered = dict(sorted(complete.items(), key=lambda pair: pair[1]))
    if model_kind(model) != "Unigram":
        return {**model, "vocab": ordered}
    scores = [score for _, score in model["vocab"]]
    new = {spelling.name: spelling for spelling in spellings if spelling.piece is not None}
    added = [
        [name, _score(new[name], scores, model.get("unk_id"), tokenizer) if name in new else 0.0]
        for name in list(ordered)[len(scores) :]
    ]
    return {**model, "vocab": [*model["vocab"], *added]}


def _score(spelling: Spelling, scores: Sequence[float], unknown: int | None, tokenizer: Tokenizer) -> float:
    """Score of a new piece of Unigram: that of the pieces it replaces, and a little for each of their borders.

    So a text is cut as before but for the new piece, and the longest of several new ones wins. An unknown character
    costs as much as the least likely piece, less than the library takes for it. A token that must be found wherever it
    stands costs nothing.
    """
    if spelling.position == "anywhere" and len(spelling.name) > 1:
        return MARGIN * len(spelling.name) ** 2
    tokens = tokenizer.model.tokenize(spelling.name)
    lowest = min(scores)
    costs = [lowest * len(token.value) if token.id == unknown else scores[token.id] for token in tokens]
    return fsum(costs) + MARGIN * (len(spelling.name) - 1)


def _old_pieces(spelling: Spelling, spec: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[list[int], list[str]]:
    """Ids and strings of what a token was cut into until now."""
    piece = spelling.piece
    if piece is not None and model_kind(spec["model"]) != "WordPiece":  # without a space before a piece inside words
        tokens = tokenizer.model.tokenize(piece)
        return [token.id for token in tokens], [token.value for token in tokens]
    (encoding,) = encode(tokenizer, [spelling.spaced])
    ids, strings = encoding.ids, encoding.tokens
    if piece is not None and ids:
        inside = f"{spec['model'].get('continuing_subword_prefix') or ''}{strings[0]}"
        twin = tokenizer.token_to_id(inside)
        if twin is not None:
            ids, strings = [twin, *ids[1:]], [inside, *strings[1:]]
    return ids, strings


def _list_vocabulary(folder: Path, complete: Mapping[str, int]) -> dict[str, bytes | None]:
    """Older files with the vocabulary of the model, where there are such."""
    files: dict[str, bytes | None] = {}
    ordered = dict(sorted(complete.items(), key=lambda pair: pair[1]))
    if read_object(folder, "vocab.json") is not None:
        files["vocab.json"] = json_bytes(ordered)
    if read_text(folder, "vocab.txt") is not None:
        files["vocab.txt"] = "".join(f"{token}\n" for token in ordered).encode()
    return files


def _list_added(folder: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, bytes | None]:
    """Adds the same tokens to the older files that list added ones, where there are such."""
    files: dict[str, bytes | None] = {}
    config = read_object(folder, "tokenizer_config.json") or {}
    if entries and isinstance(config.get("added_tokens_decoder"), dict):
        for entry in entries:
            properties = {key: value for key, value in entry.items() if key != "id"}
            config["added_tokens_decoder"][str(entry["id"])] = properties
        files["tokenizer_config.json"] = json_bytes(config)
    added = read_object(folder, "added_tokens.json")
    if entries and added is not None:
        files["added_tokens.json"] = json_bytes(added | {entry["content"]: entry["id"] for entry in entries})
    return files
