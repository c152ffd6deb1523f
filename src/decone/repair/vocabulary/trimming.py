"""What trimming a model would do: which tokens stay, and the files of its tokenizer without the others."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from decone.data.corpora import read_text
from decone.files.folder import read_object
from decone.files.foreign import join_names
from decone.models.tables import ModelTables
from decone.repair.vocabulary.by_token import Vocabulary, vocabulary
from decone.repair.vocabulary.configured import resized, written
from decone.repair.vocabulary.cut_texts import count, cut, lines, pieces, spelled
from decone.repair.vocabulary.kept import failed_pieces, kept_ids
from decone.repair.vocabulary.remapped import fixed_ids, needed_ids, remapped
from decone.repair.vocabulary.tokenizer_parts import opened, read_parts, unknown_ids
from decone.repair.vocabulary.trimmed_tokenizer import trimmed_files, trimmed_parts
from decone.vocab.reach import reach

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
            f"tokenizer.json of {model_tables.name} names the id {ids[-1]} but the tables have {model.rows:,} rows; correct "
            "its padding or post_processor"
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
                f"{choice.keep} names {len(absent):,} tokens that the vocabulary lacks ({join_names(absent)}); write them "
                "as they stand in it, e.g. ##ing or Ġthe"
            )
        wanted |= {strings[name] for name in names}
    return "used" if choice.texts else "listed", wanted, tried
