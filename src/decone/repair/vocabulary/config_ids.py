"""Configuration files of a model under a new vocabulary: its size, and the ids of single tokens."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from decone.files.foreign import plain
from decone.models.families import family_of
from decone.models.find_tables import NESTED

SIZES = ("vocab_size", "n_words", "n_vocab", "padded_vocab_size", "decoder_vocab_size")
# Ids that a model cannot do without: pad_token_id, forced_bos_token_id, image_token_index, lang_to_id and the like.
_REQUIRED = re.compile(
    r".+_token_ids?|.+_token_(index|idx)|(bos|eos|pad|unk|mask|sep|cls)_(index|idx)|(lang|task|lang_code)_to_id"
    r"|forced_decoder_ids"
)
# Ids that are only forbidden or favoured: those that go leave the list.
_LISTED = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "sequence_bias")


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


def json_bytes(content: Any) -> bytes:
    """JSON laid out as transformers does, with the keys in the order of the source."""
    try:
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a surrogate pair can stand in JSON but not in UTF-8
        return (json.dumps(content, indent=2) + "\n").encode()
    except RecursionError as error:
        raise ValueError(f"a configuration is nested too deeply ({plain(error)})") from None


def required_ids(config: Mapping[str, Any]) -> set[int]:
    """Ids that a configuration cannot do without.

    Example:
        >>> sorted(required_ids({"eos_token_id": [1, 2], "forced_decoder_ids": [[0, 7]], "suppress_tokens": [5]}))
        [1, 2, 7]
    """
    return {
        index
        for section in _sections(config)
        for key, value in section.items()
        if _REQUIRED.fullmatch(key)
        for index in _ids(key, value)
    }


def fixed_ids(family: str, config: Mapping[str, Any]) -> set[int]:
    """Ids that may not change: in some families positions are counted from the id of the padding token.

    Example:
        >>> sorted(fixed_ids("roberta", {"pad_token_id": 1})), fixed_ids("bert", {"pad_token_id": 1})
        ([0, 1], set())
    """
    pad = config.get("pad_token_id", 1)
    return set(range(pad + 1)) if family_of(family).padded_positions and isinstance(pad, int) else set()


def remap_ids(config: Mapping[str, Any], new_ids: Mapping[int, int], name: str) -> tuple[dict[str, Any], list[str]]:
    """Replaces the token ids of a configuration.

    Args:
        config: content of a JSON file.
        new_ids: new id of every old one that stays.
        name: name of the file, for the note.

    Returns:
        The new content, and a note on ids that no table has; those are left as they are.

    Example:
        >>> remap_ids({"pad_token_id": 3, "suppress_tokens": [3, 4]}, {3: 0}, "config.json")
        ({'pad_token_id': 0, 'suppress_tokens': [0]}, [])
    """
    new: dict[str, Any] = json.loads(json.dumps(config))
    foreign: list[str] = []
    for section in _sections(new):
        for key, value in section.items():
            if key in _LISTED and isinstance(value, list):
                section[key] = [_remap(key, entry, new_ids) for entry in value if _ids(key, entry) <= new_ids.keys()]
            elif _REQUIRED.fullmatch(key):
                if unmapped := _ids(key, value) - new_ids.keys():
                    foreign.append(f"{plain(key, 60)} {', '.join(map(str, sorted(unmapped)))}")
                section[key] = _remap(key, value, new_ids)
    notes = [f"{name} names ids that no row has, which stay as they are: {'; '.join(foreign)}"] if foreign else []
    return new, notes


def _sections(config: Any) -> Iterator[dict[str, Any]]:
    for section in language_configs(config):
        yield section
        tasks = section.get("task_specific_params")
        yield from (task for task in tasks.values() if isinstance(task, dict)) if isinstance(tasks, dict) else ()


def _ids(key: str, value: Any) -> set[int]:
    """The ids in a value, at any depth, without the position or bias that stands beside an id."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {value} if value >= 0 else set()
    if isinstance(value, dict):
        return {index for inner in value.values() for index in _ids(key, inner)}
    if isinstance(value, list):
        return {index for inner in _split(key, value)[1] for index in _ids(key, inner)}
    return set()


def _remap(key: str, value: Any, new_ids: Mapping[int, int]) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return new_ids.get(value, value)
    if isinstance(value, dict):
        return {name: _remap(key, inner, new_ids) for name, inner in value.items()}
    if isinstance(value, list):
        before, ids, after = _split(key, value)
        return [*before, *(_remap(key, inner, new_ids) for inner in ids), *after]
    return value


def _split(key: str, value: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Splits a list into entries before its ids, the ids, and entries after: pairs with a position or a bias."""
    if key == "forced_decoder_ids" and len(value) == 2 and isinstance(value[0], int):
        return value[:1], value[1:], []
    if key == "sequence_bias" and len(value) == 2 and isinstance(value[0], list) and not isinstance(value[1], list):
        return [], value[:1], value[1:]
    return [], value, []
