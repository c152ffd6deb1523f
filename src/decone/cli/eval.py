"""`decone eval`: what a trained model does on a text."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import out, print_json
from decone.cli.options import Device, Json, Quiet
from decone.report import measured as view
from decone.studies.measure import measure_text


def command(
    model: Annotated[str, typer.Argument(help="A decone run, or a Hugging Face causal model (folder or hub name).")],
    text: Annotated[Path, typer.Option(help="UTF-8 text to score.")],
    batch: Annotated[int, typer.Option(min=1, help="Windows scored at once.")] = 12,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on a text: perplexity, its best temperature, ranks, isotropy, frequency groups."""
    measured = measure_text(model, text, batch, device)
    if as_json:
        print_json(measured)
    else:
        out.print(view.render(measured))
