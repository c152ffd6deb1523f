"""`decone report`: the page of a comparison, drawn again from what is on disk."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import out, print_json, say
from decone.cli.options import Json, Quiet
from decone.report import markdown, page, terminal
from decone.studies.compare import reopen
from decone.training.checkpoint import write_text
from decone.training.machine import provenance


def command(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw table.md and report.html of a comparison again, from the runs that are finished."""
    comparison, results = reopen(folder)
    table = comparison.table(results)
    write_text(folder / "table.md", markdown.render(table))
    written = page.write(folder / "report.html", table, results, comparison.exhibits(), provenance())
    if as_json:
        print_json({method: list(found.values()) for method, found in results.items()})
    elif not quiet:
        out.print(terminal.render(table))
    say(f"the page is {written}")
