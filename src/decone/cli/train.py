"""`decone train` and `decone eval`: one run from a configuration or the remainder of one, and a model on a text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decone.cli.console import bars, print_json, say, write
from decone.cli.options import Device, Json, OptionalDevice, Quiet

if TYPE_CHECKING:
    from decone.training.run import Run


def train(
    config: Annotated[Path | None, typer.Argument(help="TOML configuration; without one the defaults hold.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set optimizer.lr=3e-4; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run.")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Folder of a run to go on with.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the run.")] = None,
    device: OptionalDevice = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one model with one method.

    Examples:  decone train --out runs/first --set method=threshold:margin=1
               decone train --resume runs/first
    """
    from decone.files.settings import parse_pairs
    from decone.training.loop import Trainer

    overrides = parse_pairs(sets or [])
    if seed is not None:
        overrides["seed"] = str(seed)
    if device is not None:
        overrides["machine.device"] = device
    run = _resumed(resume, config, out, overrides) if resume else _fresh(config, out, overrides)
    result = run.result()
    if result is None:
        trainer = Trainer(run.config, run)  # refuses what cannot be before the folder is made
        if trainer.main:
            run.claim()
        with bars(quiet or not trainer.main) as progress:
            task = progress.add_task("training", total=run.config.steps)

            def show(step: int, fields: dict[str, float]) -> None:
                progress.update(task, completed=step)
                if "loss" in fields:
                    progress.update(task, description=f"training, loss {fields['loss']:.3f}")

            result = trainer.train(show)
        if not trainer.main:
            return
    if as_json:
        print_json(result)
        return
    for name, scores in result["measured"][result["select"]]["languages"].items():
        say(
            f"{name}: PPL {scores['perplexity']:.2f}, PPL best {scores['best_perplexity']:.2f} "
            f"(T {scores['best_temperature']:.2f}), accuracy {scores['accuracy']:.4f}"
        )
    say(f"the run is in {run.path}; its model is {run.model_path.name}, its numbers are in {run.result_path.name}")


def evaluate(
    model: Annotated[str, typer.Argument(help="A decone run, or a Hugging Face causal model (folder or hub name).")],
    text: Annotated[Path, typer.Option(help="UTF-8 text to score.")],
    batch: Annotated[int, typer.Option(min=1, help="Windows scored at once.")] = 12,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on a text: perplexity, its best temperature, ranks, isotropy, frequency groups."""
    from decone.report import measured
    from decone.studies.measure import measure_text

    result = measure_text(model, text, batch, device)
    if as_json:
        print_json(result)
    else:
        write(measured.render(result))


def _fresh(config: Path | None, out: Path | None, overrides: dict[str, Any]) -> "Run":
    from decone.files.settings import merge_settings
    from decone.training.config import RunConfig
    from decone.training.run import Run

    if out is None:
        raise ValueError("name the folder of the run with --out DIR, or a run to go on with by --resume DIR")
    settings = RunConfig.build(merge_settings({}, overrides)) if config is None else RunConfig.read(config, overrides)
    return Run.plan(out, settings)


def _resumed(resume: Path, config: Path | None, out: Path | None, overrides: dict[str, Any]) -> "Run":
    from decone.training.config import RunConfig
    from decone.training.run import Run

    if out is not None and out.resolve() != resume.resolve():
        raise ValueError("--resume goes on in its own folder; leave out --out")
    run = Run.open(resume)
    if config is not None or overrides:
        base = RunConfig.read(config, overrides) if config else RunConfig.read(resume / "config.toml", overrides)
        if base.identity() != run.config.identity():
            raise ValueError(f"{resume} holds a run of another configuration; start a new one with --out")
        run.config = base
    return run
