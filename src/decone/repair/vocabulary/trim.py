"""`decone trim`: a model without unused tokens, whose other rows stay byte for byte and whose texts are cut as before.

Beside the requested tokens stay special and added ones, those the configuration names, the alphabet that spells
everything else, and for byte-pair encoding the smaller tokens that merges build others from.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer, pre_tokenizers

from decone.data.corpora import read_text
from decone.files.atomic import require_vacant
from decone.files.foreign import join_names, plain, quoted
from decone.files.safetensors import DTYPES
from decone.files.settings import Progress
from decone.models.find_tables import find_tables
from decone.models.tables import ModelTables
from decone.repair.vocabulary.check import (
    count_ids,
    read_chunks,
    read_lines,
    require_same_tokens,
    spell_tokens,
    tokenize,
)
from decone.repair.vocabulary.companions import Companions, find_companions
from decone.repair.vocabulary.config_ids import VocabularyChange, family_ids
from decone.repair.vocabulary.result import IDS_FILE, TRIM_SCHEMA, TrimReport, read_history
from decone.repair.vocabulary.tensors import VocabModel, open_vocab_model
from decone.repair.vocabulary.tokenizer import (
    build_tokenizer,
    mark_ids,
    merge_components,
    model_kind,
    read_merges,
    read_spec,
    trim_spec,
    unknown_ids,
)
from decone.repair.vocabulary.write import ResizedTensor, RowLayout, write_model
from decone.vocab.reach import reach

SAMPLE = 20  # dropped tokens in the report
LENGTH = 200  # characters of one
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class TokenSelection:
    """Tokens that a user wants to keep.

    Attributes:
        texts: UTF-8 files whose tokens stay.
        keep: file of tokens that stay, one per line.
        unreachable: everything stays but tokens that no text leads to.
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
class TrimPlan:
    """Tokens to take out of a model, and its new files, before anything is written.

    Attributes:
        model: the source.
        tokenizer: the old tokenizer.
        retained: ids that stay, disjoint, by the first reason that holds.
        change: ids and sizes before and after; new ids rise with the old ones.
        dropped: tokens that go, in the order of their ids.
        spec: the new tokenizer.json.
        companions: other files that depend on the vocabulary.
        files: all files that change beside the weights, by name; None leaves one out.
        notes: sentences for the user.
    """

    model: VocabModel
    tokenizer: Tokenizer
    retained: dict[str, set[int]]
    change: VocabularyChange
    dropped: list[str]
    spec: dict[str, Any]
    companions: Companions
    files: dict[str, bytes | None]
    notes: list[str]


def trim(
    model: str | os.PathLike[str],
    out: str | Path | None = None,
    *,
    text: str | Path | Sequence[str | Path] = (),
    keep: str | Path | None = None,
    unreachable: bool = False,
    min_count: int = 1,
    leave: Collection[str] = (),
    embedding: str | None = None,
    head: str | None = None,
    link: bool = False,
    progress: Progress | None = None,
) -> TrimReport:
    """Takes tokens out of a model, as a new folder with new ids.

    The new id of every old one is in "decone/ids.safetensors" there: its tensor "old" holds the old id per new row.

    Args:
        model: folder of transformers, or its name at a hub; it is never changed.
        out: the new folder; None is a dry run.
        text: UTF-8 file or files whose tokens stay.
        keep: file of tokens that stay, one per line, as they stand in the vocabulary.
        unreachable: everything stays but tokens that no text leads to.
        min_count: how often a token must be in the texts.
        leave: names of tensors that are as long as the vocabulary by chance, and of files without tokens.
        embedding: name of the input table's tensor, where it cannot be determined.
        head: likewise of the output table.
        link: other files are not copied but linked.
        progress: called with a stage, steps done and all steps.

    Returns:
        Report of what was done, or would be.

    Raises:
        ValueError: the model's vocabulary cannot be changed, nothing would go, a text would be cut otherwise, or the
            new folder cannot be written; nothing is left behind.
    """
    texts = tuple(map(Path, (text,) if isinstance(text, str | Path) else text))
    keep, out = (None if path is None else Path(path) for path in (keep, out))
    selection = TokenSelection(texts, keep, unreachable, min_count)
    name = os.fspath(model)
    advance = progress or (lambda stage, done, total: None)
    advance("tokens", 0, 1)
    model_tables = find_tables(name, embedding, head)
    plan = plan_trim(model_tables, selection, leave)
    source, notes = plan.model, [*model_tables.notes, *plan.notes]
    if out is not None:
        require_vacant(out, source.folder)
    history = read_history(source.folder)
    layout = RowLayout(torch.tensor(sorted(plan.change.new_ids)))
    tensors = [
        ResizedTensor(tensor, torch.zeros(0, tensor.width, dtype=DTYPES[tensor.dtype])) for tensor in source.tensors
    ]
    tokens_before = len(plan.tokenizer.get_vocab(with_added_tokens=True))
    row_bytes = sum(resized.width * len(resized.tensor.names) for resized in tensors)
    report = TrimReport(
        schema=TRIM_SCHEMA,
        model=name,
        settings={
            "text": [path.name for path in texts],
            "min_count": min_count,
            "keep": keep and keep.name,
            "unreachable": unreachable,
            "leave": sorted(leave),
        },
        tokens_before=tokens_before,
        tokens_after=plan.change.new_tokens,
        rows_before=source.rows,
        rows_after=layout.rows,
        kept={reason: len(ids) for reason, ids in plan.retained.items()},
        dropped=[token[:LENGTH] for token in plan.dropped[:: max(1, len(plan.dropped) // SAMPLE)][:SAMPLE]],
        bytes_of_rows=(source.rows - layout.rows) * row_bytes,
        checked=0,
        tables=[],
        notes=notes,
        written=None,
    )
    if out is None:
        advance("texts", 0, 1)
        checked = _check_tokenizer(plan, selection, build_tokenizer(plan.spec, source.folder))
        return report.model_copy(update={"checked": checked})
    counts: list[int] = []

    def check(folder: Path) -> None:
        new = find_tables(str(folder), embedding, head)
        if new.embedding.shape[0] != layout.rows or new.tied != model_tables.tied:
            raise ValueError(f"{plain(out)} does not come back as it was written; please report this model")
        advance("texts", 0, 1)
        tokenizer = build_tokenizer(read_spec(folder), folder)
        counts.append(_check_tokenizer(plan, selection, tokenizer))
        plan.companions.require_current(folder, tokenizer.get_vocab(with_added_tokens=True), plan.change)

    advance("writing", 0, 1)
    ids = save({"old": layout.origin}, metadata={"model": "old id per new row"})
    edited = {**plan.files, IDS_FILE: ids}
    report = write_model(source, layout, tensors, out, edited, report, history, check, link)
    return report.model_copy(update={"checked": counts[0]})


def plan_trim(model_tables: ModelTables, selection: TokenSelection, leave: Collection[str] = ()) -> TrimPlan:
    """Determines which tokens stay.

    Args:
        model_tables: tables and tokenizer of the model.
        selection: tokens that the user wants to keep.
        leave: as in `tensors.open_vocab_model`.

    Raises:
        ValueError: the model's vocabulary cannot be changed, a file cannot be read, or nothing would go.
    """
    model = open_vocab_model(model_tables, leave)
    spec = read_spec(model.folder)
    if spec["model"].get("dropout"):
        raise ValueError(
            f"the tokenizer of {model_tables.name} cuts texts at random (dropout); set dropout to null in it"
        )
    tokenizer = build_tokenizer(spec, model.folder)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    companions = find_companions(model, vocabulary, leave)
    generation = companions.documents.get("generation_config.json", {})
    needed = {index for ids in companions.ids().values() for _, index in ids.needed if index < model.rows}
    required = {
        "special": set(model_tables.special) | unknown_ids(spec, tokenizer),
        "configured": needed | family_ids(model_tables.family, model.config, generation, vocabulary, model.rows),
    }
    reason, requested, failed = _requested_ids(selection, spec, tokenizer)
    retained = retained_ids(spec, tokenizer, requested, required, reason)
    retained["parts"] = retained.get("parts", set()) | (failed - set().union(*retained.values()))
    ids = sorted(set().union(*retained.values()))
    if ids[-1] >= model.rows:
        raise ValueError(
            f"tokenizer.json of {model_tables.name} names the id {ids[-1]} but the tables have {model.rows:,} rows; "
            "correct its padding or post_processor"
        )
    new_ids = {old: new for new, old in enumerate(ids)}
    if len(new_ids) == model.rows:
        raise ValueError(
            f"every one of the {model.rows:,} rows of {model_tables.name} stays, so there is nothing to trim"
        )
    dropped = [token for token, index in sorted(vocabulary.items(), key=lambda pair: pair[1]) if index not in new_ids]
    change = VocabularyChange(vocabulary, model.rows, new_ids, len(vocabulary) - len(dropped), len(new_ids))
    files, notes = companions.follow(change, lambda spec: trim_spec(spec, new_ids))
    new_spec = trim_spec(spec, new_ids)
    return TrimPlan(model, tokenizer, retained, change, dropped, new_spec, companions, files, notes)


def retained_ids(
    spec: Mapping[str, Any],
    tokenizer: Tokenizer,
    requested: Iterable[int],
    required: Mapping[str, set[int]],
    reason: str,
) -> dict[str, set[int]]:
    """Determines the ids that stay, each under the first reason that holds.

    Args:
        spec: the tokenizer.json.
        tokenizer: built from it.
        requested: ids that the user wants to keep.
        required: ids that the model needs, by the reason, e.g. "special".
        reason: name of the reason of those requested.

    Returns:
        Disjoint sets: those of `required`, "added", "alphabet", the requested ones, and "parts" of others.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = {index: token for token, index in vocabulary.items()}
    retained: dict[str, set[int]] = {}

    def add(name: str, ids: Iterable[int]) -> None:
        retained[name] = retained.get(name, set()) | (set(ids) - set().union(*retained.values()))

    for name, ids in required.items():
        add(name, ids)
    add("special", mark_ids(spec))
    add("added", tokenizer.get_added_tokens_decoder())
    add("alphabet", (vocabulary[token] for token in alphabet(spec) if token in vocabulary))
    add(reason, requested)
    model = spec["model"]
    if model_kind(model) == "BPE":
        prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
        compounds = [tokens[index] for ids in retained.values() for index in ids if index in tokens]
        add("parts", (vocabulary[token] for token in merge_components(compounds, read_merges(model), prefix, suffix)))
    return retained


def alphabet(spec: Mapping[str, Any]) -> set[str]:
    """Tokens that spell any other text, as bytes, and the token that sets the price of the unknown.

    Example:
        >>> alphabet({"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -3.0]]}})
        {'b'}
    """
    model = spec["model"]
    if model_kind(model) == "Unigram":
        # Unknown text costs ten more than the least likely piece: that piece stays, so that the price does.
        least = min(model["vocab"], key=lambda entry: float(entry[1]), default=None)
        tokens = {entry[0] for entry in model["vocab"]}
        return ({least[0]} if least else set()) | {token for token in tokens if _BYTE.fullmatch(token)}
    tokens = set(model["vocab"])
    suffix = model.get("end_of_word_suffix") or ""
    stages = str([spec.get(stage) for stage in ("normalizer", "pre_tokenizer", "decoder")])
    letters = set(pre_tokenizers.ByteLevel.alphabet()) if "'ByteLevel'" in stages else set()
    letters |= {letter + suffix for letter in letters}
    return (tokens & letters) | {token for token in tokens if model.get("byte_fallback") and _BYTE.fullmatch(token)}


def failed_pieces(spec: Mapping[str, Any], tokenizer: Tokenizer, text: str) -> set[int]:
    """Ids of pieces that a WordPiece tokenizer tries in words that it then gives up as unknown.

    Without them it would try others, and a word that was unknown might become one it can spell.

    Args:
        spec: the tokenizer.json.
        tokenizer: built from it.
        text: text to look through.
    """
    model = spec["model"]
    if model_kind(model) != "WordPiece":
        return set()
    normal = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
    splitter = tokenizer.pre_tokenizer
    words = {normal} if splitter is None else {word for word, _ in splitter.pre_tokenize_str(normal)}
    vocabulary, prefix = model["vocab"], model.get("continuing_subword_prefix") or ""
    longest = max(map(len, vocabulary), default=0)
    failed: set[int] = set()
    for word in words:
        start, ids = 0, list[int]()
        while start < len(word):
            for end in range(min(len(word), start + longest), start, -1):
                piece = (prefix if start else "") + word[start:end]
                if piece in vocabulary:
                    ids.append(vocabulary[piece])
                    start = end
                    break
            else:
                failed.update(ids)
                break
    return failed


def _requested_ids(
    selection: TokenSelection, spec: Mapping[str, Any], tokenizer: Tokenizer
) -> tuple[str, set[int], set[int]]:
    """The name of the reason, the ids that a selection asks for, and those of failed pieces in its texts."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if selection.unreachable:
        return "reachable", set(vocabulary.values()) - set(reach(tokenizer).unreachable), set()
    requested: set[int] = set()
    failed: set[int] = set()
    if selection.texts:
        by_chunk, by_line = (count_ids(tokenizer, read(selection.texts)) for read in (read_chunks, read_lines))
        requested |= {index for index, count in (by_chunk | by_line).items() if count >= selection.min_count}
        if unknown := unknown_ids(spec, tokenizer):
            for text, ids in tokenize(tokenizer, read_lines(selection.texts)):
                if unknown & set(ids):
                    failed |= failed_pieces(spec, tokenizer, text)
    if selection.keep is not None:
        lines = read_text(selection.keep, mend="write one token per line").replace("\r\n", "\n").split("\n")
        names = [line for line in lines if line.strip()]
        if absent := [name for name in names if name not in vocabulary]:
            raise ValueError(
                f"{selection.keep} names {len(absent):,} tokens that the vocabulary lacks ({join_names(absent)}); "
                "write them as they stand in it, e.g. ##ing or Ġthe"
            )
        requested |= {vocabulary[name] for name in names}
    return "used" if selection.texts else "listed", requested, failed


def _check_tokenizer(plan: TrimPlan, selection: TokenSelection, new: Tokenizer) -> int:
    """Counts tokens that are cut as before; every token that stays must have its new id."""
    before = plan.tokenizer.get_vocab(with_added_tokens=True)
    after = new.get_vocab(with_added_tokens=True)
    new_ids = plan.change.new_ids
    target = {token: new_ids[index] for token, index in before.items() if index in new_ids}
    if after != target:
        wrong = sorted(token for token in target.keys() | after.keys() if target.get(token) != after.get(token))
        raise ValueError(
            f"the trimmed tokenizer gives {quoted(wrong[0])} the id {after.get(wrong[0])} instead of "
            f"{target.get(wrong[0])}: its added tokens do not stand behind the others, which is not supported"
        )
    texts: Iterable[str]
    if selection.texts:
        texts = chain(read_chunks(selection.texts), read_lines(selection.texts))
    else:
        texts = spell_tokens(plan.tokenizer, sorted(set(before.values()) & new_ids.keys()))
    return require_same_tokens(plan.tokenizer, new, texts, new_ids)
