"""Checkpoints: a folder written beside and renamed, so that a kill at any moment leaves the last good one.

    checkpoints/step-00000250/model.safetensors    weights of the model
                              state.safetensors    tensors of optimiser, objective, random numbers
                              state.json           everything else; written last

Nothing is ever unpickled.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from decone.files.atomic import UNFINISHED, atomic_folder
from decone.files.safetensors import save_tensors
from decone.files.settings import parse_json

FOLDER = "checkpoints"
FORMAT = 1


def save(run: Path, step: int, model: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Writes a checkpoint and removes older ones.

    Args:
        run: the run's folder.
        step: optimiser steps done.
        model: weights by name.
        state: nested dicts and lists of tensors, numbers, strings, booleans and None.

    Returns:
        The checkpoint's folder.
    """
    folder = run / FOLDER
    final = folder / f"step-{step:08d}"
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, tensors)
    with atomic_folder(final, overwrite=True) as beside:
        save_tensors(beside / "model.safetensors", model)
        save_tensors(beside / "state.safetensors", tensors)
        content = json.dumps({"format": FORMAT, "step": step, "state": tree})
        (beside / "state.json").write_text(content, encoding="utf-8")
    remove_others(final)
    return final


def remove_others(newest: Path) -> None:
    """Removes older checkpoints, and those that a killed process was writing."""
    for old in newest.parent.iterdir():
        if old != newest and (old.name.startswith(("step-", "writing-")) or old.name.endswith(UNFINISHED)):
            shutil.rmtree(old, ignore_errors=True)


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run, None if there is none."""
    folders = sorted((run / FOLDER).glob("step-*")) if (run / FOLDER).is_dir() else []
    return folders[-1] if folders else None


def load(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """Reads a checkpoint: its step, the weights by name, the state as it was saved.

    Raises:
        ValueError: a file is missing, truncated, or not a decone checkpoint.
    """
    try:
        document = parse_json((folder / "state.json").read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError("not this program's format")
        model, tensors = load_file(folder / "model.safetensors"), load_file(folder / "state.safetensors")
        return int(document["step"]), model, _restore(document["state"], tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"the checkpoint {folder} is damaged or foreign ({error}); remove it and start again"
        ) from None


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file; ValueError when it is missing or damaged."""
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read {path} ({error}); train the run again") from None
    return weights


def _flatten(value: Any, tensors: dict[str, Tensor], path: str = "state") -> Any:
    """Nested values as JSON; tensors go to the side and leave their name. Dicts become pairs, for keys may be ints."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _flatten(item, tensors, f"{path}.{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(item, tensors, f"{path}.{index}") for index, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path} is a {type(value).__name__}, which a checkpoint cannot hold")


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _restore(item, tensors) for key, item in content}
    items = [_restore(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
