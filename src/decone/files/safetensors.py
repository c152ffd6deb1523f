"""Single tensors of safetensors files, one file or many, read lazily: a scan needs two of them, not the model."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from decone.files.folder import inside, read_object
from decone.files.foreign import plain

INDEX = "model.safetensors.index.json"
HEADER_LIMIT = 32 << 20  # bytes; a header of 100,000 tensors takes about 12 MB
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
CONVERT = (
    "load it where you trust it and save it again as safetensors: "
    "transformers' AutoModel.from_pretrained(OLD).save_pretrained(NEW)"
)
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_ADAPTER = "adapter_model.safetensors"
_NOT_WEIGHTS = ("consolidated", "adapter_", "optimizer", "scheduler", "random_states", "best-")
_SHARD = re.compile(r"(.+)-(\d{5,6})-of-(\d{5,6})\.safetensors")


@dataclass(frozen=True)
class Entry:
    """One tensor as the header of its file describes it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class FileTable:
    """A matrix in a safetensors file; no more of it is in memory than the rows that are asked for."""

    file: Path
    name: str
    shape: tuple[int, int]
    dtype: torch.dtype

    def read(self, start: int = 0, stop: int | None = None) -> Float[Tensor, "V H"]:
        """Rows start to stop, as stored.

        Raises:
            ValueError: the file is gone or has changed.
        """
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        rows: Tensor = _opened(self.file, lambda file: file.get_slice(self.name)[start : max(start, stop)])
        return rows

    def first(self, rows: int) -> Self:
        """The same table without the rows from `rows` on."""
        return replace(self, shape=(min(rows, self.shape[0]), self.shape[1]))


class Weights:
    """The tensors of a checkpoint by name, described but not read.

    Args:
        place: as the user called it.
        entries: of each tensor.
    """

    def __init__(self, place: Path, entries: dict[str, Entry]) -> None:
        self.place, self.entries = place, entries

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def table(self, name: str) -> FileTable:
        """One matrix, still unread.

        Raises:
            ValueError: it is no matrix, or empty, or its numbers are not floating point.
        """
        entry = self.entries[name]
        if len(entry.shape) != 2 or 0 in entry.shape:
            raise ValueError(f"{plain(name)} of {self.place} has shape {list(entry.shape)}; a table is [V, H]")
        return FileTable(entry.file, name, (entry.shape[0], entry.shape[1]), self._dtype(name))

    def vector(self, name: str) -> Float[Tensor, " V"]:
        """One vector, read whole, float32; a matrix of one row counts as a vector.

        Raises:
            ValueError: it is no vector, or its numbers are not floating point, or the file has changed.
        """
        entry = self.entries[name]
        if not (len(entry.shape) == 1 or (len(entry.shape) == 2 and entry.shape[0] == 1)):
            raise ValueError(f"{plain(name)} of {self.place} has shape {list(entry.shape)}; a bias is [V]")
        self._dtype(name)
        read: Tensor = _opened(entry.file, lambda file: file.get_tensor(name))
        return read.reshape(-1).float()

    def _dtype(self, name: str) -> torch.dtype:
        stored = self.entries[name].dtype
        if stored not in DTYPES:
            raise ValueError(
                f"{plain(name)} of {self.place} is stored as {plain(stored)}, which is quantised or no floating point; "
                "scan the checkpoint it was made from"
            )
        return DTYPES[stored]


def open_weights(place: Path) -> Weights:
    """Looks into the safetensors files of a model, reading their headers only.

    Args:
        place: a .safetensors file, or a folder with one or with shards and perhaps their index.

    Returns:
        Every tensor of the files.

    Raises:
        ValueError: there are only pickles, or a file is missing, truncated, damaged, or outside the folder.
    """
    if place.is_dir():
        return Weights(place, _of_folder(place))
    if place.suffix != ".safetensors":
        raise ValueError(_refusal(place))
    return Weights(place, _header(place))


def _of_folder(folder: Path) -> dict[str, Entry]:
    if inside(folder, "model.safetensors").is_file():
        return _header(folder / "model.safetensors")
    index = read_object(folder, INDEX)
    if index is not None:
        return _of_index(folder, index)
    files = sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith(_NOT_WEIGHTS))
    if not files:
        raise ValueError(_emptiness(folder))
    _all_shards(folder, files)
    entries: dict[str, Entry] = {}
    for file in files:
        found = _header(inside(folder, file))
        if doubled := entries.keys() & found.keys():
            raise ValueError(f"{folder} holds {plain(min(doubled))} in two files; name one of them, e.g. {plain(file)}")
        entries |= found
    return entries


def _of_index(folder: Path, index: dict[str, Any]) -> dict[str, Entry]:
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{folder / INDEX} has no weight_map from tensors to files; download it again")
    headers: dict[str, dict[str, Entry]] = {}
    for file in sorted(set(places.values())):
        path = inside(folder, file)
        if path.suffix != ".safetensors":
            raise ValueError(f"{folder / INDEX} names {plain(file)!r}, which is not safetensors; {CONVERT}")
        if not path.is_file():
            raise ValueError(f"{folder} lacks the file {plain(file)} that its index names; download it again")
        headers[file] = _header(path)
    for name, file in places.items():
        if name not in headers[file]:
            raise ValueError(f"{folder / file} lacks {plain(name)}, which the index promises; download it again")
    return {name: headers[file][name] for name, file in places.items()}


def _all_shards(folder: Path, files: Iterable[str]) -> None:
    named = [match.groups() for match in map(_SHARD.fullmatch, files) if match]
    for (stem, total), count in Counter((stem, total) for stem, _, total in named).items():
        if count != int(total):
            raise ValueError(f"{folder} has {count} of {int(total)} shards of {plain(stem)}; download the others")


def _header(path: Path) -> dict[str, Entry]:
    try:
        with path.open("rb") as file:
            claimed = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; name a model's folder or file") from None
    if size < 8 or claimed > min(HEADER_LIMIT, size - 8):
        raise ValueError(f"{path} is truncated or no safetensors file (its header is not there); download it again")

    def describe(file: Any) -> dict[str, Entry]:
        views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        return {name: Entry(path, tuple(view.get_shape()), view.get_dtype()) for name, view in views.items()}

    entries: dict[str, Entry] = _opened(path, describe)
    return entries


def _opened(path: Path, action: Any) -> Any:
    """What an action makes of an open file; every complaint becomes one sentence."""
    try:
        with safe_open(path, framework="pt") as file:
            return action(file)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:  # torch complains of a mapping as Runtime
        reason = plain(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise ValueError(f"{path} is truncated or damaged ({reason}); download it again") from None


def _refusal(path: Path) -> str:
    if path.suffix in _PICKLED:
        return f"{path} is a pickle, which can run code when it is opened, so it is not; {CONVERT}"
    return f"{path} is not a safetensors file; name a model's folder, or a file that ends in .safetensors"


def _emptiness(folder: Path) -> str:
    if (folder / _ADAPTER).is_file():
        return f"{folder} holds an adapter without its model; merge them first: merge_and_unload, then save_pretrained"
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if pickled:
        return f"{folder} has its weights only as a pickle ({plain(pickled[0])}), which is not opened; {CONVERT}"
    return f"{folder} holds no .safetensors file; {CONVERT}"
