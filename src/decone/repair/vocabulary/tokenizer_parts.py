"""The files of a tokenizer as JSON: what they say that a change of the vocabulary must know."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer

from decone.files.folder import read_text
from decone.files.foreign import join_names, plain
from decone.models.tokenizer_files import MAKE, SIZE_LIMIT, declared_tokens


def read_parts(folder: Path) -> dict[str, Any]:
    """The tokenizer.json of a folder.

    Raises:
        ValueError: it cannot be read, is of an unknown kind, or the other files declare tokens that it lacks: those
            would get ids of their own when transformers loads it.
    """
    try:
        parts = json.loads(read_text(folder, "tokenizer.json", SIZE_LIMIT) or "")
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{folder / 'tokenizer.json'} is not JSON ({plain(error)}); {MAKE}") from None
    if not isinstance(parts, dict) or not isinstance(parts.get("model"), dict):
        raise ValueError(f"{folder / 'tokenizer.json'} has no model; {MAKE}")
    tokenizer = opened(parts, folder)
    absent = [token for token in declared_tokens(folder) if tokenizer.token_to_id(token) is None]
    if absent:
        raise ValueError(
            f"the files beside tokenizer.json in {folder} declare tokens that it lacks ({join_names(absent)}), which get "
            f"their ids only when it is loaded; {MAKE}"
        )
    return parts


def opened(parts: dict[str, Any], where: object) -> Tokenizer:
    """A tokenizer from its JSON, without truncation and padding.

    Raises:
        ValueError: the library refuses it.
    """
    try:
        tokenizer = Tokenizer.from_str(json.dumps(parts))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics beside it
        reason = plain(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise ValueError(f"the tokenizer of {where} cannot be read ({reason}); {MAKE}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """What a tokenizer makes of texts, without marks around them.

    Raises:
        ValueError: it cannot take one: it has no token for what it does not know.
    """
    try:
        return list(tokenizer.encode_batch(texts, add_special_tokens=False))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics beside it
        reason = plain(str(error).splitlines()[0] if str(error) else type(error).__name__)
        if len(texts) > 1:  # says which
            for text in texts:
                encoded(tokenizer, [text])
        said = plain(texts[0] if texts else "", 60)
        raise ValueError(
            f"the tokenizer cannot take {said!r} ({reason}); give another text, or a tokenizer with an unknown token"
        ) from None


def unknown_ids(parts: dict[str, Any], tokenizer: Tokenizer) -> set[int]:
    """Ids that stand for what the tokenizer does not know."""
    model = parts["model"]
    found = {model.get("unk_id")} if isinstance(model.get("unk_id"), int) else set()
    if isinstance(model.get("unk_token"), str):
        found.add(tokenizer.token_to_id(model["unk_token"]))
    return {index for index in found if isinstance(index, int)}
