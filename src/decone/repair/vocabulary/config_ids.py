"""The number of tokens, and ids of single ones, in the configuration files of a model."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from decone.files.foreign import plain
from decone.models.find_tables import NESTED

SIZES = ("vocab_size", "n_words", "n_vocab", "padded_vocab_size", "decoder_vocab_size")


def resized(config: dict[str, Any], before: int, after: int) -> bytes:
    """A config.json that tells the new number of rows wherever it told the old one, also of its language model.

    Args:
        config: as it is.
        before: rows of the tables.
        after: of the new ones.

    Raises:
        ValueError: it tells another number than the tables have.

    Example:
        >>> json.loads(resized({"text_config": {"vocab_size": 9}, "vision_config": {"vocab_size": 9}}, 9, 12))
        {'text_config': {'vocab_size': 12}, 'vision_config': {'vocab_size': 9}}
    """
    new = json.loads(json.dumps(config))
    told = [(part, key) for part in language(new) for key in SIZES if isinstance(part.get(key), int)]
    if told and not any(part[key] == before for part, key in told):
        part, key = told[-1]
        raise ValueError(
            f"config.json says {key} {part[key]:,} but the tables have {before:,} rows; correct what is wrong"
        )
    for part, key in told:
        if part[key] == before:
            part[key] = after
    if not told:
        new["vocab_size"] = after
    return written(new)


def language(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A configuration and those within it that are of its language model."""
    yield config
    for key in NESTED:
        if isinstance(inner := config.get(key), dict):
            yield from language(inner)


def written(content: Any) -> bytes:
    """JSON as transformers writes it, but in the order it has."""
    try:
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a surrogate pair can stand in JSON but not in UTF-8
        return (json.dumps(content, indent=2) + "\n").encode()
    except RecursionError as error:
        raise ValueError(f"a configuration is nested too deeply ({plain(error)})") from None


# Ids that a model cannot do without: pad_token_id, forced_bos_token_id, image_token_index, lang_to_id and the like.
_NEEDED = re.compile(
    r".+_token_ids?|.+_token_(index|idx)|(bos|eos|pad|unk|mask|sep|cls)_(index|idx)|(lang|task|lang_code)_to_id"
    r"|forced_decoder_ids"
)
# Ids that are only forbidden or favoured: those that go leave the list.
_LISTED = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "sequence_bias")
# In these families the first position is that of the padding token's id and one: that id must not change.
_BY_PADDING = """
roberta xlm-roberta camembert xlm-roberta-xl xmod roberta-prelayernorm data2vec-text ibert longformer luke mluke mpnet
esm layoutlmv3 lilt markuplm m2m_100 nllb-moe xglm fsmt prophetnet speech_to_text jina_embeddings_v3
"""
BY_PADDING = frozenset(_BY_PADDING.split())


def needed_ids(config: Mapping[str, Any]) -> set[int]:
    """Ids that a configuration needs.

    Example:
        >>> sorted(needed_ids({"eos_token_id": [1, 2], "forced_decoder_ids": [[0, 7]], "suppress_tokens": [5]}))
        [1, 2, 7]
    """
    return {
        index
        for part in _parts(config)
        for key, value in part.items()
        if _NEEDED.fullmatch(key)
        for index in _ids(key, value)
    }


def fixed_ids(family: str, config: Mapping[str, Any]) -> set[int]:
    """Ids that must stay what they are: in some families the positions depend on that of the padding token.

    Example:
        >>> sorted(fixed_ids("roberta", {"pad_token_id": 1})), fixed_ids("bert", {"pad_token_id": 1})
        ([0, 1], set())
    """
    pad = config.get("pad_token_id", 1)
    return set(range(pad + 1)) if family in BY_PADDING and isinstance(pad, int) else set()


def remapped(config: Mapping[str, Any], new: Mapping[int, int], name: str) -> tuple[dict[str, Any], list[str]]:
    """A configuration with the new ids.

    Args:
        config: content of a JSON file.
        new: the new id of every old one that stays.
        name: of the file, for what is said.

    Returns:
        The new content, and a note on ids that no table has and that are left as they are.

    Example:
        >>> remapped({"pad_token_id": 3, "suppress_tokens": [3, 4]}, {3: 0}, "config.json")
        ({'pad_token_id': 0, 'suppress_tokens': [0]}, [])
    """
    found: dict[str, Any] = json.loads(json.dumps(config))
    strange: list[str] = []
    for part in _parts(found):
        for key, value in part.items():
            if key in _LISTED and isinstance(value, list):
                part[key] = [_mapped(key, entry, new) for entry in value if _ids(key, entry) <= new.keys()]
            elif _NEEDED.fullmatch(key):
                if lost := _ids(key, value) - new.keys():
                    strange.append(f"{plain(key, 60)} {', '.join(map(str, sorted(lost)))}")
                part[key] = _mapped(key, value, new)
    notes = [f"{name} names ids that no row has, which stay as they are: {'; '.join(strange)}"] if strange else []
    return found, notes


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    for part in language(config):
        yield part
        tasks = part.get("task_specific_params")
        yield from (task for task in tasks.values() if isinstance(task, dict)) if isinstance(tasks, dict) else ()


def _ids(key: str, value: Any) -> set[int]:
    """The ids in a value, however deep; a position or a bias beside an id is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {value} if value >= 0 else set()
    if isinstance(value, dict):
        return {index for inner in value.values() for index in _ids(key, inner)}
    if isinstance(value, list):
        return {index for inner in _split(key, value)[1] for index in _ids(key, inner)}
    return set()


def _mapped(key: str, value: Any, new: Mapping[int, int]) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return new.get(value, value)
    if isinstance(value, dict):
        return {name: _mapped(key, inner, new) for name, inner in value.items()}
    if isinstance(value, list):
        before, ids, after = _split(key, value)
        return [*before, *(_mapped(key, inner, new) for inner in ids), *after]
    return value


def _split(key: str, value: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """What of a list is or holds ids, and what stands before and behind: pairs with a position, and with a bias."""
    if key == "forced_decoder_ids" and len(value) == 2 and isinstance(value[0], int):
        return value[:1], value[1:], []
    if key == "sequence_bias" and len(value) == 2 and isinstance(value[0], list) and not isinstance(value[1], list):
        return [], value[:1], value[1:]
    return [], value, []
