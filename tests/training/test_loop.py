"""The loop: its schedule, its gradients, what it keeps, what it delivers, what it refuses."""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from decone.data.tokens import TRAINING, random_batch
from decone.files.failure import WriteError
from decone.training import checkpoint, loop
from decone.training.config import RunConfig
from decone.training.loop import Trainer, learning_rate
from decone.training.run import Run, RunLog

Build = Callable[..., RunConfig]


def trainer(config: RunConfig, name: str = "run") -> Trainer:
    return Trainer(config, Run.create(Path(name), config))


@pytest.mark.parametrize(
    ("steps", "warmup", "step", "wanted"),
    [
        (8000, 100, 0, 1e-5),
        (8000, 100, 49, 5e-4),
        (8000, 100, 99, 1e-3),
        (8000, 100, 100, 1e-3),
        (8000, 100, 100 + 7900 // 2, 5.5e-4),
        (8000, 100, 8000, 1e-4),
        (160, 2, 0, 5e-4),
        (160, 2, 1, 1e-3),
        (10, 0, 0, 1e-3),
        (1, 0, 0, 1e-3),
        (1, 1, 0, 1e-3),
        (5, 100, 4, 5e-5),
        (100, 100, 99, 1e-3),
    ],
)
def test_the_learning_rate_at_its_corners(steps: int, warmup: int, step: int, wanted: float) -> None:
    config = RunConfig.build({"steps": steps, "optimizer": {"lr": 1e-3, "lr_min": 1e-4, "warmup": warmup}})
    assert learning_rate(config, step) == pytest.approx(wanted, rel=1e-12)


def test_the_learning_rate_rises_and_falls() -> None:
    config = RunConfig()
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert rates[:100] == sorted(rates[:100])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert min(rates[100:]) > 1e-4
    assert max(rates) == 1e-3


def gradients(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """What the optimiser is given in the first step, before clipping."""
    made = trainer(config, f"run-{config.identity()}")
    found: dict[str, torch.Tensor] = {}

    def look() -> None:
        found.update({name: parameter.grad.clone() for name, parameter in made.plain.model.named_parameters()})

    monkeypatch.setattr(made.stepper, "step", look)
    made._one_step(logging=False)
    return found


@pytest.mark.parametrize("method", ["mle", "threshold:margin=0.05"])
def test_accumulation_changes_nothing_but_rounding(method: str, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"method": method, "optimizer__clip": 0}
    whole = gradients(build(batch__size=12, **settings), monkeypatch)
    for size, accumulate in ((6, 2), (4, 3), (1, 12)):
        parts = gradients(build(batch__size=size, batch__accumulate=accumulate, **settings), monkeypatch)
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_is_that_of_the_mean_cross_entropy(
    tied: bool, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build(batch__size=5, batch__accumulate=2, optimizer__clip=0, model__tied=tied)
    found = gradients(config, monkeypatch)
    made = trainer(config, "again")
    model = made.plain.model
    batch = random_batch(made.train_ids, 16, 10, made.languages, (1337, TRAINING, 0))
    logits = F.linear(model(batch[:, :-1]), model.head)
    F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_gradients_are_clipped_by_their_global_norm(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gradients(build(optimizer__clip=0), monkeypatch)
    clipped = gradients(build(optimizer__clip=0.01), monkeypatch)
    norm = torch.stack([gradient.norm() for gradient in whole.values()]).norm()
    assert norm > 0.01
    for name, gradient in whole.items():
        torch.testing.assert_close(clipped[name], gradient * (0.01 / norm), rtol=1e-4, atol=1e-9)


def test_one_step_of_training_against_torch(build: Build) -> None:
    """Batches, loss, clipping, groups and schedule together, for ten steps."""
    config = build(steps=10, evaluation__select="last")
    made = trainer(config)
    twin = trainer(config, "twin").plain.model
    matrices = [p for p in twin.parameters() if p.dim() > 1]
    gains = [p for p in twin.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}], betas=(0.9, 0.99)
    )
    for step in range(10):
        rate = 0.01 * (step + 1) / 5 if step < 5 else 0.001 + 0.0045 * (1 + math.cos(math.pi * (step - 5) / 5))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = random_batch(made.train_ids, 16, 6, made.languages, (1337, TRAINING, step))
        optimizer.zero_grad()
        logits = F.linear(twin(batch[:, :-1]), twin.head)
        F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
    made.train()
    for name, weight in load_file("run/model.safetensors").items():
        torch.testing.assert_close(weight, twin.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_the_log_tells_losses_that_were_met(build: Build) -> None:
    result = trainer(build(steps=100, evaluation__every=30)).train()
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("validation", 30),
        ("train", 50),
        ("validation", 60),
        ("validation", 90),
        ("train", 100),
        ("validation", 100),
    ]
    for line in (line for line in lines if line["kind"] == "train"):
        assert line["loss"] == pytest.approx(line["nll"])
        assert line["matrix"] == 0
        assert 1 < line["loss"] < math.log(60)
        assert line["norm"] > 0
        assert line["lr"] == pytest.approx(learning_rate(build(steps=100), line["step"] - 1))
    validations = [line for line in lines if line["kind"] == "validation"]
    assert validations[-1]["loss"] < validations[0]["loss"] - 0.1, "it learns"
    assert result["history"] == validations


@pytest.mark.parametrize("select", ["best", "last"])
def test_the_delivered_model_is_the_selected_one(select: str, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[int, dict[str, torch.Tensor]] = {}
    losses = {10: 3.0, 20: 2.0, 30: 2.0, 40: 2.5}  # of equal losses the earlier stays

    def validation_loss(model: Any, *others: Any) -> float:
        step = others[-1][1]
        kept[step] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return losses[step]

    monkeypatch.setattr(loop, "validation_loss", validation_loss)
    made = trainer(build(evaluation__select=select))
    result = made.train()
    wanted = kept[20] if select == "best" else kept[40]
    found = load_file("run/model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    assert result["select"] == select
    assert {name: measured["step"] for name, measured in result["measured"].items()} == {"last": 40, "best": 20}
    for step, chosen in ((20, "best"), (40, "last")):
        made.plain.model.load_state_dict(kept[step])
        again = {"step": step, **made._measure()}
        assert again == result["measured"][chosen]
    content = Run.open(Path("run")).result()
    assert content is not None
    assert content.to_dict() == result
    assert [path.name for path in Path("run").glob("best-*")] == ["best-00000020.safetensors"]


def test_a_best_last_step_is_measured_once(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "validation_loss", lambda model, *others: 1 / others[-1][1])
    result = trainer(build(steps=10, evaluation__every=5)).train()
    assert result["measured"]["best"] == result["measured"]["last"]


def test_a_result_says_where_it_comes_from(build: Build, text: Path) -> None:
    config = build(steps=2, seed=7)
    result = trainer(config).train()
    assert result["config"] == config.model_dump()
    assert result["identity"] == config.identity()
    assert (result["method"], result["seed"]) == ("mle", 7)
    assert result["corpus"]["tokens"] == 3000
    assert result["corpus"]["source"] == "the file tiny.txt"
    assert result["versions"]["torch"] == torch.__version__
    assert result["seconds"] > 0
    assert result["parameters"] == sum(p.numel() for p in Run.open(Path("run")).model().parameters())


def test_seeds_and_methods_share_what_they_should(build: Build) -> None:
    """Equal seeds begin with equal weights and see equal batches, whatever the method; other seeds do not."""
    one, other, third = (
        trainer(build(method=method, seed=seed), f"{method[:3]}-{seed}")
        for method, seed in (("mle", 1), ("threshold:margin=0.05+row-adamw", 1), ("mle", 2))
    )
    assert torch.equal(one.plain.model.head, other.plain.model.head)
    assert not torch.equal(one.plain.model.head, third.plain.model.head)


@pytest.mark.parametrize(("every", "at"), [(40, "40"), (1, r"\d")])
def test_a_loss_that_is_no_number_stops_the_run(every: int, at: str, build: Build) -> None:
    config = build(optimizer__lr=1e30, optimizer__warmup=0, evaluation__every=every)
    with pytest.raises(ValueError, match=rf"the loss is (nan|inf) at step {at}; lower optimizer\.lr"):
        trainer(config).train()


def test_nothing_is_written_before_training(build: Build) -> None:
    made = Trainer(build(), Run.plan(Path("run"), build()))
    assert not Path("run").exists()
    made.train()
    assert {path.name for path in Path("run").iterdir() if path.is_file() and not path.name.startswith("best-")} == {
        "config.toml",
        "tokenizer.json",
        "counts.tsv",
        "metrics.jsonl",
        "model.safetensors",
        "result.json",
    }


VANISH: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "renamed": lambda path: path.rename("renamed"),
    "replaced": lambda path: path.rename("renamed") and Path("run").mkdir(),
}


@pytest.mark.parametrize("name", VANISH)
@pytest.mark.parametrize("at", [1, 7, 12, 19])
def test_a_folder_that_vanishes_ends_the_run(at: int, name: str, build: Build) -> None:
    """Before the first checkpoint, between two, before a log line, before the last."""

    def vanish(step: int, fields: dict[str, float]) -> None:
        if step == at:
            VANISH[name](Path("run"))

    message = "cannot write run: the folder was removed or renamed meanwhile; put it back or start again"
    with pytest.raises(WriteError, match=f"^{message}$"):
        trainer(build(steps=20)).train(progress=vanish)
    assert [path.name for path in Path("run").rglob("*")] == [], "no half of a run is made anew"


def test_a_folder_that_vanishes_while_the_run_is_measured(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(build(steps=20))
    real = made._measure

    def measure() -> dict[str, Any]:
        shutil.rmtree("run")
        Path("run").mkdir()
        return real()

    monkeypatch.setattr(made, "_measure", measure)
    with pytest.raises(WriteError, match="cannot write run: the folder was removed or renamed meanwhile"):
        made.train()


@pytest.mark.parametrize("step", [0, 5])
def test_a_full_disk_says_what_survives(step: int, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fill(done: int, fields: dict[str, float]) -> None:
        if done == step + 1:
            monkeypatch.setattr(os, "fsync", full)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    survivors = {
        0: " and run the same command again; there was no checkpoint yet",
        5: " and go on after step 5 with: decone train --resume run",
    }
    with pytest.raises(WriteError, match=rf"^cannot write \S+: No space left on device; free space{survivors[step]}$"):
        trainer(build(steps=20)).train(progress=fill)
    monkeypatch.setattr(os, "fsync", real)
    assert not list(Path("run").rglob("*.writing"))
    assert trainer(build(steps=20)).train()["measured"]["last"]["step"] == 20


def test_a_log_on_a_full_disk_is_one_sentence() -> None:
    log = RunLog(Path(), 0)
    Path("metrics.jsonl").unlink()
    Path("metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"cannot write metrics\.jsonl: No space left on device; free space"), log:
        log.write("train", 1, {})


def test_a_run_that_is_being_trained_is_refused_and_stays_as_it_is(build: Build) -> None:
    first, second = trainer(build(steps=20)), trainer(build(steps=20))
    refusals: list[str] = []

    def meet(step: int, fields: dict[str, float]) -> None:
        before = Path("run/metrics.jsonl").read_bytes()
        with pytest.raises(ValueError, match=rf"^run is being trained by process {os.getpid()} on \S+; ") as refusal:
            second.train()
        refusals.append(str(refusal.value))
        assert Path("run/metrics.jsonl").read_bytes() == before

    first.train(progress=meet)
    assert len(refusals) == 20
    assert not Path("run/run.lock").exists()


def test_two_configurations_do_not_share_a_folder_whoever_comes_first(build: Build) -> None:
    """The second was planned when the first had written nothing."""
    second = Trainer(build(steps=20, seed=2), Run.plan(Path("run"), build(steps=20, seed=2)))
    first = trainer(build(steps=20))
    with pytest.raises(ValueError, match="run holds a run of another configuration; choose another --out"):
        second.train()
    assert RunConfig.read(Path("run/config.toml")).seed == first.config.seed


def changed_checkpoint(state: Callable[[dict[str, Any]], None] = lambda state: None, step: int = 5) -> None:
    """Saves the run's checkpoint again, changed."""
    folder = checkpoint.latest(Path("run"))
    assert folder is not None
    found, weights, tree = checkpoint.load(folder)
    state(tree)
    checkpoint.save(Path("run"), found if step == 5 else step, weights, tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: changed_checkpoint(lambda state: state.pop("optimizer")), "does not fit this run ('optimizer')"),
        (lambda: changed_checkpoint(lambda state: state.update(best=3)), "does not fit this run"),
        (lambda: changed_checkpoint(lambda state: state.update(optimizer="adam")), "does not fit this run"),
        (lambda: changed_checkpoint(lambda state: state.update(random=torch.zeros(3))), "does not fit this run"),
        (lambda: changed_checkpoint(lambda state: state.update(identity="x")), "belongs to another configuration"),
        (lambda: changed_checkpoint(step=41), "it is of step 41"),
        (lambda: Path("tiny.txt").write_text(Path("tiny.txt").read_text()[::-1]), "tiny.txt has changed since"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(change: Callable[[], None], message: str, build: Build) -> None:
    config = build()
    made = trainer(config)
    made._one_step(False)
    made.step = 5
    made._save()
    change()
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    with pytest.raises(ValueError) as error:
        trainer(config).train()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_weights_of_another_shape_are_refused(build: Build) -> None:
    made = trainer(build())
    checkpoint.save(Path("run"), 5, {"wte": torch.zeros(3)}, {})
    with pytest.raises(ValueError, match=r"step-00000005 does not fit this run \(Error.* for Nano.*another --out"):
        made.train()


def test_more_processes_than_windows_are_refused(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    class Many:
        num_processes = 8

    monkeypatch.setattr(loop, "accelerator", lambda *settings: Many())
    with pytest.raises(ValueError, match=r"batch\.size 6 leaves some of 8 processes without work; raise it"):
        trainer(build())
