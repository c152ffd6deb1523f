"""Entry point of training: `train` carries out one run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from decone.files.settings import Progress
from decone.models.load import RUN_CONFIG
from decone.training.config import RunConfig
from decone.training.loop import Trainer
from decone.training.run import Run, RunResult


def train(
    config: RunConfig | Mapping[str, Any] | Path | str | None = None,
    *,
    out: Path | str | None = None,
    resume: Path | str | None = None,
    seed: int | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Trains one model with one method; a finished run is only read.

    Args:
        config: the configuration, or a TOML file of it; None for the defaults.
        out: folder of a new run, or of one with the same configuration.
        resume: folder of a run to continue, in place of `out`.
        seed: seed of the run; None for that of the configuration.
        device: auto, cpu, cuda, cuda:N or mps; None for that of the configuration.
        settings: values by dotted key that replace those of the configuration, e.g. {"optimizer.lr": 3e-4}.
        progress: called after every step with a description, the steps done and all steps.

    Returns:
        The result of the run; `path` is its folder.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; a checkpoint has been written and the same call continues.
        WriteError: the disk is full, or the folder was removed meanwhile; the sentence says what survives.
        ValueError: the configuration, the text or the folder will not do; nothing has been written then.

    Example:
        >>> import tempfile
        >>> tiny = {"steps": 2, "model": {"width": 8, "layers": 1, "heads": 1, "context": 8}, "batch": {"size": 64}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = train(tiny, out=f"{folder}/run", device="cpu", settings={"machine.threads": 1})
        >>> sorted(result.scores)
        ['HR', 'LR']
    """
    overrides = dict(settings or {})
    if seed is not None:
        overrides["seed"] = seed
    if device is not None:
        overrides["machine.device"] = device
    if resume is None and out is None:
        raise ValueError("name the folder of the run with --out DIR, or a run to go on with by --resume DIR")
    if resume:
        run = _resumed_run(Path(resume), config, out, overrides)
    else:
        run = Run.plan(Path(out or ""), RunConfig.resolve(config, overrides))
    result = run.result()
    if result is not None:
        return result
    trainer = Trainer(run.config, run)  # refuses what cannot be before the folder is made
    content = trainer.train(_steps_reported(progress, run.config.steps) if trainer.main else None)
    return RunResult.model_validate(content).model_copy(update={"path": run.path, "main_process": trainer.main})


def _resumed_run(
    resume: Path,
    config: RunConfig | Mapping[str, Any] | Path | str | None,
    out: Path | str | None,
    overrides: dict[str, Any],
) -> Run:
    if out is not None and Path(out).resolve() != resume.resolve():
        raise ValueError("--resume goes on in its own folder; leave out --out")
    run = Run.open(resume)
    if config is not None or overrides:
        resolved = RunConfig.resolve(resume / RUN_CONFIG if config is None else config, overrides)
        if resolved.identity() != run.config.identity():
            raise ValueError(f"{resume} holds a run of another configuration; start a new one with --out")
        run.config = resolved
    return run


def _steps_reported(progress: Progress | None, steps: int) -> Callable[[int, dict[str, float]], None] | None:
    """Callback of the trainer for a progress callback, which is also given the last loss."""
    if progress is None:
        return None
    stage = "training"

    def report(step: int, fields: dict[str, float]) -> None:
        nonlocal stage
        if "loss" in fields:
            stage = f"training, loss {fields['loss']:.3f}"
        progress(stage, step, steps)

    return report
