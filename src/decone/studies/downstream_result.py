"""The result of one fine-tuning as a file: what it holds, and when it is refused."""

import json
import math
from pathlib import Path
from typing import Any

from decone.training.finetuning.loop import FinetuneConfig

DOWNSTREAM = "decone.downstream/1"
_SAME = ("method", "settings", "before")  # tables made alike may differ in rounding between machines


def read_result(path: Path, config: FinetuneConfig) -> dict[str, Any]:
    """Reads a result.

    Args:
        path: of the file.
        config: settings it must have been made with.

    Raises:
        ValueError: it is damaged, something else, or was made with other settings; the message says what to do.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != DOWNSTREAM:
            raise ValueError("not this program's format")
        made = type(config).build(content["config"])
        if len(content["epochs"]) != made.epochs:
            raise ValueError(f"{len(content['epochs'])} of {made.epochs} epochs")
        numbers = [number for epoch in content["epochs"] for number in epoch["measured"].values()]
        if not numbers or not all(math.isfinite(number) for number in numbers):
            raise ValueError("a measure is no number")
        if (content["delta"] is None) != (made.row == "original"):
            raise ValueError("its delta does not fit its row")
        if content["delta"] is not None:
            [content["delta"][key] for key in (*_SAME, "sha256")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!s:.200}); remove it to run it again") from None
    if made.identity() != config.identity():
        wanted = config.model_dump()
        key = next(key for key, value in made.model_dump().items() if wanted[key] != value)
        raise ValueError(
            f"{path} was made with {key}={getattr(made, key)}, not {wanted[key]}; choose another --out, or remove it"
        )
    return content


def require_same(result: dict[str, Any], delta: dict[str, Any] | None, path: Path) -> None:
    """Refuses a result whose table was repaired otherwise than those that are to stand beside it.

    Args:
        result: content of a result.
        delta: what is recorded of the delta that is applied now; None for the original table.
        path: of the result.

    Raises:
        ValueError: the method, its settings or the table it was applied to differ.
    """
    there = result["delta"]
    if there is None or delta is None:
        return
    for key in _SAME:
        if there[key] != delta[key]:
            raise ValueError(
                f"{path} was made with another delta ({key} differs); give the same delta with --delta, choose another "
                "--out, or remove it"
            )
