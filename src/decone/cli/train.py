"""`decone train` and `decone eval`: one run from a configuration or the remainder of one, and a model on a text."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import bars, print_json, print_result, say
from decone.cli.options import Device, Json, OptionalDevice, Quiet


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
    batch: Annotated[int, typer.Option(min=1, help="Windows scored at once.")] = 12,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on a text: perplexity, its best temperature, ranks, isotropy, frequency groups."""
    from decone.training import session

    print_result(session.evaluate(model, text, batch=batch, device=device), as_json)
