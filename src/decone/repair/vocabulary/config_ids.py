"""Token ids and sizes of a vocabulary in the JSON files of a model: collected, and given their new values.

An id is known by the name of its entry (`eos_token_id`), or because a token of the vocabulary stands beside it: a map
from tokens to ids or back, a list of all tokens, an object that has both. One walk serves both uses, so that whatever
is renumbered was collected before.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from decone.files.foreign import plain
from decone.models.families import family_of
from decone.models.find_tables import NESTED

SIZES = ("vocab_size", "n_words", "n_vocab", "padded_vocab_size", "decoder_vocab_size")
_ANY_SIZE = re.compile(r"(?!type_)(\w+_)?vocab_size|n_words|n_vocab|codebook_size")
_ROLE = "bos|eos|eod|pad|unk|mask|sep|cls|newline"
# Ids that a model cannot do without: pad_token_id, forced_bos_token_id, image_token_index, lang_to_id and the like. A
# processor may give the token itself instead.
_NEEDED = re.compile(
    rf".+_token_(ids?|index|idx)|({_ROLE})_(id|index|idx)|\w*(im|img|image|video|audio|vision|slice|frame)_"
    r"(start|end|newline|patch|bos|eos|pad)_id|forced_decoder_ids|(lang|task|\w*lang_code)_to_id|\w*lang_to_code_id"
    r"|trainable_token_indices|(?!n_|.*(num|max|min|per|count)_).+_tokens?"
)
# Ids that are only forbidden or favoured: those that go leave the list.
_LISTED = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "sequence_bias")
# Classes of a task, and ids of vocabularies of speech, of units and of entities, which may have the names of tokens.
_LABELS = re.compile(
    r"label2id|id2label|lang_id|(t2u|codebook|\w*codec|vocoder|coarse|semantic|audio_stream|entity)_.*"
)
# The id from which another vocabulary is counted: where rows go, nobody knows what it should be.
_OFFSET = re.compile(r"(vocab|token|token_id|text_encoding)_offset")
# Chameleon and Emu3 find the tokens of pictures by these names in their vocabulary_map.
_PICTURES = re.compile(r"IMGIMG.*|<\|visual token .*|<\|extra_200\|>|<image>")
_NAMES, _NUMBERS = ("content", "token", "token_str", "piece"), ("id", "rank", "index")
SHORT = 16  # entries; nothing as short is taken for a copy of the vocabulary


@dataclass(frozen=True)
class VocabularyChange:
    """Ids and sizes before and after, as every file of a model must follow them.

    Attributes:
        tokens: old ids by token.
        rows: of the old tables.
        new_ids: new id of every old one that stays.
        new_tokens: number of tokens after.
        new_rows: of the new tables.
    """

    tokens: Mapping[str, int]
    rows: int
    new_ids: Mapping[int, int]
    new_tokens: int
    new_rows: int


class _IdWalk:
    """Copies a JSON with every token id replaced.

    Args:
        tokens: ids by token.
        rows: of the tables.
        needed: the new id of one that a model cannot do without; called with the name of its entry and the id.
        listed: likewise of one in a list or a copy of the vocabulary; None takes its entry out.
    """

    def __init__(
        self,
        tokens: Mapping[str, int],
        rows: int,
        needed: Callable[[str, int], int],
        listed: Callable[[str, int], int | None],
    ) -> None:
        self.tokens, self.rows, self.needed, self.listed = tokens, rows, needed, listed

    def copy(self, content: Any, key: str = "") -> Any:
        """The content with new ids.

        Args:
            content: a JSON, or a part of one.
            key: name of its entry; empty for all of a file.

        Raises:
            ValueError: an entry depends on ids in a way that cannot be followed.
        """
        if isinstance(content, dict):
            if key and self._of_another_vocabulary(content):
                return content
            return self._map(content, key) or self._object(content)
        if isinstance(content, list):
            return self._list(content, key)
        return content

    def _entry(self, key: str, value: Any) -> Any:
        if _LABELS.fullmatch(key):
            return value
        if _OFFSET.fullmatch(key) and isinstance(value, int) and value:
            raise ValueError(
                f"{plain(key, 60)} {value} says where ids of another vocabulary begin; that is not supported"
            )
        if key in _LISTED and isinstance(value, list):
            entries = (self._ids(key, entry, self.listed) for entry in value)
            return [new for new in entries if not _has_gap(new)]
        number_of_tokens = key.endswith("_tokens") and isinstance(value, int)
        if _NEEDED.fullmatch(key) and not number_of_tokens:
            return self._ids(key, value, self.needed)
        return self.copy(value, key)

    def _ids(self, key: str, value: Any, convert: Callable[[str, int], int | None]) -> Any:
        """A value that holds ids at any depth, without the position or bias that stands beside an id."""
        if isinstance(value, int) and not isinstance(value, bool):
            return convert(key, value) if value >= 0 else value
        if isinstance(value, str) and value in self.tokens:
            convert(key, self.tokens[value])
        if isinstance(value, dict):
            return {name: self._ids(key, inner, convert) for name, inner in value.items()}
        if isinstance(value, list):
            before, ids, after = _split(key, value)
            return [*before, *(self._ids(key, inner, convert) for inner in ids), *after]
        return value

    def _of_another_vocabulary(self, section: dict[str, Any]) -> bool:
        sizes = {size for key, size in section.items() if _ANY_SIZE.fullmatch(key) and isinstance(size, int)}
        return bool(sizes) and not sizes & {self.rows, len(self.tokens)}

    def _object(self, content: dict[str, Any]) -> dict[str, Any]:
        names = [content[name] for name in _NAMES if isinstance(content.get(name), str)]
        new = {key: self._entry(key, value) for key, value in content.items()}
        for key in _NUMBERS:
            if any(name in self.tokens and self.tokens[name] == content.get(key) for name in names):
                new[key] = self.needed(key, content[key])
        return new

    def _map(self, content: dict[str, Any], key: str) -> dict[str, Any] | None:
        """A map between tokens and ids with new ids; None where it is none."""
        pairs = list(_pairs(content))
        names = [token for _, token, index in pairs if self.tokens.get(token) == index]
        shared = sum(token in self.tokens for _, token, _ in pairs)
        distinct = len({index for _, _, index in pairs}) == len(pairs)  # counts of tokens are not
        if self._covers(shared) and distinct and 2 * len(names) < shared:
            raise ValueError(f"{plain(key, 60) or 'it'} gives the tokens other ids than tokenizer.json does")
        copy = self._covers(len(names))
        # A pair may fit by chance ("width": 224), a few of them or a mark hardly.
        meant = len(names) > 2 or any(not name.replace("_", "").isalnum() for name in names)
        if not copy and (len(names) < shared or 2 * len(names) < len(content) or not meant):
            return None
        new = dict(content)
        for name, token, index in pairs:
            needed = not copy or (key == "vocabulary_map" and _PICTURES.fullmatch(token))
            new_id = self.needed(key, index) if needed else self.listed(key, index)
            by_id = not isinstance(content[name], int)
            del new[name]
            if new_id is not None:
                new[str(new_id) if by_id else name] = content[name] if by_id else new_id
        return new

    def _list(self, content: list[Any], key: str) -> list[Any]:
        matches = sum(isinstance(item, str) and self.tokens.get(item) == index for index, item in enumerate(content))
        if matches and self._covers(matches):
            return [item for index, item in enumerate(content) if self.listed(key, index) is not None]
        numbers = len(content) > SHORT and all(isinstance(item, int | float) for item in content)
        if numbers and len(content) in (self.rows, len(self.tokens)):
            raise ValueError(f"{plain(key, 60) or 'it'} is a list of {len(content):,} numbers, one per token")
        return [self.copy(item, key or "[]") for item in content]

    def _covers(self, count: int) -> bool:
        return 2 * count >= max(SHORT, len(self.tokens))


class FileIds(NamedTuple):
    """Ids in a file, each with the name of its entry.

    Attributes:
        needed: those that the model cannot do without.
        listed: those in lists, and in copies of the vocabulary, which may go.
    """

    needed: set[tuple[str, int]]
    listed: set[tuple[str, int]]


def read_ids(content: Any, tokens: Mapping[str, int], rows: int) -> FileIds:
    """Collects the token ids of a JSON.

    Args:
        content: of the file.
        tokens: ids by token.
        rows: of the tables.

    Raises:
        ValueError: an entry depends on ids in a way that cannot be followed.

    Example:
        >>> config = {"eos_token_id": [1, 2], "forced_decoder_ids": [[0, 7]], "suppress_tokens": [5]}
        >>> ids = read_ids(config | {"image_token": "<image>", "marks": {"<a>": 4}}, {"<image>": 3, "<a>": 4}, 9)
        >>> sorted(index for _, index in ids.needed), sorted(ids.listed)
        ([1, 2, 3, 4, 7], [('suppress_tokens', 5)])
    """
    ids = FileIds(set(), set())

    def collect(entries: set[tuple[str, int]]) -> Callable[[str, int], int]:
        def add(key: str, index: int) -> int:
            entries.add((key, index))
            return index

        return add

    _IdWalk(tokens, rows, collect(ids.needed), collect(ids.listed)).copy(content)
    return ids


def renumber(content: Any, change: VocabularyChange, name: str) -> tuple[Any, list[str]]:
    """Replaces the token ids of a JSON.

    Args:
        content: of the file.
        change: new ids; every needed one is among them.
        name: of the file, for the note.

    Returns:
        The new content, and a note on ids that no table has; those are left as they are.

    Raises:
        ValueError: an entry depends on ids in a way that cannot be followed.

    Example:
        >>> vocab = {letter: index for index, letter in enumerate("abcdefghijklm")}
        >>> change = VocabularyChange(vocab, 13, {3: 0, 12: 1}, 2, 2)
        >>> renumber({"pad_token_id": 3, "suppress_tokens": [3, 4], "vocabulary_map": vocab}, change, "config.json")
        ({'pad_token_id': 0, 'suppress_tokens': [0], 'vocabulary_map': {'d': 0, 'm': 1}}, [])
    """
    foreign: dict[str, None] = {}

    def convert(key: str, index: int) -> int:
        if index not in change.new_ids:
            foreign[f"{plain(key, 60)} {index}"] = None
        return change.new_ids.get(index, index)

    walk = _IdWalk(change.tokens, change.rows, convert, lambda key, index: change.new_ids.get(index))
    new = walk.copy(content)
    notes = [f"{plain(name, 60)} names ids that no row has, which stay as they are: {'; '.join(foreign)}"]
    return new, notes if foreign else []


def resize(content: Any, change: VocabularyChange) -> Any:
    """Replaces sizes of the vocabulary in any JSON but the model's own configuration.

    Example:
        >>> change = VocabularyChange({"a": 0, "b": 1}, 5, {0: 0}, 1, 4)
        >>> resize({"vocab_size": 5, "inner": [{"unpadded_vocab_size": 2}], "type_vocab_size": 3}, change)
        {'vocab_size': 4, 'inner': [{'unpadded_vocab_size': 1}], 'type_vocab_size': 3}
    """
    if isinstance(content, list):
        return [resize(item, change) for item in content]
    if not isinstance(content, dict):
        return content
    # SPLADE's vector of a text has an entry per token.
    dimension = "embedding_dimension" if "pooling_strategy" in content and "activation_function" in content else "\0"
    sizes = {len(change.tokens): change.new_tokens, change.rows: change.new_rows}
    return {
        key: sizes.get(value, value)
        if isinstance(value, int) and (_ANY_SIZE.fullmatch(key) or key.endswith(dimension))
        else resize(value, change)
        for key, value in content.items()
    }


def set_vocab_size(config: dict[str, Any], before: int, after: int) -> bytes:
    """Writes a config.json with a new number of rows wherever it gives the old one, its language model's included.

    Args:
        config: the present content.
        before: rows of the old tables.
        after: rows of the new ones.

    Raises:
        ValueError: the configuration gives another number than the tables have.

    Example:
        >>> json.loads(set_vocab_size({"text_config": {"vocab_size": 9}, "vision_config": {"vocab_size": 9}}, 9, 12))
        {'text_config': {'vocab_size': 12}, 'vision_config': {'vocab_size': 9}}
    """
    new = json.loads(json.dumps(config))
    sizes = [(section, key) for section in language_configs(new) for key in SIZES if isinstance(section.get(key), int)]
    if sizes and not any(section[key] == before for section, key in sizes):
        section, key = sizes[-1]
        raise ValueError(
            f"config.json says {key} {section[key]:,} but the tables have {before:,} rows; correct what is wrong"
        )
    for section, key in sizes:
        if section[key] == before:
            section[key] = after
    if not sizes:
        new["vocab_size"] = after
    return json_bytes(new)


def language_configs(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A configuration, and those nested in it that belong to its language model."""
    yield config
    for key in NESTED:
        if isinstance(inner := config.get(key), dict):
            yield from language_configs(inner)


def family_ids(
    family: str, config: dict[str, Any], generation: Mapping[str, Any], tokens: Mapping[str, int], rows: int
) -> set[int]:
    """Collects ids that mean something to models of a family, whatever their tokens are.

    In some families positions are counted from the id of the padding token, so it may not change. Whisper takes every
    id behind that of "no times" for a time. The first CLIP models read a text at its highest id if eos_token_id is 2.

    Args:
        family: of the model.
        config: its config.json.
        generation: its generation_config.json.
        tokens: ids by token.
        rows: of the tables.

    Example:
        >>> sorted(family_ids("roberta", {"pad_token_id": 1}, {}, {}, 9))
        [0, 1]
        >>> sorted(family_ids("whisper", {}, {"no_timestamps_token_id": 5}, {}, 9))
        [6, 7, 8]
    """
    row, sections = family_of(family), list(language_configs(config))
    ids: set[int] = set()
    if row.padded_positions:
        padding = next((s["pad_token_id"] for s in sections if isinstance(s.get("pad_token_id"), int)), 1)
        ids.update(range(min(padding + 1, rows)))
    if row.reads_highest_id and any(section.get("eos_token_id") == 2 for section in sections):
        ids.update(range(3))
    if row.timestamp_ids:
        last = generation.get("no_timestamps_token_id", tokens.get("<|notimestamps|>"))
        last = last if isinstance(last, int) else max(tokens.values(), default=-1)
        ids.update(range(max(0, last + 1), rows))
    return {index for index in ids if index < rows}


def json_bytes(content: Any) -> bytes:
    """JSON laid out as transformers does, with the keys in the order of the source."""
    try:
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a surrogate pair can stand in JSON but not in UTF-8
        return (json.dumps(content, indent=2) + "\n").encode()
    except RecursionError as error:
        raise ValueError(f"a configuration is nested too deeply ({plain(error)})") from None


def _pairs(content: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Pairs of a token and an id in a map, each with its key."""
    for key, value in content.items():
        if isinstance(value, int) and not isinstance(value, bool):
            yield key, key, value
            continue
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str) and re.fullmatch(r"0|[1-9][0-9]{0,9}", key):
            yield key, text, int(key)


def _has_gap(value: Any) -> bool:
    """True where an id of an entry went."""
    return any(map(_has_gap, value)) if isinstance(value, list) else value is None


def _split(key: str, value: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Splits a list into entries before its ids, the ids, and entries after: pairs with a position or a bias."""
    if key == "forced_decoder_ids" and len(value) == 2 and isinstance(value[0], int):
        return value[:1], value[1:], []
    if key == "sequence_bias" and len(value) == 2 and isinstance(value[0], list) and not isinstance(value[1], list):
        return [], value[:1], value[1:]
    return [], value, []
