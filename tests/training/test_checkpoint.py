"""Checkpoints: what comes back, what a failure at any moment leaves, what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decone.files import safetensors
from decone.training import checkpoint

RUN = Path("run")
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
TREES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


def some(step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    weights = {"a.weight": torch.full((3, 2), float(step)), "b": torch.arange(4)}
    return weights, {"step": step, "moments": {0: (torch.full((2,), float(step)), [1.5, None])}}


def save(step: int) -> Path:
    return checkpoint.save(RUN, step, *some(step))


def assert_is(folder: Path | None, step: int) -> None:
    assert folder is not None
    found, weights, state = checkpoint.load(folder)
    wanted, plain = some(step)
    assert found == step == state["step"]
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert weights.keys() == wanted.keys()
    assert torch.equal(state["moments"][0][0], plain["moments"][0][0])
    assert state["moments"][0][1] == [1.5, None]


@given(tree=st.dictionaries(st.text(max_size=5), TREES, max_size=4))
def test_nested_values_come_back_with_their_types(tree: dict[str, Any]) -> None:
    folder = checkpoint.save(RUN, 1, {}, tree)
    assert repr(checkpoint.load(folder)[2]) == repr(tree)


def test_tensors_of_every_kind_come_back_bit_for_bit() -> None:
    table = torch.randn(4, 3)
    state = {
        "float": torch.tensor([float("nan"), float("-inf"), -0.0, 1e-45]),
        "double": torch.randn(2, dtype=torch.float64),
        "low": torch.randn(3).to(torch.bfloat16),
        "bytes": torch.get_rng_state(),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 5),
        "view": table.T,
        "shared": [table, table[:2]],
        "nan": float("nan"),
    }
    found = checkpoint.load(checkpoint.save(RUN, 1, {"table": table}, state))
    assert torch.equal(found[1]["table"], table)
    for name in ("float", "double", "low", "bytes", "scalar", "empty", "view"):
        wanted, back = state[name].contiguous(), found[2][name]
        assert back.dtype == wanted.dtype, name
        assert back.shape == wanted.shape, name
        assert torch.equal(back.flatten().view(torch.uint8), wanted.flatten().view(torch.uint8)), name
    assert torch.equal(found[2]["shared"][1], table[:2])
    assert found[2]["nan"] != found[2]["nan"]


def test_what_cannot_be_held_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"state\.a\.1 is a set, which a checkpoint cannot hold"):
        checkpoint.save(RUN, 1, {}, {"a": [1, {2}]})


def test_only_the_newest_is_kept() -> None:
    for step in (5, 10, 100_000_000):
        assert save(step) == checkpoint.latest(RUN)
    assert [path.name for path in (RUN / "checkpoints").iterdir()] == ["step-100000000"]
    assert_is(checkpoint.latest(RUN), 100_000_000)


def test_there_may_be_none() -> None:
    assert checkpoint.latest(RUN) is None
    (RUN / "checkpoints").mkdir(parents=True)
    assert checkpoint.latest(RUN) is None


class Killed(BaseException):
    """What nothing in the program catches, like SIGKILL."""


# Every call by which a save touches the disk, in the order of a save.
CALLS = ["mkdir", "save_file", "write_text", "fsync", "rename", "rmtree"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("name", CALLS)
def test_a_kill_at_any_call_leaves_a_whole_checkpoint(
    name: str, number: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(5)
    calls = 0

    dead = False  # a dead process touches nothing, its own clearing away included

    def killing(call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def killed(*args: Any, **options: Any) -> Any:
            nonlocal calls, dead
            calls += call == name
            last = call == name and calls - 1 == number
            if dead or (last and not after):
                dead = True
                raise Killed
            result = real(*args, **options)
            if last:
                dead = True
                raise Killed
            return result

        return killed

    with monkeypatch.context() as patch:
        for call in CALLS:
            owner: Any = {"save_file": safetensors, "fsync": os, "rmtree": shutil}.get(call, Path)
            patch.setattr(owner, call, killing(call, getattr(owner, call)))
        try:
            save(10)
        except Killed:
            reached = True
        else:
            reached = False
    assert reached is (calls > number)
    folder = checkpoint.latest(RUN)
    assert folder is not None
    assert_is(folder, 10 if folder.name == "step-00000010" else 5)
    if not reached:
        assert folder.name == "step-00000010"
    save(15)  # what a kill left is cleared away
    assert [path.name for path in (RUN / "checkpoints").iterdir()] == ["step-00000015"]
    assert_is(checkpoint.latest(RUN), 15)


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json"])
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.99])
def test_a_damaged_file_is_refused(name: str, share: float | None) -> None:
    path = save(5) / name
    if share is None:
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"the checkpoint .*step-00000005 is damaged or foreign") as error:
        checkpoint.load(path.parent)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "null",
        "{}",
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "step": 5, "state": {"tensor": "nowhere"}}',
        '{"format": 1, "step": 5, "state": {"tensor": ["unhashable"]}}',
        '{"format": 1, "step": 5, "state": {"dict": 3}}',
        '{"format": 1, "step": 5, "state": {"list": null}}',
        '{"format": 1, "step": 5, "state": {}}',
        '{"format": 1, "step": null, "state": null}',
        '{"epoch": 3, "optimizer": "adam"}',
    ],
)
def test_a_foreign_state_is_refused(content: str) -> None:
    folder = save(5)
    (folder / "state.json").write_text(content)
    with pytest.raises(ValueError, match="damaged or foreign"):
        checkpoint.load(folder)


def test_nothing_is_ever_pickled() -> None:
    folder = save(5)
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    assert json.loads((folder / "state.json").read_text())["format"] == 1


def test_weights_are_read_or_refused() -> None:
    path = Path("model.safetensors")
    safetensors.write_tensors(path, {"a": torch.ones(2)})
    assert torch.equal(checkpoint.load_weights(path)["a"], torch.ones(2))
    path.write_bytes(path.read_bytes()[:20])
    for damaged in (path, Path("nowhere.safetensors")):
        with pytest.raises(ValueError, match=f"cannot read {damaged}"):
            checkpoint.load_weights(damaged)
