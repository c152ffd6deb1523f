"""Many runs at once: what is done is not done again, a failure or a stop leaves the rest resumable."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from decone.files.failure import WriteError
from decone.files.lock import lock
from decone.studies import pool
from decone.studies.pool import RunJob, run_all
from decone.training import checkpoint
from decone.training.config import RunConfig
from decone.training.interrupt import Stopped
from decone.training.loop import Trainer
from decone.training.run import Run

Build = Callable[..., RunConfig]
LONG = {"steps": 100_000, "evaluation__every": 100_000}


def job(config: RunConfig, name: str) -> RunJob:
    return RunJob(f"the run {name}", config, Path("runs") / name)


def is_whole(name: str) -> bool:
    """Whether a run was stopped in good order: a checkpoint, no result."""
    folder = checkpoint.latest(Path("runs") / name)
    return folder is not None and checkpoint.load(folder)[0] > 0 and not (Path("runs") / name / "result.json").exists()


@pytest.mark.usefixtures("workers")
def test_runs_in_workers_are_the_runs_of_one_process(build: Build) -> None:
    jobs = [job(build(seed=seed), str(seed)) for seed in range(3)]
    before = Trainer(jobs[0].config, Run.create(jobs[0].path, jobs[0].config)).train()
    calls: list[tuple[str, str, int]] = []
    found = run_all(
        jobs,
        processes=2,
        watch=lambda job, step: calls.append(("watch", job.name, step)),
        done=lambda job, step: calls.append(("done", job.name, step)),
    )
    assert list(found) == [job.path for job in jobs] or set(found) == {job.path for job in jobs}
    assert found[jobs[0].path] == before
    assert calls[0] == ("done", "the run 0", 40), "a finished run is only read"
    assert sorted(call for call in calls if call[0] == "done") == [("done", f"the run {n}", 40) for n in range(3)]
    assert {name for kind, name, _ in calls if kind == "watch"} <= {"the run 1", "the run 2"}
    for seed in (1, 2):
        alone = job(build(seed=seed), f"alone-{seed}")
        result = Trainer(alone.config, Run.create(alone.path, alone.config)).train()
        assert found[jobs[seed].path]["measured"] == result["measured"]
        one, other = (load_file(path / "model.safetensors") for path in (alone.path, jobs[seed].path))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert multiprocessing.active_children() == []


def test_finished_runs_start_no_process(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    only = job(build(steps=5), "a")
    result = Trainer(only.config, Run.create(only.path, only.config)).train()
    monkeypatch.setattr(pool, "ProcessPoolExecutor", None)
    assert run_all([only]) == {only.path: result}


def test_nothing_is_claimed_when_one_run_cannot_be(build: Build) -> None:
    Run.create(Path("runs/b"), build(seed=5))
    with pytest.raises(ValueError, match="runs/b holds a run of another configuration"):
        run_all([job(build(), "a"), job(build(), "b")])
    assert not Path("runs/a").exists()


@pytest.mark.usefixtures("workers")
def test_a_failing_run_is_named_and_the_others_stop_in_good_order(build: Build) -> None:
    jobs = [job(build(**LONG), "long"), job(build(optimizer__lr=1e30, evaluation__every=5), "broken")]
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"the run broken: the loss is (nan|inf) at step 5; lower optimizer\.lr"):
        run_all([*jobs, job(build(seed=2, **LONG), "waiting")], processes=2)
    assert time.monotonic() - began < 100, "it does not wait for the end of the others"
    assert not any(Path("runs").glob("*/result.json"))
    assert is_whole("long") or checkpoint.latest(Path("runs/long")) is None
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("workers")
def test_a_killed_worker_is_named(build: Build) -> None:
    def kill(job: RunJob, step: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(ValueError, match=r"the process of the run a was killed \(out of memory\?\); run the same"):
        run_all([job(build(**LONG), "a")], watch=kill)


@pytest.mark.usefixtures("workers")
def test_ctrl_c_stops_all_runs_in_good_order_though_no_worker_sees_it(build: Build) -> None:
    """The signal reaches the parent alone here; in a terminal it reaches the workers too."""
    names = ["a", "b"]

    def press(job: RunJob, step: int) -> None:
        if all(checkpoint.latest(Path("runs") / name) for name in names):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        run_all([job(build(seed=index, **LONG), name) for index, name in enumerate("abc")], 2, watch=press)
    assert [is_whole(name) for name in names] == [True, True]
    assert checkpoint.latest(Path("runs/c")) is None, "what has not begun does not begin"
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
@pytest.mark.parametrize("group", [False, True])
def test_a_scheduler_stops_all_runs_in_good_order(group: bool, number: int, build: Build) -> None:
    """SIGTERM and SIGHUP reach the parent alone, or its workers too."""
    names = ["a", "b"]

    def press(job: RunJob, step: int) -> None:
        if all(checkpoint.latest(Path("runs") / name) for name in names):
            for child in multiprocessing.active_children() if group else ():
                os.kill(child.pid or 0, number)
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as stopped:
        run_all([job(build(seed=index, **LONG), name) for index, name in enumerate("ab")], 2, watch=press)
    assert stopped.value.number == number
    assert [is_whole(name) for name in names] == [True, True]
    assert multiprocessing.active_children() == []
    assert not list(Path("runs").glob("*/*.lock"))


@pytest.mark.usefixtures("workers")
def test_a_run_of_another_study_is_refused_and_none_is_begun(build: Build) -> None:
    first, second = job(build(steps=5), "a"), job(build(steps=5), "b")
    Run.create(second.path, second.config)
    refusal = rf"^runs/b belongs to a study .* by process {os.getpid()} on \S+; wait"
    with lock(second.path / "study.lock", "busy", "wait"), pytest.raises(ValueError, match=refusal):
        run_all([first, second])
    assert not checkpoint.latest(first.path)
    assert len(run_all([first, second])) == 2
    assert not list(Path("runs").glob("*/*.lock"))


@pytest.mark.usefixtures("workers")
def test_a_folder_that_vanishes_ends_the_study(build: Build) -> None:
    def vanish(job: RunJob, step: int) -> None:
        if checkpoint.latest(job.path):
            job.path.rename("elsewhere")

    with pytest.raises(WriteError, match=r"cannot write runs/a: the folder was removed or renamed .* run the same"):
        run_all([job(build(**LONG), "a")], watch=vanish)


@pytest.mark.usefixtures("workers")
def test_a_second_ctrl_c_ends_the_workers_at_once(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(job: RunJob, step: int) -> None:
        raise KeyboardInterrupt

    def impatient(self: pool.ProcessPoolExecutor, wait: bool = True, cancel_futures: bool = False) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(pool.ProcessPoolExecutor, "shutdown", impatient)
    with pytest.raises(Stopped):
        run_all([job(build(**LONG), "a")], watch=press)
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("workers")
def test_a_stopped_run_goes_on_where_it_was(build: Build) -> None:
    only = job(build(steps=200), "a")

    def press(job: RunJob, step: int) -> None:
        if checkpoint.latest(job.path):
            raise KeyboardInterrupt

    with pytest.raises(Stopped):
        run_all([only], watch=press)
    found = run_all([only])
    alone = Trainer(only.config, Run.create(Path("alone"), only.config)).train()
    assert found[only.path]["measured"] == alone["measured"]


def test_workers_do_not_outlive_a_killed_parent(build: Build, nursery) -> None:  # type: ignore[no-untyped-def]
    """Else the next command would find them writing into its folders."""
    Path("config.toml").write_text(build(**LONG).dump())
    arguments = ["compare", "--config", "config.toml", "--methods", "mle", "--seeds", "1", "--out", "out", "--quiet"]
    script = f"""
import multiprocessing
from decone.files.failure import WriteError
from decone.files.lock import lock
from decone.studies import pool
from decone.cli.main import main
context = multiprocessing.get_context("forkserver")
pool.multiprocessing.get_context = lambda method: context
main({arguments})
"""
    Path("script.py").write_text(script)
    process = nursery.Process(target=__import__("runpy").run_path, args=("script.py",))
    process.start()
    run = Path("out/runs/mle/seed-1337")
    while checkpoint.latest(run) is None and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    last, since = checkpoint.latest(run), time.monotonic()
    while time.monotonic() - since < 1.0:
        time.sleep(0.05)
        if checkpoint.latest(run) != last:
            last, since = checkpoint.latest(run), time.monotonic()
            assert checkpoint.load(last or run)[0] < 50_000, "the worker goes on for ever"


def test_the_number_of_processes() -> None:
    assert 1 <= pool.cores() <= (os.cpu_count() or 1)


def test_one_process_where_a_cuda_device_is_shared(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "cores", lambda: 7)
    jobs = [job(build(machine__device=device), device) for device in ("cpu", "auto")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (pool._processes(jobs[:1]), pool._processes(jobs)) == (7, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pool._processes(jobs) == 7


def test_texts_are_checked_once_and_before_anything_else(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[RunConfig] = []
    monkeypatch.setattr(pool.inputs, "check", read.append)
    pool.check([build(seed=seed, method=method) for seed in range(3) for method in ("mle", "threshold")])
    assert len(read) == 1
    pool.check([build(), build(model__context=8), build(machine__device="auto")])
    assert len(read) == 4
