"""The number of tokens, and ids of single ones, in the configuration files of a model."""

import json
from collections.abc import Iterator
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
