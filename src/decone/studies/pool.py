"""Many runs, as many processes at once as there are cores; what is finished is not done again."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from decone.files.failure import WriteError
from decone.files.lock import lock
from decone.files.settings import Progress
from decone.training import inputs
from decone.training.config import RunConfig
from decone.training.interrupt import (
    SIGNALS,
    Interrupted,
    StopEvent,
    Stopped,
    Terminated,
    handled,
    raise_on_termination,
    signal_number,
)
from decone.training.loop import Trainer
from decone.training.run import LOCKS, Run, read_log

POLL = 0.5  # seconds between looks at the logs


@runtime_checkable
class WorkItem(Protocol):
    """Work of one process: its name in messages, folder of the log, number of steps, and device by name."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path: ...

    @property
    def steps(self) -> int: ...

    @property
    def device(self) -> str: ...


@dataclass(frozen=True)
class RunJob:
    """One run of a study: its name in messages, its configuration, its folder."""

    name: str
    config: RunConfig
    path: Path

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return self.config.steps

    @property
    def device(self) -> str:
        """Device by name."""
        return self.config.machine.device


P = TypeVar("P", bound=WorkItem)
Watch = Callable[[Any, int], None]  # a work item, and its step
Stop = Callable[[], bool]


class StepCounter:
    """Progress of a study as calls of one function: of each run by its name, and of "all runs".

    Args:
        progress: called with a name, the steps done and all steps; None for nobody.
        total: steps of all runs.
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.steps = progress, total, dict[str, int]()
        if progress is not None:
            progress("all runs", 0, total)

    def watch(self, item: WorkItem, step: int) -> None:
        """Reports the step that a run has reached."""
        self.steps[item.name] = step
        if self.progress is not None:
            if step:
                self.progress(item.name, step, item.steps)
            self.progress("all runs", sum(self.steps.values()), self.total)

    done = watch  # a run that is finished is at its last step


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    jobs: Sequence[RunJob], processes: int = 0, watch: Watch | None = None, done: Watch | None = None
) -> dict[Path, dict[str, Any]]:
    """Carries out runs, several at once.

    Args:
        jobs: the runs; those with a `result.json` are only read.
        processes: how many at once; 0 is one per core, or one where a CUDA device is shared.
        watch: called with a job and its step while it trains.
        done: called with a job and its last step when it is finished.

    Returns:
        Content of `result.json` by run folder.

    Raises:
        Stopped: Ctrl-C; the same call resumes.
        ValueError: a run failed; the message says which and why. Other runs keep their checkpoints.
    """
    results, waiting = dict[Path, dict[str, Any]](), list[RunJob]()
    for run in [Run.plan(job.path, job.config) for job in jobs]:
        run.claim()
        with _study_lock(run.path):  # removes that of a study which was killed
            pass
    for job in jobs:
        result = Run(job.path, job.config).result()
        if result is None:
            waiting.append(job)
        else:
            results[job.path] = result.to_dict()
            if done is not None:
                done(job, job.config.steps)

    def keep(job: RunJob, result: dict[str, Any]) -> None:
        results[job.path] = result
        if done is not None:
            done(job, job.steps)

    work_off(waiting, _train, keep, processes, watch)
    return results


def work_off(
    items: Sequence[P],
    work: Callable[[P, int, Stop], dict[str, Any]],
    keep: Callable[[P, dict[str, Any]], None],
    processes: int = 0,
    watch: Watch | None = None,
) -> None:
    """Carries out items of work, several at once.

    Args:
        items: what is to be done.
        work: does one, in a process of its own: called with the item, a number of CPU threads, and a function to ask
            whether to stop; a function of a module.
        keep: called in this process with a item and its result as soon as it is there.
        processes: how many at once; 0 is one per core, or one where a CUDA device is shared.
        watch: called with a item and its step while it is under way.

    Raises:
        Stopped: Ctrl-C, SIGTERM or SIGHUP; what was kept stays.
        WriteError: the disk is full, or a folder was removed meanwhile.
        ValueError: an item failed, or another process works on it; the message says which and why.
    """
    if not items:
        return
    count = min(processes or _processes(items), len(items))
    threads = max(1, cores() // count)
    # Spawned, not forked: a forked child inherits the parent's thread pools in an unknown state.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with (
        resumable(),
        raise_on_termination(),
        ExitStack() as stack,
        ProcessPoolExecutor(count, mp_context=context, initializer=_ready, initargs=(stop,)) as pool,
    ):
        try:
            locks = {item.path: stack.enter_context(ExitStack()) for item in items}
            for item in items:
                locks[item.path].enter_context(_study_lock(item.path))
            with _children_spared():
                futures = {pool.submit(_work, work, item, threads): item for item in items}
            while futures:
                for future in [future for future in futures if future.done()]:
                    item = futures.pop(future)
                    result = _result(future, item)
                    locks[item.path].close()  # before the result: what a kill leaves is then seen to by the next call
                    keep(item, result)
                if watch is not None:
                    for item in futures.values():
                        watch(item, _step(item.path))
                time.sleep(POLL)
        except BaseException as error:
            _wind_up(pool, stop)
            if isinstance(error, KeyboardInterrupt | Interrupted):
                raise Stopped(signal_number(error)) from None
            raise


def check(configs: Sequence[RunConfig]) -> None:
    """Refuses what would stop one of the runs before its first step; writes nothing; see `training.inputs.check`."""
    # Runs that differ in method, seed or schedule read the same text; once is enough.
    texts = {(c.corpus, c.tokenizer, c.language, c.model.context, c.model.vocabulary, c.machine): c for c in configs}
    for config in texts.values():
        inputs.check(config)


@contextmanager
def resumable() -> Iterator[None]:
    """Adds to a failure to write that a study goes on from it; WriteError if the block raised it."""
    try:
        yield
    except WriteError as error:
        raise error.continued(" and run the same command again; what is finished stays") from None


def _study_lock(folder: Path) -> AbstractContextManager[object]:
    return lock(folder / LOCKS[1], f"{folder} belongs to a study that is under way", "choose another --out")


def _wind_up(pool: ProcessPoolExecutor, stop: Event) -> None:
    """Lets the runs under way write a checkpoint; a Ctrl-C meanwhile ends them at once."""
    stop.set()
    try:
        pool.shutdown(wait=True, cancel_futures=True)
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():
            child.kill()


def _result(future: Future[dict[str, Any]], item: WorkItem) -> dict[str, Any]:
    try:
        return future.result()
    except BrokenProcessPool:
        raise ValueError(
            f"the process of {item.name} was killed (out of memory?); run the same command again to resume, "
            "with fewer --jobs if memory is short"
        ) from None
    except WriteError:
        raise
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{item.name}: {error}") from None


def _processes(items: Sequence[WorkItem]) -> int:
    shared = any(item.device not in ("cpu", "mps") for item in items) and torch.cuda.is_available()
    return 1 if shared else cores()


@contextmanager
def _children_spared() -> Iterator[None]:
    """Holds signals back while workers are started: neither they nor the handing over of their work is cut short.

    Workers inherit the mask until `_ready`. The mask holds for this thread alone, and another thread of the
    process may take the signal, whose handler would then interrupt this one; hence the handler that only notes it.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    event = StopEvent()

    def note(number: int, frame: object) -> None:
        event.number = number
        event.set()

    with handled(SIGNALS, note):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)  # what was pending reaches the noting handler here
    if event.is_set():
        raise KeyboardInterrupt if event.number == signal.SIGINT else Terminated(event.number)


_stop: Event | None = None  # of this worker; the parent sets it


def _ready(stop: Event) -> None:
    """Prepares a worker: the parent alone decides when it stops, and it does not outlive its parent."""
    global _stop
    _stop = stop
    for number in SIGNALS:  # SIGTERM is sent by the pool too, to the workers of a killed one
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one
    parent.join()
    os._exit(1)


def _work(work: Callable[[P, int, Stop], dict[str, Any]], item: P, threads: int) -> dict[str, Any]:
    assert _stop is not None  # the pool has called `_ready`
    if _stop.is_set():
        raise Interrupted(item.path, 0)
    torch.set_num_threads(threads)
    try:
        return work(item, threads, _stop.is_set)
    except Interrupted as error:
        if error.number != signal.SIGINT:  # sent to this process, which the pool waits for to end
            os._exit(128 + error.number)
        raise


def _train(job: RunJob, threads: int, stop: Stop) -> dict[str, Any]:
    return Trainer(job.config, Run(job.path, job.config)).train(stop=stop)


def _step(path: Path) -> int:
    step = 0
    for line in read_log(path):
        step = line["step"]
    return step
