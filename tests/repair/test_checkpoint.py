"""New checkpoints: one file changes, undo restores every byte, and whatever goes wrong leaves nothing."""

import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.repair.checkpoints import INPUT, OUTPUT, V, cone, contents, llama

from decone.files import folder as folders
from decone.models.find_tables import find_tables
from decone.models.tables import MemoryTable
from decone.repair import checkpoint
from decone.repair.checkpoint import apply_delta, undo_delta
from decone.repair.delta import RowDelta, TableChoice, read_delta, repair_targets, write_delta
from decone.repair.directions import remove_directions

DELTA = Path("d.safetensors")
SHARD = "model-00001-of-00002.safetensors"


def make(folder: Path, which: TableChoice = "input", ids: torch.Tensor | None = None) -> Path:
    model_tables = find_tables(str(folder))
    ids = torch.arange(model_tables.embedding.shape[0]) if ids is None else ids
    write_delta(
        DELTA,
        model_tables,
        "directions",
        {},
        [remove_directions(t, ids, 2)[0] for t in repair_targets(model_tables, which)],
    )
    return DELTA


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_only_the_shard_with_the_table_changes_and_undo_restores_it(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "STEP", 7 * 16)  # many blocks
    folder = llama(Path("m"), table=cone(dtype=dtype))
    before = contents(folder)
    delta = make(folder, ids=torch.tensor([0, 1, 50, V - 1]))
    result = apply_delta("m", delta, Path("n"))
    assert result.rewritten == [SHARD]
    assert not result.linked
    assert not result.notes
    assert set(result.copied) == set(before) - {SHARD}
    assert {name for name, digest in contents(Path("n")).items() if digest != before[name]} == {SHARD}
    old, new = load_file(folder / SHARD), load_file(Path("n") / SHARD)
    assert [name for name in old if not torch.equal(old[name], new[name])] == [INPUT]
    moved = (old[INPUT] != new[INPUT]).any(1).nonzero().squeeze(1).tolist()
    assert moved == [0, 1, 50, V - 1]
    assert torch.equal(new[INPUT][[0, 1, 50, V - 1]], load_file(delta)["0.new"])
    undo_delta("n", delta, Path("back"))
    assert contents(Path("back")) == before == contents(folder)
    assert not [path for path in Path().iterdir() if path.name.startswith(".") and path.name != ".cache"]


def test_linked_files_share_their_bytes() -> None:
    folder = llama(Path("m"), sharded=False)
    result = apply_delta("m", make(folder), Path("n"), link=True)
    assert result.rewritten == ["model.safetensors"]
    assert "config.json" in result.linked
    assert not result.copied
    assert os.path.samefile("m/config.json", "n/config.json")
    assert not os.path.samefile("m/model.safetensors", "n/model.safetensors")


def test_both_tables_and_ties() -> None:
    folder = llama(Path("m"), head=cone(seed=3))
    before = contents(folder)
    delta = make(folder, "both")
    result = apply_delta("m", delta, Path("n"))
    assert len(result.rewritten) == 2
    undo_delta("n", delta, Path("back"))
    assert contents(Path("back")) == before


def test_tied_tables_stored_twice_stay_equal() -> None:
    folder = llama(Path("m"), head=cone(), tied=True)
    apply_delta("m", make(folder, "both"), Path("n"))
    one, two = (load_file(path) for path in sorted(Path("n").glob("*.safetensors")))
    assert torch.equal(one[INPUT], two[OUTPUT])
    assert not torch.equal(one[INPUT], cone())
    assert find_tables("n").tied


def test_a_bare_file() -> None:
    folder = llama(Path("m"), sharded=False)
    (folder / "model.safetensors").rename("bare.safetensors")
    before = Path("bare.safetensors").read_bytes()
    delta = make(Path("bare.safetensors"))
    assert apply_delta("bare.safetensors", delta, Path("n")).rewritten == ["bare.safetensors"]
    undo_delta("n/bare.safetensors", delta, Path("back"))
    assert Path("back/bare.safetensors").read_bytes() == before


def refused(said: str, model: str, delta: Path = DELTA, out: str = "n", backwards: bool = False) -> None:
    before = contents(Path())
    folders = {path for path in Path().rglob("*") if path.is_dir()}
    with pytest.raises(ValueError, match=said) as raised:
        apply_delta(model, delta, Path(out), backwards=backwards)
    assert "\n" not in str(raised.value)
    assert contents(Path()) == before
    assert {path for path in Path().rglob("*") if path.is_dir()} == folders


def test_a_delta_for_another_model() -> None:
    folder = llama(Path("m"))
    make(folder)
    llama(Path("other"), table=cone(seed=9))
    refused("for another model, m: the SHA-256", "other")
    llama(Path("larger"), table=cone(V + 1))
    refused("for another model, m: larger has no model.embed_tokens.weight", "larger")
    refused("not as d.safetensors left it", "other", backwards=True)
    refused("is the original already", "m", backwards=True)
    apply_delta("m", DELTA, Path("fixed"))
    refused("is applied to fixed already", "fixed")


def test_targets_that_are_taken_or_inside() -> None:
    make(llama(Path("m")))
    Path("taken").mkdir()
    Path("file").write_text("")
    refused("exists", "m", out="taken")
    refused("exists", "m", out="file")
    refused("own folder", "m", out="m")
    refused("own folder", "m", out="m/new")
    refused("own folder", "m", out="m/extra/../new")
    Path("link").symlink_to("m", target_is_directory=True)
    refused("own folder", "m", out="link/new")


def test_damaged_deltas() -> None:
    make(llama(Path("m")))
    whole = DELTA.read_bytes()
    DELTA.write_bytes(whole[:-20])
    refused("truncated", "m")
    DELTA.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit of a new row
    refused("do not make the table", "m")


@pytest.mark.parametrize("made_above", [False, True])
def test_a_full_disk(made_above: bool) -> None:
    """A limit on file sizes is what a full disk looks like, from the system itself."""
    make(llama(Path("m")))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        refused("cannot write .*free space", "m", out="above/n" if made_above else "n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_interrupt_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    make(llama(Path("m")))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders.shutil, "copyfile", stop)
    before = contents(Path())
    with pytest.raises(KeyboardInterrupt):
        apply_delta("m", DELTA, Path("n"))
    assert contents(Path()) == before
    assert not Path("n").exists()


def test_links_out_of_the_folder_are_not_followed() -> None:
    folder = llama(Path("m"))
    make(folder)
    Path("secret").write_text("x")
    (folder / "linked.txt").symlink_to("../secret")
    refused("lies outside", "m")
    (folder / "linked.txt").unlink()
    Path("elsewhere").mkdir()
    (folder / "linked").symlink_to("../elsewhere", target_is_directory=True)
    refused("link to a folder", "m")
    (folder / "linked").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ValueError, match="no ordinary file"):
        apply_delta("m", DELTA, Path("n"))
    assert not Path("n").exists()


def test_a_hub_cache_of_links() -> None:
    """A snapshot is a folder of links into the blobs of its repository."""
    snapshot = Path("models--a--b/snapshots/abc")
    llama(snapshot)
    blobs = Path("models--a--b/blobs")
    blobs.mkdir()
    for name in contents(snapshot):
        path = snapshot / name
        target = blobs / name.replace("/", "-")
        path.rename(target)
        path.symlink_to(os.path.relpath(target, path.parent))
    before = contents(snapshot)
    delta = make(snapshot)
    for link, out in ((False, "n"), (True, "o")):
        apply_delta(str(snapshot), delta, Path(out), link=link)
        assert {name for name, digest in contents(Path(out)).items() if digest != before[name]} == {SHARD}
        assert not any(path.is_symlink() for path in Path(out).rglob("*"))
    assert contents(snapshot) == before


def test_other_weights_are_told_of() -> None:
    folder = llama(Path("m"))
    (folder / "pytorch_model.bin").write_bytes(b"old")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    result = apply_delta("m", make(folder), Path("n"))
    assert result.notes == [
        "taken over as they are, with the old table if they hold it: pytorch_model.bin",
        "left out: .git",
    ]
    assert not Path("n/.git").exists()
    assert Path("n/pytorch_model.bin").exists()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tensors of a shard are copied a piece at a time, the table too."""
    folder = llama(Path("m"), table=cone(4000), sharded=False)
    delta = make(folder)
    monkeypatch.setattr(checkpoint, "STEP", 1000)
    largest = 0
    original = checkpoint.patch_table

    def watched(*arguments: object) -> object:
        nonlocal largest
        for piece in original(*arguments):
            largest = max(largest, len(piece))
            yield piece

    monkeypatch.setattr(checkpoint, "patch_table", watched)
    apply_delta("m", delta, Path("n"))
    assert 0 < largest <= 1000
    assert torch.equal(load_file("n/model.safetensors")[INPUT], load_file(delta)["0.new"])


def test_several_repairs_in_a_row() -> None:
    folder = llama(Path("m"))
    apply_delta("m", make(folder), Path("n"))
    (target,) = repair_targets(find_tables("n"))
    write_delta(
        Path("e.safetensors"),
        find_tables("n"),
        "x",
        {},
        [RowDelta(target, torch.tensor([4]), MemoryTable("w", cone(1)))],
    )
    apply_delta("n", Path("e.safetensors"), Path("o"))
    assert read_delta(Path("e.safetensors")).facts.tables[0].before == read_delta(DELTA).facts.tables[0].after
    undo_delta("o", Path("e.safetensors"), Path("p"))
    undo_delta("p", DELTA, Path("q"))
    assert contents(Path("q")) == contents(folder)
