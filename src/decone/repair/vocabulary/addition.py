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

UNKNOWN_COST = 10.0  # what the library takes off the lowest score for a character that no piece has
MARGIN = 1e-3  # score of a new piece above that of the pieces it replaces: other cuts of a text stay what they were


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


def add_tokens(folder: Path, spec: dict[str, Any], spellings: Sequence[Spelling]) -> Addition:
    """Adds tokens to the files of a tokenizer.

    Args:
        folder: folder of the model.
        spec: its tokenizer.json.
        spellings: the tokens, all new.

    Raises:
        ValueError: two of them are one token, or the ids have gaps that new ones would collide with.
    """
    tokenizer = build_tokenizer(spec, folder)
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
        model=_extended_model(spec["model"], complete, tokenizer, names) if in_model else None,
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
    model: Mapping[str, Any], complete: Mapping[str, int], tokenizer: Tokenizer, names: Sequence[str]
) -> dict[str, Any]:
    """The model with all tokens, the added ones too: the library counts those on behind it."""
    ordered = dict(sorted(complete.items(), key=lambda pair: pair[1]))
    if model_kind(model) != "Unigram":
        return {**model, "vocab": ordered}
    pieces: list[Any] = list(model["vocab"])
    scores = [score for _, score in pieces]
    lowest, new = min(scores, default=0.0), set(names)
    for name in list(ordered)[len(pieces) :]:
        score = 0.0  # of an added token, and of a piece that is found wherever it stands
        if name in new and name.startswith("▁"):
            cut = [piece.id for piece in tokenizer.model.tokenize(name)]
            costs = (lowest - UNKNOWN_COST if index == model.get("unk_id") else scores[index] for index in cut)
            score = max(lowest, fsum(costs) + MARGIN)
        pieces.append([name, score])
    return {**model, "vocab": pieces}


def _old_pieces(spelling: Spelling, spec: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[list[int], list[str]]:
    """Ids and strings of what a token was cut into until now."""
    piece = spelling.piece
    if piece is not None and model_kind(spec["model"]) != "WordPiece":  # without a space before a piece inside words
        tokens = tokenizer.model.tokenize(piece)
        return [token.id for token in tokens], [token.value for token in tokens]
    (encoding,) = encode(tokenizer, [spelling.spaced])
    ids, strings = encoding.ids, encoding.tokens
    if piece is not None and ids:
        twin = tokenizer.token_to_id(f"{spec['model'].get('continuing_subword_prefix') or ''}{strings[0]}")
        if twin is not None:
            ids, strings = [twin, *ids[1:]], [tokenizer.id_to_token(twin), *strings[1:]]
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
