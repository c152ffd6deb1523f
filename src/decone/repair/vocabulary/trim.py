"""A model without the tokens that nobody uses: what stays keeps its rows byte for byte, its texts are cut as before."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer, pre_tokenizers

from decone.data.corpora import read_text
from decone.files.atomic import require_vacant
from decone.files.folder import read_object
from decone.files.foreign import join_names, plain
from decone.files.safetensors import DTYPES
from decone.models.find_tables import find_tables
from decone.models.tables import ModelTables
from decone.repair.vocabulary.check import count, cut, lines, pieces, require_same, spelled
from decone.repair.vocabulary.config_ids import fixed_ids, needed_ids, remapped, resized, written
from decone.repair.vocabulary.result import IDS, NAME, TRIMMED, TableFacts, Trimmed, content, read_history, step
from decone.repair.vocabulary.tensors import Vocabulary, vocabulary
from decone.repair.vocabulary.tokenizer import (
    kind_of,
    marks,
    opened,
    parts_of,
    read_merges,
    read_parts,
    trimmed_files,
    trimmed_parts,
    unknown_ids,
)
from decone.repair.vocabulary.write import Layout, Resized, file_list, resize
from decone.vocab.reach import reach

SHOWN = 20  # dropped tokens that are told of
SIGNS = 200  # characters of one

Progress = Callable[[str, int, int], None]


CONFIGS = ("generation_config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Choice:
    """Which tokens are wanted.

    Attributes:
        texts: UTF-8 files whose tokens are.
        keep: a file of tokens, one per line.
        unreachable: all that some text leads to.
        min_count: how often a token must be in the texts.
    """

    texts: tuple[Path, ...] = ()
    keep: Path | None = None
    unreachable: bool = False
    min_count: int = 1

    def __post_init__(self) -> None:
        if not (self.texts or self.keep or self.unreachable):
            raise ValueError("say what stays: --text FILE, --keep FILE, or --unreachable to drop what no text leads to")
        if self.unreachable and (self.texts or self.keep):
            raise ValueError("--unreachable keeps all that a text can lead to; leave out --text and --keep, or it")
        if self.min_count < 1:
            raise ValueError(f"--min-count {self.min_count}; take at least 1")
        if self.min_count > 1 and not self.texts:
            raise ValueError("--min-count counts tokens of a text; add --text FILE")


@dataclass(frozen=True)
class Trimming:
    """What is to be taken out of a model, before anything is written.

    Attributes:
        model: the source.
        tokenizer: the old one.
        kept: ids that stay, disjoint, by the first reason that holds.
        new: the new id of every old one that stays, rising.
        dropped: tokens that go, in the order of their ids.
        parts: the new tokenizer.json.
        files: all files that change beside the weights, by name; None leaves one out.
        notes: what a user must know.
    """

    model: Vocabulary
    tokenizer: Tokenizer
    kept: dict[str, set[int]]
    new: dict[int, int]
    dropped: list[str]
    parts: dict[str, Any]
    files: dict[str, bytes | None]
    notes: list[str]


def plan_trimming(model_tables: ModelTables, choice: Choice, leave: Collection[str] = ()) -> Trimming:
    """Finds out which tokens stay.

    Args:
        model_tables: the model.
        choice: what is wanted.
        leave: as in `by_token.vocabulary`.

    Raises:
        ValueError: the model's vocabulary cannot be changed, a file cannot be read, or nothing would go.
    """
    model = vocabulary(model_tables, leave)
    parts = read_parts(model.folder)
    if parts["model"].get("dropout"):
        raise ValueError(
            f"the tokenizer of {model_tables.name} cuts texts at random (dropout); set dropout to null in it"
        )
    tokenizer = opened(parts, model.folder)
    strings = tokenizer.get_vocab(with_added_tokens=True)
    configs = {name: content for name in CONFIGS if (content := read_object(model.folder, name)) is not None}
    needed = {
        "special": set(model_tables.special) | unknown_ids(parts, tokenizer),
        "configured": {
            index
            for content in (model.config, *configs.values())
            for index in needed_ids(content) | fixed_ids(model_tables.family, model.config)
            if index < model.rows
        },
    }
    reason, wanted, tried = _wanted(choice, parts, tokenizer)
    kept = kept_ids(parts, tokenizer, wanted, needed, reason)
    kept["parts"] = kept.get("parts", set()) | (tried - set().union(*kept.values()))
    ids = sorted(set().union(*kept.values()))
    if ids[-1] >= model.rows:
        raise ValueError(
            f"tokenizer.json of {model_tables.name} names the id {ids[-1]} but the tables have {model.rows:,} rows; "
            "correct its padding or post_processor"
        )
    new = {old: place for place, old in enumerate(ids)}
    if len(new) == model.rows:
        raise ValueError(
            f"every one of the {model.rows:,} rows of {model_tables.name} stays, so there is nothing to trim"
        )
    trimmed = trimmed_parts(parts, new)
    config, notes = remapped(model.config, new, "config.json")
    files: dict[str, bytes | None] = {"config.json": resized(config, model.rows, len(new))}
    for name, content in configs.items():
        changed, said = remapped(content, new, name)
        if isinstance(decoder := changed.get("added_tokens_decoder"), dict):
            changed["added_tokens_decoder"] = {
                str(new[int(index)]): token for index, token in decoder.items() if int(index) in new
            }
        files[name] = written(changed)
        notes += said
    files |= trimmed_files(model.folder, trimmed, new)
    dropped = [token for token, index in sorted(strings.items(), key=lambda pair: pair[1]) if index not in new]
    return Trimming(model, tokenizer, kept, new, dropped, trimmed, files, notes)


def to_check(trimming: Trimming, choice: Choice) -> Iterable[str]:
    """Texts that must be cut as before: those given, else the tokens that stay."""
    if choice.texts:
        return chain(pieces(choice.texts), lines(choice.texts))
    ids = sorted(set(trimming.tokenizer.get_vocab(with_added_tokens=True).values()) & trimming.new.keys())
    return spelled(trimming.tokenizer, ids)


def _wanted(choice: Choice, parts: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[str, set[int], set[int]]:
    """The name of the reason, the ids it gives, and those that were tried in vain on the way."""
    strings = tokenizer.get_vocab(with_added_tokens=True)
    if choice.unreachable:
        return "reachable", set(strings.values()) - set(reach(tokenizer).unreachable), set()
    wanted: set[int] = set()
    tried: set[int] = set()
    if choice.texts:
        ways: tuple[Callable[[Iterable[Path]], Iterator[str]], ...] = (pieces, lines)
        counts = [count(tokenizer, way(choice.texts)) for way in ways]
        wanted |= {index for index, times in (counts[0] | counts[1]).items() if times >= choice.min_count}
        if unknown := unknown_ids(dict(parts), tokenizer):
            for text, ids in cut(tokenizer, lines(choice.texts)):
                if unknown & set(ids):
                    tried |= failed_pieces(parts, tokenizer, text)
    if choice.keep is not None:
        names = [line for line in read_text(choice.keep).replace("\r\n", "\n").split("\n") if line.strip()]
        if absent := [name for name in names if name not in strings]:
            raise ValueError(
                f"{choice.keep} names {len(absent):,} tokens that the vocabulary lacks ({join_names(absent)}); write "
                "them as they stand in it, e.g. ##ing or Ġthe"
            )
        wanted |= {strings[name] for name in names}
    return "used" if choice.texts else "listed", wanted, tried


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


def trim(
    name: str,
    choice: Choice,
    out: Path | None = None,
    *,
    leave: Collection[str] = (),
    embedding: str | None = None,
    head: str | None = None,
    link: bool = False,
    progress: Progress | None = None,
) -> Trimmed:
    """Takes tokens out of a model, as a new folder with new ids.

    The new id of every old one is in "decone/ids.safetensors" there: its tensor "old" holds the old id per new row.

    Args:
        name: folder of transformers, or its name at a hub; it is never changed.
        choice: which tokens are wanted.
        out: the new folder; None only tells what would be done.
        leave: tensors as long as the vocabulary that have nothing to do with it.
        embedding: name of the input table's tensor, where it cannot be told.
        head: likewise of the output table.
        link: other files are not copied but linked.
        progress: called with a stage, steps done and all steps.

    Returns:
        What was done, or would be.

    Raises:
        ValueError: the model's vocabulary cannot be changed, nothing would go, a text would be cut otherwise, or the
            new folder cannot be written; nothing is left behind.
    """
    tell = progress or (lambda stage, done, total: None)
    tell("tokens", 0, 1)
    model_tables = find_tables(name, embedding, head)
    trimming = plan_trimming(model_tables, choice, leave)
    model, notes = trimming.model, [*model_tables.notes, *trimming.notes]
    if out is not None:
        require_vacant(out, model.folder)
    past = read_history(model.folder)
    layout = Layout(torch.tensor(sorted(trimming.new)))
    parts = [Resized(tensor, torch.zeros(0, tensor.width, dtype=DTYPES[tensor.dtype])) for tensor in model.tensors]
    before = trimming.tokenizer.get_vocab(with_added_tokens=True)
    settings: dict[str, Any] = {"text": [path.name for path in choice.texts], "min_count": choice.min_count}
    settings |= {"keep": choice.keep and choice.keep.name, "unreachable": choice.unreachable, "leave": sorted(leave)}
    report = Trimmed(
        schema=TRIMMED,
        model=name,
        settings=settings,
        tokens_before=len(before),
        tokens_after=len(before) - len(trimming.dropped),
        rows_before=model.rows,
        rows_after=layout.rows,
        kept={reason: len(ids) for reason, ids in trimming.kept.items()},
        dropped=[token[:SIGNS] for token in trimming.dropped[:: max(1, len(trimming.dropped) // SHOWN)][:SHOWN]],
        bytes_of_rows=sum((model.rows - layout.rows) * part.width * len(part.tensor.names) for part in parts),
        checked=0,
        tables=[],
        notes=notes,
        written=None,
    )
    if out is None:
        tell("texts", 0, 1)
        checked = _checked(trimming, choice, opened(trimming.parts, model.folder))
        return report.model_copy(update={"checked": checked})
    counted: list[int] = []

    def check(folder: Path) -> None:
        again = find_tables(str(folder), embedding, head)
        if again.embedding.shape[0] != layout.rows or again.tied != model_tables.tied:
            raise ValueError(f"{plain(out)} does not come back as it was written; please report this model")
        tell("texts", 0, 1)
        counted.append(_checked(trimming, choice, opened(read_parts(folder), folder)))

    def history(tables: list[TableFacts], said: list[str]) -> dict[str, bytes]:
        sizes = (report.tokens_before, report.tokens_after), (report.rows_before, report.rows_after)
        return {NAME: content([*past, step("trim", model_tables, settings, *sizes, tables, [*notes, *said])])}

    tell("writing", 0, 1)
    edited = {**trimming.files, NAME: b"", IDS: save({"old": layout.origin}, metadata={"model": "old id per new row"})}
    result = resize(model, layout, parts, out, edited, check, history, link)
    return report.model_copy(
        update={
            "tables": result.tables,
            "checked": counted[0],
            "notes": [*notes, *result.notes],
            "written": file_list(out, result, link),
        }
    )


def _checked(trimming: Trimming, choice: Choice, new: Tokenizer) -> int:
    """Tokens that are cut as before; every token that stays must have its new id."""
    after = new.get_vocab(with_added_tokens=True)
    before = trimming.tokenizer.get_vocab(with_added_tokens=True)
    wanted = {token: trimming.new[index] for token, index in before.items() if index in trimming.new}
    if after != wanted:
        wrong = sorted(token for token in wanted.keys() | after.keys() if wanted.get(token) != after.get(token))
        raise ValueError(
            f"the trimmed tokenizer gives {plain(wrong[0], 60)!r} the id {after.get(wrong[0])} instead of "
            f"{wanted.get(wrong[0])}: its added tokens do not stand behind the others, which is not supported"
        )
    return require_same(trimming.tokenizer, new, to_check(trimming, choice), trimming.new)
