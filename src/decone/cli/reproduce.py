"""`decone reproduce`: a published table, the paper's numbers beside ours."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from decone.cli.console import Watcher, bars, out, print_json, say
from decone.cli.options import Device, Jobs, Json, Quiet, Seeds
from decone.files.settings import parse_pairs
from decone.report import markdown, terminal
from decone.studies.catalogue import TABLES
from decone.studies.seeds import seeds as read_seeds
from decone.studies.study import Reproducible, Wish


def command(
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
    if every:
        for name, known in TABLES.items():
            out.print(escape(f"{name}  {known.title}\n    rows: {', '.join(known.row_names)}"), soft_wrap=True)
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
    study = _find(table).plan(wish)
    if not show:
        with bars(quiet) as progress:
            watcher = Watcher(progress, study.steps())
            study.run(jobs, watcher.watch, watcher.done)
    if as_json:
        print_json(study.documents())
        return
    rendered = study.render()
    out.print(terminal.render(rendered))
    if not show:
        study.page.parent.mkdir(parents=True, exist_ok=True)
        study.page.write_text(markdown.render(rendered), encoding="utf-8")
        say(f"the table is {study.page}")


def _find(name: str) -> Reproducible:
    if name not in TABLES:
        raise ValueError(f"nothing to reproduce under {name!r}; choose one of {', '.join(TABLES)}")
    return TABLES[name]
