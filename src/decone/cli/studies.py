"""`decone compare`, `decone reproduce` and `decone report`: many runs, one table and one page."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import Device, Jobs, Json, OptionalDevice, Quiet, Seeds, Watcher, bars, print_result, say, write
from decone.data.corpora import NAMES

METHODS = "mle,threshold:margin=1,threshold:margin=1+row-adamw"  # the defaults of `studies.compare.compare`
STEPS = 1000


def compare(
    corpus: Annotated[
        str | None, typer.Option(help=f"{', '.join(NAMES)}, or a UTF-8 text file.", show_default="default")
    ] = None,
    methods: Annotated[str, typer.Option("--methods", help="objective[:key=value,...][+optimiser], ...")] = METHODS,
    seeds: Seeds = "3",
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of every run.", show_default=str(STEPS))] = None,
    config: Annotated[Path | None, typer.Option(help="TOML configuration that all runs share.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Override a key; may be repeated.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("runs/compare"),
    device: OptionalDevice = None,
    jobs: Jobs = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare methods over seeds; ends with a table and one self-contained page, report.html.

    The first method is the one the others are compared with. Run the same command again to go on after a stop.
    """
    from decone.files.settings import parse_pairs
    from decone.studies import compare

    with bars(quiet) as progress:
        result = compare.compare(
            methods,
            corpus=corpus,
            seeds=seeds,
            steps=steps,
            config=config,
            settings=parse_pairs(sets or []),
            out=out,
            device=device,
            jobs=jobs,
            progress=Watcher(progress).show,
        )
    print_result(result, as_json)
    say(f"the page is {out / 'report.html'}")


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw table.md and report.html of a comparison again, from the runs that are finished."""
    from decone.studies.compare import draw_report

    result = draw_report(folder)
    if as_json or not quiet:
        print_result(result, as_json)
    say(f"the page is {folder / 'report.html'}")


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
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of results, one JSON per run.")] = Path("results"),
    runs: Annotated[Path, typer.Option(help="Folder of the runs themselves.")] = Path("runs"),
    device: Device = "auto",
    jobs: Jobs = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Reproduce a published table: run what is missing, then show the paper's numbers beside ours."""
    from rich.markup import escape

    from decone.files.settings import parse_pairs
    from decone.studies import reproduce

    if every:
        for name, exhibit in reproduce.EXHIBITS.items():
            write(escape(f"{name}  {exhibit.title}\n    rows: {', '.join(exhibit.row_names)}"), soft_wrap=True)
        return
    with bars(quiet) as progress:
        result = reproduce.reproduce(
            table,
            rows=rows,
            seeds=seeds,
            select=select,
            model=model,
            tasks=tasks,
            deltas=parse_pairs(deltas or [], "--delta", "definitions=FILE"),
            settings=parse_pairs(settings or []),
            out=out,
            runs=runs,
            device=device,
            jobs=jobs,
            show=show,
            progress=Watcher(progress).show,
        )
    print_result(result, as_json)
    if not as_json and not show:
        say(f"the table is {result.save()}")
