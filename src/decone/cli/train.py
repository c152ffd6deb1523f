"""`decone train` and `decone eval`: one run, a model on a text; `methods`, `doctor`: objectives, this machine."""

from pathlib import Path
from typing import Annotated

import typer

from decone import __version__
from decone.cli.console import (
    Counts,
    Device,
    Json,
    OptionalDevice,
    Quiet,
    bars,
    print_json,
    print_result,
    say,
    write_document,
)


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
    from decone.training import session

    with bars(quiet) as progress:
        task = progress.add_task("training", total=None)

        def show(stage: str, step: int, steps: int) -> None:
            progress.update(task, description=stage, completed=step, total=steps)

        result = session.train(
            config,
            out=out,
            resume=resume,
            seed=seed,
            device=device,
            settings=parse_pairs(sets or []),
            progress=show,
        )
    if not result.main_process:
        return
    if as_json:
        print_json(result.to_dict())
        return
    for name, scores in result.scores.items():
        say(
            f"{name}: PPL {scores.perplexity:.2f}, PPL best {scores.best_perplexity:.2f} "
            f"(T {scores.best_temperature:.2f}), accuracy {scores.accuracy:.4f}"
        )
    say(f"the run is in {result.path}; its model is model.safetensors, its numbers are in result.json")


def evaluate(
    model: Annotated[str, typer.Argument(help="A decone run, or a Hugging Face causal model (folder or hub name).")],
    text: Annotated[Path, typer.Option(help="UTF-8 text to score.")],
    counts: Counts = None,
    batch: Annotated[int, typer.Option(min=1, help="Windows scored at once.")] = 12,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on a text: perplexity, its best temperature, ranks, isotropy, frequency groups."""
    from decone.diagnosis.evaluate import evaluate

    print_result(evaluate(model, text, counts=counts, batch=batch, device=device), as_json)


def print_version(requested: bool) -> bool:
    """Prints the version and ends."""
    if requested:
        print(f"decone {__version__}")
        raise typer.Exit
    return requested


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and end.", callback=print_version, is_eager=True)
]


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, shown whole.")] = None,
    as_json: Json = False,
) -> None:
    """List the objectives, or show one with its settings and source."""
    from decone.objectives.registry import methods

    catalogue = methods(name)
    if as_json:
        print_json(catalogue.to_dict()["methods"])
    else:
        write_document(catalogue.to_document())


def doctor(as_json: Json = False) -> None:
    """Print what this machine offers and which engine evaluates the losses."""
    from decone.training.machine import doctor

    environment = doctor()
    if as_json:
        print_json(environment.to_dict())
        return
    for heading, sentence in environment.sentences():
        say(sentence if heading in ("versions", "machine") else f"{heading}: {sentence}")
