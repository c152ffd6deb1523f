"""`decone compare`, `decone reproduce` and `decone report`: many runs, one table and one page."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import Watcher, bars, print_json, say, write
from decone.cli.options import Device, Jobs, Json, OptionalDevice, Quiet, Seeds
from decone.data.corpora import NAMES

METHODS = "mle,threshold:margin=1,threshold:margin=1+row-adamw"
STEPS = 1000  # where neither the command line nor a file says otherwise


def compare(
    corpus: Annotated[
        str | None, typer.Option(help=f"{', '.join(NAMES)}, or a UTF-8 text file.", show_default="default")
    ] = None,
    methods: Annotated[str, typer.Option("--methods", help="objective[:key=value,...][+optimiser], ...")] = METHODS,
    seeds: Seeds = "3",
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of every run.", show_default=str(STEPS))] = None,
    config: Annotated[Path | None, typer.Option(help="TOML configuration that all runs share.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Override a key; may be repeated.")] = None,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("runs/compare"),
    device: OptionalDevice = None,
    jobs: Jobs = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare methods over seeds; ends with a table and one self-contained page, report.html.

    The first method is the one the others are compared with. Run the same command again to go on after a stop.
    """
    from decone.document import figures, html, markdown, terminal
    from decone.files.atomic import write_text
    from decone.files.settings import merge_settings, parse_pairs
    from decone.studies.compare import Comparison
    from decone.studies.compare import methods as read_methods
    from decone.studies.seeds import seeds as read_seeds
    from decone.studies.view import comparison_document
    from decone.training.config import RunConfig
    from decone.training.machine import provenance

    # What is not given on the command line is left to the file.
    options = {"corpus.name": corpus, "steps": steps, "machine.device": device}
    overrides = {key: value for key, value in options.items() if value is not None} | parse_pairs(sets or [])
    base = RunConfig.read(config, overrides) if config else RunConfig.build(merge_settings({"steps": STEPS}, overrides))
    comparison = Comparison(base, read_methods(methods), read_seeds(seeds), folder)
    figures.graph_objects()  # hours of training must not end in a missing package
    comparison.claim()
    with bars(quiet) as progress:
        watcher = Watcher(progress, base.steps * len(comparison.jobs()))
        results = comparison.run(jobs, watcher.watch, watcher.done)
    table = comparison.table(results)
    document = comparison_document(table, results, comparison.exhibits(), provenance())
    write_text(folder / "table.md", markdown.render(document))
    written = html.save(folder / "report.html", document)
    if as_json:
        print_json({method: list(runs.values()) for method, runs in results.items()})
    else:
        write(terminal.render(document))
    say(f"the page is {written}")


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw table.md and report.html of a comparison again, from the runs that are finished."""
    from decone.document import html, markdown, terminal
    from decone.files.atomic import write_text
    from decone.studies.compare import reopen
    from decone.studies.view import comparison_document
    from decone.training.machine import provenance

    comparison, results = reopen(folder)
    table = comparison.table(results)
    document = comparison_document(table, results, comparison.exhibits(), provenance())
    write_text(folder / "table.md", markdown.render(document))
    written = html.save(folder / "report.html", document)
    if as_json:
        print_json({method: list(runs.values()) for method, runs in results.items()})
    elif not quiet:
        write(terminal.render(document))
    say(f"the page is {written}")


def reproduce(
    table: Annotated[str, typer.Argument(help="study:table, e.g. stop-jostling:table1")] = "",
    rows: Annotated[str | None, typer.Option(help="Rows to run and show, separated by commas; all by default.")] = None,
    seeds: Seeds = "3",
    show: Annotated[bool, typer.Option("--show", help="Only show what is there; run nothing.")] = False,
    every: Annotated[bool, typer.Option("--list", help="Name every table and its rows.")] = False,
    select: Annotated[
        str | None, typer.Option(help="Checkpoint that counts: best or last.", show_default="the paper's")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model that is fine-tuned: a preset, a folder or a hub name.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks to fine-tune on, separated by commas.")] = None,
    deltas: Annotated[
        list[str] | None, typer.Option("--delta", metavar="ROW=FILE", help="A delta for a row, instead of our own.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the fine-tuning.")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder of results, one JSON per run.")] = Path("results"),
    runs: Annotated[Path, typer.Option(help="Folder of the runs themselves.")] = Path("runs"),
    device: Device = "auto",
    jobs: Jobs = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Reproduce a published table: run what is missing, then show the paper's numbers beside ours."""
    from rich.markup import escape

    from decone.document import markdown, terminal
    from decone.files.atomic import write_text
    from decone.files.settings import parse_pairs
    from decone.studies.catalogue import TABLES
    from decone.studies.seeds import seeds as read_seeds
    from decone.studies.study import Wish
    from decone.studies.view import table_document

    if every:
        for name, exhibit in TABLES.items():
            write(escape(f"{name}  {exhibit.title}\n    rows: {', '.join(exhibit.row_names)}"), soft_wrap=True)
        return
    wish = Wish(
        rows=rows,
        seeds=read_seeds(seeds),
        out=folder,
        runs=runs,
        device=device,
        select=select,
        model=model,
        tasks=tasks,
        deltas={row: Path(file) for row, file in parse_pairs(deltas or [], "--delta", "definitions=FILE").items()},
        settings=parse_pairs(settings or []),
    )
    if table not in TABLES:
        raise ValueError(f"nothing to reproduce under {table!r}; choose one of {', '.join(TABLES)}")
    study = TABLES[table].plan(wish)
    if not show:
        with bars(quiet) as progress:
            watcher = Watcher(progress, study.steps())
            study.run(jobs, watcher.watch, watcher.done)
    if as_json:
        print_json(study.documents())
        return
    document = table_document(study.render())
    write(terminal.render(document))
    if not show:
        study.page.parent.mkdir(parents=True, exist_ok=True)
        write_text(study.page, markdown.render(document))
        say(f"the table is {study.page}")
