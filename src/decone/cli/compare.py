"""`decone compare`: methods against each other over seeds, at equal budget."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import Watcher, bars, out, print_json, say
from decone.cli.options import Jobs, Json, Quiet, Seeds
from decone.files.settings import merge_settings, parse_pairs
from decone.report import markdown, page, style, terminal
from decone.studies.compare import Comparison, methods
from decone.studies.seeds import seeds as read_seeds
from decone.training.checkpoint import write_text
from decone.training.config import RunConfig
from decone.training.machine import provenance

METHODS = "mle,threshold:margin=1,threshold:margin=1+row-adamw"
STEPS = 1000  # where neither the command line nor a file says otherwise


def command(
    corpus: Annotated[
        str | None, typer.Option(help="default, shakespeare, wikitext-2, or a UTF-8 text file.", show_default="default")
    ] = None,
    wanted: Annotated[str, typer.Option("--methods", help="objective[:key=value,...][+optimiser], ...")] = METHODS,
    seeds: Seeds = "3",
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of every run.", show_default=str(STEPS))] = None,
    config: Annotated[Path | None, typer.Option(help="TOML configuration that all runs share.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Override a key; may be repeated.")] = None,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("runs/compare"),
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    jobs: Jobs = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare methods over seeds; ends with a table and one self-contained page, report.html.

    The first method is the one the others are compared with. Run the same command again to go on after a stop.
    """
    # What is not given on the command line is left to the file.
    given = {"corpus.name": corpus, "steps": steps, "machine.device": device}
    overrides = {key: value for key, value in given.items() if value is not None} | parse_pairs(sets or [])
    base = RunConfig.read(config, overrides) if config else RunConfig.build(merge_settings({"steps": STEPS}, overrides))
    comparison = Comparison(base, methods(wanted), read_seeds(seeds), folder)
    style.graph_objects()  # hours of training must not end in a missing package
    comparison.claim()
    with bars(quiet) as progress:
        watcher = Watcher(progress, base.steps * len(comparison.jobs()))
        results = comparison.run(jobs, watcher.watch, watcher.done)
    table = comparison.table(results)
    write_text(folder / "table.md", markdown.render(table))
    written = page.write(folder / "report.html", table, results, comparison.exhibits(), provenance())
    if as_json:
        print_json({method: list(found.values()) for method, found in results.items()})
    else:
        out.print(terminal.render(table))
    say(f"the page is {written}")
