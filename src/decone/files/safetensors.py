"""Safetensors files, one or many: tensors are described by their headers and read when they are needed.

A scan needs two tensors, not the model; a repair replaces the bytes of one and copies the others unread.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from decone.files.atomic import atomic_file
from decone.files.folder import inside, read_object
from decone.files.foreign import plain, quoted

INDEX = "model.safetensors.index.json"
HEADER_LIMIT = 32 << 20  # bytes; a header of 100,000 tensors takes about 12 MB
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NUMBER_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}  # of what a delta or a table may hold
CONVERT = (
    "load it where you trust it and save it again as safetensors: "
    "transformers' AutoModel.from_pretrained(OLD).save_pretrained(NEW)"
)
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_WEIGHTS = (*_PICKLED[:-1], ".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".ot", ".tflite", ".safetensors")
_ADAPTER = "adapter_model.safetensors"
_NOT_WEIGHTS = ("consolidated", "adapter_", "optimizer", "scheduler", "random_states", "best-")
_SHARD = re.compile(r"(.+)-(\d{5,6})-of-(\d{5,6})\.safetensors")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as the header of its file describes it.

    Attributes:
        file: that holds it.
        shape: as the header has it.
        dtype: in the words of the header, "F32" and the like.
        begin: position of its first byte in the file.
        end: position behind its last byte.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str
    begin: int
    end: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of a table."""
        return NUMBER_BYTES[self.dtype] * self.shape[1]

    def column(self) -> Self:
        """The same bytes as a table of width 1, where it is a vector or a matrix of one row."""
        is_vector = len(self.shape) == 1 or (len(self.shape) == 2 and self.shape[0] == 1)
        return replace(self, shape=(self.shape[-1], 1)) if is_vector else self


@dataclass(frozen=True)
class FileTable:
    """A matrix in a safetensors file; no more of it is in memory than the rows that are being read."""

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
        rows: Tensor = _with_open(self.file, lambda file: file.get_slice(self.name)[start : max(start, stop)])
        return rows

    def first(self, rows: int) -> Self:
        """The same table without the rows from `rows` on."""
        return replace(self, shape=(min(rows, self.shape[0]), self.shape[1]))


class Weights:
    """The tensors of a checkpoint by name, described but not read.

    Args:
        path: as the user called it.
        tensors: every one by name.
    """

    def __init__(self, path: Path, tensors: dict[str, StoredTensor]) -> None:
        self.path, self.tensors = path, tensors

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def table(self, name: str) -> FileTable:
        """One matrix, still unread.

        Raises:
            ValueError: it is no matrix, or empty, or its numbers are not floating point.
        """
        tensor = self.tensors[name]
        if len(tensor.shape) != 2 or 0 in tensor.shape:
            raise ValueError(f"{plain(name)} of {self.path} has shape {list(tensor.shape)}; a table is [V, H]")
        return FileTable(tensor.file, name, (tensor.shape[0], tensor.shape[1]), self._dtype(name))

    def vector(self, name: str) -> Float[Tensor, " V"]:
        """One vector, read completely, float32; arguments and errors as of `column`."""
        return self.column(name)[:, 0].float()

    def column(self, name: str) -> Float[Tensor, "V 1"]:
        """One vector as a matrix of width 1, read completely, as stored; a matrix of one row counts as a vector.

        Raises:
            ValueError: it is no vector, or its numbers are not floating point, or the file has changed.
        """
        tensor = self.tensors[name]
        if not (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[0] == 1)):
            raise ValueError(f"{plain(name)} of {self.path} has shape {list(tensor.shape)}; a bias is [V]")
        self._dtype(name)
        numbers: Tensor = _with_open(tensor.file, lambda file: file.get_tensor(name))
        return numbers.reshape(-1, 1)

    def unread(self, files: Mapping[str, Path]) -> list[str]:
        """Names of those files that hold weights but none of these tensors."""
        read = {tensor.file for tensor in self.tensors.values()}
        return [name for name, path in files.items() if path.suffix in _WEIGHTS and path not in read]

    def _dtype(self, name: str) -> torch.dtype:
        stored = self.tensors[name].dtype
        if stored not in DTYPES:
            raise ValueError(
                f"{plain(name)} of {self.path} is stored as {plain(stored)}, which is quantised or no floating point; "
                "scan the checkpoint it was made from"
            )
        return DTYPES[stored]


def open_weights(path: Path) -> Weights:
    """Looks into the safetensors files of a model, reading their headers only.

    Args:
        path: a .safetensors file, or a folder with one or with shards and perhaps their index.

    Returns:
        Every tensor of the files.

    Raises:
        ValueError: there are only pickles, or a file is missing, truncated, damaged, or outside the folder.
    """
    if path.is_dir():
        return Weights(path, _of_folder(path))
    if path.suffix != ".safetensors":
        raise ValueError(_refusal(path))
    return Weights(path, read_header(path)[1])


def read_header(path: Path) -> tuple[dict[str, str], dict[str, StoredTensor]]:
    """Reads the header of a safetensors file.

    Returns:
        Its metadata, and every tensor by name.

    Raises:
        ValueError: the file is missing, truncated or damaged; the library of the format has the first word on that.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; name a model's folder or file") from None
    if size < 8 or length > min(HEADER_LIMIT, size - 8):
        raise ValueError(f"{path} is truncated or no safetensors file (its header is not there); download it again")
    names = _with_open(path, lambda file: list(file.keys()))
    try:
        with path.open("rb") as file:
            header: dict[str, Any] = json.loads(file.read(8 + length)[8:])
        metadata = header.pop("__metadata__", None) or {}
        tensors = {name: _stored(path, header[name], 8 + length) for name in names}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({plain(error)}); download it again") from None
    for name, tensor in tensors.items():
        if not 8 + length <= tensor.begin <= tensor.end <= size:
            raise ValueError(f"{path} is damaged ({plain(name)} lies outside it); download it again")
    return {str(key): str(value) for key, value in metadata.items()}, tensors


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file at once, into a folder that is itself not complete yet.

    Raises:
        OSError: the disk is full or the file cannot be written.
    """
    try:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))  # the system's own words are clearer than the library's
        raise (OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))) from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file atomically.

    Raises:
        WriteError: as `atomic_file`.
    """
    with atomic_file(path) as beside:
        save_tensors(beside, tensors)


def copy_range(source: BinaryIO, target: BinaryIO, begin: int, end: int, step: int = 1 << 24) -> None:
    """Copies the bytes from `begin` to `end` of a file, `step` at a time.

    Raises:
        ValueError: the file ends before.
    """
    source.seek(begin)
    while begin < end:
        content = source.read(min(step, end - begin))
        if not content:
            raise ValueError(f"{plain(source.name)} became shorter while it was read; start again")
        target.write(content)
        begin += len(content)


def _of_folder(folder: Path) -> dict[str, StoredTensor]:
    if inside(folder, "model.safetensors").is_file():
        return read_header(folder / "model.safetensors")[1]
    index = read_object(folder, INDEX)
    if index is not None:
        return _of_index(folder, index)
    files = sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith(_NOT_WEIGHTS))
    if not files:
        raise ValueError(_emptiness(folder))
    _require_all_shards(folder, files)
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        more = read_header(inside(folder, file))[1]
        if doubled := tensors.keys() & more.keys():
            raise ValueError(f"{folder} holds {plain(min(doubled))} in two files; name one of them, e.g. {plain(file)}")
        tensors |= more
    return tensors


def _of_index(folder: Path, index: dict[str, Any]) -> dict[str, StoredTensor]:
    files = index.get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"{folder / INDEX} has no weight_map from tensors to files; download it again")
    headers: dict[str, dict[str, StoredTensor]] = {}
    for file in sorted(set(files.values())):
        path = inside(folder, file)
        if path.suffix != ".safetensors":
            raise ValueError(f"{folder / INDEX} names {quoted(file)}, which is not safetensors; {CONVERT}")
        if not path.is_file():
            raise ValueError(f"{folder} lacks the file {plain(file)} that its index names; download it again")
        headers[file] = read_header(path)[1]
    for name, file in files.items():
        if name not in headers[file]:
            raise ValueError(f"{folder / file} lacks {plain(name)}, which the index promises; download it again")
    return {name: headers[file][name] for name, file in files.items()}


def _require_all_shards(folder: Path, files: Iterable[str]) -> None:
    shards = [match.groups() for match in map(_SHARD.fullmatch, files) if match]
    for (stem, total), count in Counter((stem, total) for stem, _, total in shards).items():
        if count != int(total):
            raise ValueError(f"{folder} has {count} of {int(total)} shards of {plain(stem)}; download the others")


def _stored(path: Path, fields: dict[str, Any], start: int) -> StoredTensor:
    begin, end = fields["data_offsets"]
    shape = tuple(map(int, fields["shape"]))
    return StoredTensor(path, shape, str(fields["dtype"]), start + int(begin), start + int(end))


def _with_open(path: Path, action: Callable[[Any], _Result]) -> _Result:
    """Result of an action on an open file; every complaint becomes one sentence."""
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
