"""`decone compare`: methods against each other over seeds, at equal budget."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import Watcher, bars, out, print_json, say
from decone.cli.options import Device, Jobs, Json, Quiet, Seeds
from decone.report import markdown, page, terminal
from decone.studies.compare import Comparison, methods
from decone.studies.seeds import seeds as read_seeds
from decone.training.checkpoint import write_text
from decone.training.config import RunConfig, merge, pairs
from decone.training.provenance import provenance

METHODS = "mle,threshold:margin=1,threshold:margin=1+row-adamw"


def command(
    corpus: Annotated[str, typer.Option(help="default, shakespeare, or a UTF-8 text file.")] = "default",
    wanted: Annotated[str, typer.Option("--methods", help="objective[:key=value,...][+optimiser], ...")] = METHODS,
    seeds: Seeds = "3",
    steps: Annotated[int, typer.Option(help="Optimiser steps of every run.")] = 1000,
    config: Annotated[Path | None, typer.Option(help="TOML configuration that all runs share.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Override a key; may be repeated.")] = None,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("runs/compare"),
    device: Device = "auto",
    jobs: Jobs = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare methods over seeds; ends with a table and one self-contained page, report.html.

    The first method is the one the others are compared with. Run the same command again to go on after a stop.
    """
    overrides = {"corpus.name": corpus, "steps": str(steps), "machine.device": device}
    overrides |= pairs(sets or [])
    base = RunConfig.read(config, overrides) if config else RunConfig.build(merge({}, overrides))
    comparison = Comparison(base, methods(wanted), read_seeds(seeds), folder)
    comparison.claim()
    with bars(quiet) as progress:
        watcher = Watcher(progress, steps * len(comparison.jobs()))
        results = comparison.run(jobs, watcher.watch, watcher.done)
    table = comparison.table(results)
    write_text(folder / "table.md", markdown.render(table))
    written = page.write(folder / "report.html", table, results, comparison.exhibits(), provenance())
    if as_json:
        print_json({method: list(found.values()) for method, found in results.items()})
    else:
        out.print(terminal.render(table))
    say(f"the page is {written}")
