"""Counters: each target of an optimiser step once, whatever calls the objective; and what is saved of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint as distributed_checkpoint
from torch.distributed.checkpoint import FileSystemReader
from torch.utils.checkpoint import checkpoint

from decone import objectives
from decone.objectives import Compose, Objective, Threshold
from decone.objectives.agg import AGG
from decone.objectives.freeze import Freeze
from decone.optim import RowAdamW

V = 9
TARGET = torch.tensor([1, 1, 2, 5])
COUNTERS: dict[str, Callable[[], Any]] = {
    "agg": lambda: AGG(alpha=0.5, window=3),
    "frozen agg": lambda: AGG(alpha=0.5, window=3, static_after=2, static_counts=False),
    "freeze": lambda: Freeze(share=0.4, collect=3),
    "composed": lambda: Compose(Threshold(1.0), AGG(alpha=0.5, window=3)),
}


@pytest.fixture(params=COUNTERS)
def objective(request: pytest.FixtureRequest) -> Any:
    made = COUNTERS[request.param]()
    made.prepare(V)
    return made


def counted(objective: Any) -> tuple[int, list[int]]:
    """Steps seen, and the occurrences of each token."""
    counter = objective.members[1] if isinstance(objective, Compose) else objective
    recent = counter.recent if isinstance(counter, AGG) else counter.counted
    return counter.steps, recent.total.tolist()


def times(steps: int, target: Tensor = TARGET) -> tuple[int, list[int]]:
    return steps, (steps * torch.bincount(target, minlength=V)).tolist()


def call(objective: Objective, target: Tensor = TARGET) -> Tensor:
    hidden = torch.ones(len(target), 2, requires_grad=True)
    return objective(hidden, torch.ones(V, 2, requires_grad=True), target).mean()


@pytest.mark.parametrize("recording", [torch.no_grad, torch.inference_mode])
def test_a_call_without_gradients_counts_nothing(recording: Callable[[], Any], objective: Any) -> None:
    call(objective)
    with recording():
        call(objective)
        with objective.step(TARGET):
            call(objective)
    assert counted(objective) == times(1)


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_micro_batches_of_a_step_count_each_target_once(micro_batches: int, objective: Any) -> None:
    with objective.step(TARGET):
        for part in TARGET.chunk(micro_batches):
            call(objective, part).backward()  # type: ignore[no-untyped-call]
    assert counted(objective) == times(1)


def test_a_step_inside_a_step_is_the_same_step(objective: Any) -> None:
    with objective.step(TARGET):
        with objective.step(TARGET[:2]):
            call(objective)
        call(objective)
    assert counted(objective) == times(1)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_counts_a_call_once(reentrant: bool, objective: Any) -> None:
    for _ in range(2):
        hidden, weight = torch.ones(4, 2, requires_grad=True), torch.ones(V, 2, requires_grad=True)
        first = checkpoint(lambda h, w: objective(h, w, TARGET).mean(), hidden, weight, use_reentrant=reentrant)
        first.backward()
    assert counted(objective) == times(2)


@pytest.mark.parametrize("reentrant", [True, False])
def test_evaluations_between_checkpointed_calls_count_nothing(reentrant: bool, objective: Any) -> None:
    for _ in range(2):
        hidden, weight = torch.ones(4, 2, requires_grad=True), torch.ones(V, 2, requires_grad=True)
        loss = checkpoint(lambda h, w: objective(h, w, TARGET).mean(), hidden, weight, use_reentrant=reentrant)
        loss.backward()
        with torch.no_grad():
            call(objective)
            call(objective)
    assert counted(objective) == times(2)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_backward_pass_behind_the_step_counts_nothing_more(reentrant: bool, objective: Any) -> None:
    hidden, weight = torch.ones(4, 2, requires_grad=True), torch.ones(V, 2, requires_grad=True)
    with objective.step(TARGET):
        loss = checkpoint(lambda h, w: objective(h, w, TARGET).mean(), hidden, weight, use_reentrant=reentrant)
    loss.backward()
    assert counted(objective) == times(1)


def test_evaluation_asks_no_other_process(objective: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    call(objective)

    def waiting(*_: Any, **__: Any) -> None:
        raise AssertionError("an all_reduce would wait for the other processes")

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "all_reduce", waiting)
    with torch.no_grad():
        call(objective)
    objective.eval()
    call(objective)
    with objective.step(TARGET):
        call(objective)
    monkeypatch.undo()
    assert counted(objective) == times(1)


@pytest.mark.parametrize("name", objectives.names())
def test_the_state_of_every_objective_is_tensors(name: str) -> None:
    objective = objectives.get(name)
    call(objective)
    assert [type(value) for value in objective.state_dict().values()] in ([], [Tensor], [Tensor] * 2)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_safetensors_takes_the_state(steps: int, objective: Any, request: pytest.FixtureRequest) -> None:
    for step in range(steps):
        call(objective, TARGET + step % 3)
    save_file(objective.state_dict(), "state.safetensors")
    fresh = COUNTERS[request.node.callspec.params["objective"]]()
    fresh.load_state_dict(load_file("state.safetensors"))
    assert counted(fresh) == counted(objective)
    call(fresh)
    call(objective)
    assert counted(fresh) == counted(objective)  # the step that leaves the window was saved too


def test_save_pretrained_takes_a_model_with_an_objective(objective: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=V, n_embd=4, n_layer=1, n_head=1, n_positions=8)
    model = transformers.GPT2LMHeadModel(config)
    call(objective)
    model.objective = objective
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    names = [f"objective.{name}" for name in objective.state_dict()]
    assert all(torch.equal(saved[name], model.state_dict()[name]) for name in names)


@pytest.mark.filterwarnings("ignore")  # torch's, of a checkpoint by one process
def test_a_distributed_checkpoint_takes_the_state(objective: Any, request: pytest.FixtureRequest) -> None:
    for step in range(5):
        call(objective, TARGET + step % 3)
    distributed_checkpoint.save(objective.state_dict(), checkpoint_id="saved")
    entries = FileSystemReader("saved").read_metadata().state_dict_metadata
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()}  # type: ignore[union-attr]
    distributed_checkpoint.load(state, checkpoint_id="saved")
    fresh = COUNTERS[request.node.callspec.params["objective"]]()
    fresh.load_state_dict(state)
    assert counted(fresh) == counted(objective)


def test_states_of_dicts_are_still_read() -> None:
    total, ids, counts = torch.tensor([2, 0, 1, 0]), torch.tensor([0, 0, 2]), torch.tensor([1, 1, 1])
    recent = {"total": total, "lengths": [1, 2], "ids": ids, "counts": counts}
    agg, freeze = AGG(window=2), Freeze(collect=5)
    agg.load_state_dict(
        {"_extra_state": {"steps": 7, "frozen": torch.tensor([True, False] * 2)}, "recent._extra_state": recent}
    )
    freeze.load_state_dict({"_extra_state": {"steps": 3}, "counted._extra_state": recent})
    assert (counted(agg), agg.rare().tolist()) == ((7, [2, 0, 1, 0]), [True, False, True, False])
    assert counted(freeze) == (3, [2, 0, 1, 0])
    agg.observe(torch.tensor([3]))
    assert counted(agg) == (8, [1, 0, 1, 1])  # the older of two steps has left


def test_a_dict_of_nothing_counted_is_still_read() -> None:
    empty = {"total": None, "lengths": [], "ids": None, "counts": None}
    agg = AGG()
    agg.load_state_dict({"_extra_state": {"steps": 0, "frozen": None}, "recent._extra_state": empty})
    assert agg.recent.total is None


def test_the_state_of_row_adamw_is_tensors() -> None:
    model = nn.Linear(2, V)
    optimizer = RowAdamW(model.parameters(), rows=[model.weight])
    model(torch.ones(1, 2))[0, 3].backward()
    optimizer.step()
    values = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    assert [type(value) for value in values] == [Tensor] * 6
