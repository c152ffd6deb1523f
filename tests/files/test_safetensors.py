"""Single tensors of safetensors files: the right rows, little memory, and damaged files refused in a sentence."""

import json
import pickle
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from decone.files.failure import WriteError
from decone.files.safetensors import HEADER_LIMIT, INDEX, copy_range, open_weights, read_header, write_tensors
from decone.models.tables import Table, blocks, same_table


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rows_are_read_as_stored(dtype: torch.dtype) -> None:
    tensor = torch.randn(7, 3).to(dtype)
    save_file({"odd": torch.ones(5), "w": tensor}, "a.safetensors")
    table = open_weights(Path("a.safetensors")).table("w")
    assert isinstance(table, Table)
    assert (table.name, table.shape, table.dtype) == ("w", (7, 3), dtype)
    for start, stop in [(0, None), (0, 3), (2, 5), (6, 99), (3, 3), (5, 2), (7, None)]:
        assert torch.equal(table.read(start, stop), tensor[start:stop])
    assert torch.equal(table.first(4).read(), tensor[:4])
    assert torch.equal(torch.cat([block for _, block in blocks(table)]), tensor)


def sharded(folder: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    """A folder with one file per tensor and an index of them, perhaps changed."""
    folder.mkdir(exist_ok=True)
    names = {name: f"model-{place:05d}-of-{len(tensors):05d}.safetensors" for place, name in enumerate(tensors, 1)}
    for name, tensor in tensors.items():
        save_file({name: tensor}, folder / names[name])
    index = {"metadata": {}, "weight_map": {**names, **changes}}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_shards_with_and_without_an_index() -> None:
    tensors = {"a": torch.randn(3, 2), "b": torch.randn(4, 2)}
    folder = sharded(Path("model"), tensors)
    for _ in range(2):
        weights = open_weights(folder)
        assert weights.shapes == {"a": (3, 2), "b": (4, 2)}
        assert all(torch.equal(weights.table(name).read(), tensor) for name, tensor in tensors.items())
        (folder / INDEX).unlink(missing_ok=True)
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="has 1 of 2 shards of model; download the others"):
        open_weights(folder)


def test_the_same_name_in_two_files_is_refused() -> None:
    Path("model").mkdir()
    for name in ("one", "two", "consolidated"):
        save_file({"w": torch.ones(2, 2)}, f"model/{name}.safetensors")
    with pytest.raises(ValueError, match=r"holds w in two files; name one of them"):
        open_weights(Path("model"))


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("../outside.safetensors", "lies outside it"),
        ("link.safetensors", "lies outside it"),
        ("missing.safetensors", "lacks the file 'missing.safetensors'|lacks the file missing.safetensors"),
        ("pytorch_model.bin", "is not safetensors; .*save_pretrained"),
        ("model-00001-of-00001.safetensors", "lacks b, which the index promises"),
        ("sub", "is not safetensors"),
        (3, "has no weight_map"),
        ("x\x1b[2J.safetensors", "lacks the file"),
    ],
)
def test_a_hostile_index_is_refused(file: Any, reason: str) -> None:
    save_file({"b": torch.ones(2, 2)}, "outside.safetensors")
    folder = sharded(Path("model"), {"a": torch.ones(2, 2)}, b=file)
    (folder / "link.safetensors").symlink_to("../outside.safetensors")
    with pytest.raises(ValueError, match=reason) as error:
        open_weights(folder)
    assert error.value.args[0].isprintable()


def test_an_absolute_path_in_an_index_is_refused(tmp_path: Path) -> None:
    save_file({"b": torch.ones(2, 2)}, "outside.safetensors")
    folder = sharded(Path("model"), {"a": torch.ones(2, 2)}, b=str(tmp_path / "outside.safetensors"))
    with pytest.raises(ValueError, match="lies outside it"):
        open_weights(folder)


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": [1]}', "{}", '{"a":' * 100_000])
def test_a_broken_index_is_refused(content: str) -> None:
    folder = sharded(Path("model"), {"a": torch.ones(2, 2)})
    (folder / INDEX).write_text(content)
    with pytest.raises(ValueError, match="download it again") as error:
        open_weights(folder)
    assert error.value.args[0].isprintable()


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00001.safetensors"])
def test_a_link_out_of_the_folder_is_refused(name: str) -> None:
    save_file({"w": torch.ones(2, 2)}, "outside.safetensors")
    Path("model").mkdir()
    (Path("model") / name).symlink_to("../outside.safetensors")
    with pytest.raises(ValueError, match="lies outside it"):
        open_weights(Path("model"))


def headed(header: Any, data: bytes = b"", claimed: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + data


def described(shape: list[int], end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


DAMAGED = {
    "empty": b"",
    "short": b"\1\2\3",
    "pickle": pickle.dumps({"w": 1}),
    "large-file-pointer": b"version https://git-lfs.example\noid sha256:0\nsize 1\n",
    "page": b"<!DOCTYPE html><html>404</html>" * 9,
    "no-data": headed(described([2, 2], 16)),
    "less-data": headed(described([2, 2], 16), b"0" * 15),
    "more-data": headed(described([2, 2], 16), b"0" * 17),
    "huge-header": headed(described([2, 2], 16), b"0" * 16, claimed=1 << 62),
    "long-header": headed(b"{}" + b" " * (HEADER_LIMIT + 1)),
    "huge-shape": headed(described([1 << 40, 1 << 40], 16), b"0" * 16),
    "wrong-shape": headed(described([3, 2], 16), b"0" * 16),
    "negative": headed(described([-2, -2], 16), b"0" * 16),
    "unknown-type": headed(described([2, 2], 16, "X\x1b[2J"), b"0" * 16),
    "not-json": headed(b"{nonsense", b""),
    "nested": headed(b"[" * 100_000),
    "list": headed([1]),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_refused_in_a_sentence(kind: str) -> None:
    Path("model.safetensors").write_bytes(DAMAGED[kind])
    for place in (Path("model.safetensors"), Path.cwd()):
        with pytest.raises(ValueError, match=r"truncated or .*download it again") as error:
            open_weights(place)
        assert error.value.args[0].isprintable()
        assert len(error.value.args[0]) < 800


def test_a_truncated_file_is_refused_at_any_length() -> None:
    save_file({"w": torch.randn(8, 4)}, "whole.safetensors")
    content = Path("whole.safetensors").read_bytes()
    for length in range(0, len(content), 7):
        Path("cut.safetensors").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.safetensors is truncated"):
            open_weights(Path("cut.safetensors"))


def test_a_file_that_changes_afterwards_is_refused() -> None:
    save_file({"w": torch.randn(8, 4)}, "a.safetensors")
    table = open_weights(Path("a.safetensors")).table("w")
    save_file({"v": torch.randn(8, 4)}, "a.safetensors")
    with pytest.raises(ValueError, match="truncated or damaged"):
        table.read(0, 2)
    Path("a.safetensors").unlink()
    with pytest.raises(ValueError, match="truncated or damaged"):
        table.read(0, 2)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_a_quantised_table_is_refused(dtype: torch.dtype) -> None:
    save_file({"w": torch.ones(4, 4).to(dtype), "b": torch.ones(4).to(dtype)}, "a.safetensors")
    weights = open_weights(Path("a.safetensors"))
    for read in (weights.table, weights.vector):
        with pytest.raises(ValueError, match="quantised or no floating point; scan the checkpoint it was made from"):
            read("w" if read == weights.table else "b")


@pytest.mark.parametrize("shape", [(), (4,), (2, 2, 2), (0, 4), (4, 0)])
def test_only_a_matrix_is_a_table(shape: tuple[int, ...]) -> None:
    save_file({"w": torch.ones(shape)}, "a.safetensors")
    with pytest.raises(ValueError, match=r"has shape \[.*\]; a table is \[V, H\]"):
        open_weights(Path("a.safetensors")).table("w")


def test_a_bias_is_read_as_float32() -> None:
    save_file({"a": torch.ones(4).bfloat16(), "b": torch.ones(1, 4), "c": torch.ones(2, 4)}, "a.safetensors")
    weights = open_weights(Path("a.safetensors"))
    for name in ("a", "b"):
        assert weights.vector(name).tolist() == [1.0] * 4
        assert weights.vector(name).dtype == torch.float32
    with pytest.raises(ValueError, match=r"a bias is \[V\]"):
        weights.vector("c")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("unpickled"),)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_a_pickle_is_refused_and_not_opened(name: str) -> None:
    Path("model").mkdir()
    (Path("model") / name).write_bytes(pickle.dumps({"w": Bomb()}))
    for place in (Path("model"), Path("model") / name):
        with pytest.raises(ValueError, match=r"pickle.*save_pretrained\(NEW\)"):
            open_weights(place)
    assert not Path("unpickled").exists()


def test_a_folder_without_weights_is_refused() -> None:
    Path("model").mkdir()
    with pytest.raises(ValueError, match=r"holds no \.safetensors file"):
        open_weights(Path("model"))
    save_file({"w": torch.ones(2, 2)}, "model/adapter_model.safetensors")
    with pytest.raises(ValueError, match="an adapter without its model; merge them first"):
        open_weights(Path("model"))


def test_equal_tables() -> None:
    one, other = torch.randn(6, 4), torch.randn(6, 4)
    one[2, 1] = torch.nan
    changed = one.clone()
    changed[5, 3] += 1
    save_file({"a": one, "b": one.clone(), "c": changed, "d": other.half(), "e": other[:5]}, "a.safetensors")
    weights = open_weights(Path("a.safetensors"))
    assert [same_table(weights.table("a"), weights.table(name)) for name in "abcde"] == [True, True] + [False] * 3


def test_a_table_of_a_gigabyte_takes_little_memory() -> None:
    rows, width = 256_000, 2_304
    size = rows * width * 2
    header = json.dumps(described([rows, width], size, "BF16")).encode()
    header += b" " * (-len(header) % 8)
    with Path("large.safetensors").open("wb") as file:
        file.write(headed(header))
        file.truncate(8 + len(header) + size)  # sparse
    code = (
        "import resource, torch; from pathlib import Path; from decone.files.safetensors import open_weights;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "table = open_weights(Path('large.safetensors')).table('w');"
        "print(table.shape, float(table.read(255_000, 255_100).sum()), float(table.read(0, 100).sum()),"
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *found, grown = done.stdout.split()
    assert found == ["(256000,", "2304)", "0.0", "0.0"]
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown) * unit < 100e6
    assert resource.RLIM_INFINITY  # bytes


def test_bytes_lie_where_they_are_said_to() -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4, dtype=torch.int64)}
    save_file(tensors, Path("w.safetensors"), metadata={"format": "pt"})
    metadata, tensors_read = read_header(Path("w.safetensors"))
    content = Path("w.safetensors").read_bytes()
    assert metadata == {"format": "pt"}
    assert set(tensors_read) == {"a", "b"}
    for name, tensor in tensors.items():
        assert content[tensors_read[name].begin : tensors_read[name].end] == tensor.numpy().tobytes()
    assert (tensors_read["a"].shape, tensors_read["a"].dtype, tensors_read["a"].row_bytes) == ((2, 3), "F32", 12)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4000]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        [],
        "x",
    ],
)
def test_hostile_headers(entry: object) -> None:
    header = json.dumps({"a": entry}).encode()
    Path("w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match=r"damaged|truncated"):
        read_header(Path("w.safetensors"))


def test_tensors_are_written_completely_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    path, tensors = Path("a.safetensors"), {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2)}
    write_tensors(path, tensors)
    assert torch.equal(open_weights(path).table("a").read(), tensors["a"])
    content = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(ValueError, match=r"cannot write a\.safetensors: .*; free space or choose another place"):
            write_tensors(path, {"a": torch.ones(100, 100)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == content
    assert list(Path().iterdir()) == [path]


def test_a_range_of_bytes_is_copied() -> None:
    Path("a").write_bytes(bytes(range(100)))
    for step in (1, 7, 1000):
        with Path("a").open("rb") as source, Path("b").open("wb") as target:
            copy_range(source, target, 10, 90, step)
        assert Path("b").read_bytes() == bytes(range(10, 90))
    short = pytest.raises(ValueError, match="a became shorter while it was read; start again")
    with short, Path("a").open("rb") as source, Path("b").open("wb") as target:
        copy_range(source, target, 10, 101, 7)


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_full_disk_is_said_in_the_words_of_the_system(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own error is no OSError; a limit on the size of files stands for the disk."""
    write_tensors(Path("a.safetensors"), {"a": torch.ones(3)})
    before, limits = Path("a.safetensors").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"^cannot write a\.safetensors: File too large; free space or choose"):
            write_tensors(Path("a.safetensors"), {"a": torch.ones(3000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in Path().iterdir()] == ["a.safetensors"]
    assert Path("a.safetensors").read_bytes() == before
