"""`decone reproduce`: a published table, the paper's numbers beside ours."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from decone.cli.console import Watcher, bars, out, print_json, say
from decone.cli.options import Device, Jobs, Json, Quiet, Seeds
from decone.report import markdown, terminal
from decone.studies.paper import PaperTable, Reproduction
from decone.studies.seeds import seeds as read_seeds
from decone.studies.stop_jostling import TABLES


def command(
    table: Annotated[str, typer.Argument(help="study:table, e.g. stop-jostling:table1")] = "",
    rows: Annotated[str | None, typer.Option(help="Rows to run and show, separated by commas; all by default.")] = None,
    seeds: Seeds = "3",
    show: Annotated[bool, typer.Option("--show", help="Only show what is there; run nothing.")] = False,
    every: Annotated[bool, typer.Option("--list", help="Name every table and its rows.")] = False,
    select: Annotated[str, typer.Option(help="Checkpoint that counts: best or last.")] = "best",
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
            rows_there = ", ".join(row.name for row in known.rows)
            out.print(escape(f"{name}  {known.title}\n    rows: {rows_there}"), soft_wrap=True)
        return
    if select not in ("best", "last"):
        raise ValueError(f"unknown --select {select!r}; choose best or last")
    paper = _find(table)
    study = Reproduction(paper, paper.choose(rows), read_seeds(seeds), folder, runs, device)
    if not show:
        with bars(quiet) as progress:
            total = sum(paper.config(row, seed).steps for row, seed in study.missing())
            watcher = Watcher(progress, total)
            study.run(jobs, watcher.watch, watcher.done)
    if as_json:
        print_json({label: list(found.values()) for label, found in study.results().items()})
        return
    rendered = study.render(select)
    out.print(terminal.render(rendered))
    if not show:
        target = folder / paper.study / f"{paper.name}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(markdown.render(rendered), encoding="utf-8")
        say(f"the table is {target}")


def _find(name: str) -> PaperTable:
    if name not in TABLES:
        raise ValueError(f"nothing to reproduce under {name!r}; choose one of {', '.join(TABLES)}")
    return TABLES[name]
