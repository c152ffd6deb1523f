"""`decone repair`: mends a table of a model that exists, as a delta that can be shown, applied and undone."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from jaxtyping import Int64
from torch import Tensor

from decone.cli import repair_shown
from decone.cli.console import stages
from decone.cli.options import Json, Quiet
from decone.cli.repair_definitions import definitions
from decone.cli.repairing import finish, require_place, tell
from decone.frequencies import frequencies
from decone.models.find_tables import find_tables
from decone.models.tables import ModelTables
from decone.repair import checkpoint
from decone.repair.delta import Change, read_delta
from decone.repair.directions import Centre, Statistics, remove_directions
from decone.repair.rows import last_rows, read_ids
from decone.repair.tables import Which, targets

HELP = """Mend a table of a model without training it.

\b
decone repair directions MODEL --out DELTA.safetensors   take the mean and the strongest directions out of rows
       [--components K] [--centre mean|released|kept|origin] [--rows all|rare|last:SHARE|FILE] [--counts FILE]
       [--statistics all|chosen] [--table input|output|both] [--embedding NAME] [--head NAME]
       [--dry-run] [--tokens N] [--seed S] [--json] [--quiet]
decone repair definitions MODEL --lexicon FILE --out DELTA.safetensors   rebuild rows from a dictionary
       [--rows doubtful|rare|last:SHARE|seen:SHARE|all|FILE] [--counts FILE] [--preset decone|paper] [--set key=value]
       [--format F] [--language L] [--case C] [--forms F] [--inflections] [--numbers] [--pieces] [--mask TOKEN]
       [--embedding NAME] [--device D] [--dry-run] [--tokens N] [--seed S] [--json] [--quiet]
decone repair show DELTA [--json]                        what a delta changes, and where it comes from
decone repair apply MODEL DELTA --out FOLDER [--link]    a new checkpoint with the repaired table
decone repair undo FOLDER DELTA --out FOLDER [--link]    the original again, to the last byte

A repair writes a delta and leaves the model as it is.
"""

ROWS = "Which rows change: all, rare (by --counts, or the order of ids), last:SHARE of the ids, or a file of ids."
CENTRE = (
    "mean: rows minus their mean, then the components of that; released: components of the rows as they were; kept: "
    "the mean stays; origin: components around 0."
)
Delta = Annotated[Path, typer.Argument(help="A delta that a repair wrote.")]
Link = Annotated[bool, typer.Option("--link", help="Link other files instead of copying: both share their bytes.")]
Folder = Annotated[Path, typer.Option("--out", "-o", help="The new folder; it must not exist.")]


def group(answering: Callable[[Callable[..., None]], Callable[..., None]]) -> typer.Typer:
    """The commands; `answering` makes exit codes and sentences of exceptions."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    for command in (directions, definitions, show, apply, undo):
        app.command(name=command.__name__)(answering(command))
    return app


def directions(
    model: Annotated[str, typer.Argument(help="A Hugging Face model (folder or hub name), a file, or a decone run.")],
    delta: Annotated[Path | None, typer.Option("--out", "-o", help="The delta to write, a .safetensors file.")] = None,
    components: Annotated[
        int | None, typer.Option(min=0, help="Components taken out; 0 is the mean alone.", show_default="width / 100")
    ] = None,
    centre: Annotated[Centre, typer.Option(help=CENTRE)] = "mean",
    rows: Annotated[str, typer.Option(help=ROWS)] = "all",
    counts: Annotated[Path | None, typer.Option(help="Token frequencies: lines of id or token, tab, count.")] = None,
    statistics: Annotated[Statistics, typer.Option(help="Mean and components of all rows, or the chosen.")] = "all",
    table: Annotated[Which, typer.Option(help="Which of two tables; tied ones are one.")] = "input",
    embedding: Annotated[str | None, typer.Option(help="Name of the input table in the file.")] = None,
    head: Annotated[str | None, typer.Option(help="Name of the output table in the file.")] = None,
    tokens: Annotated[int, typer.Option(min=0, help="Changed rows shown one by one.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the rows shown.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and show, write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take the mean and the strongest principal components out of rows of a table.

    All-but-the-top (Mu and Viswanath 2018); with --centre released, DelDirection. Writes a delta, see apply.
    """
    with stages(quiet) as progress:
        progress("tables", 0, 1)
        model_tables = find_tables(model, embedding, head)
        require_place(delta, model_tables, dry_run)
        ids, notes = choose(rows, counts, model_tables)
        if len(ids) < model_tables.embedding.shape[0] and centre in ("mean", "released") and statistics == "all":
            notes.append(
                "the mean of all rows is taken out of some, which moves them away from the others; --centre kept "
                "leaves it in"
            )
        settings = {"components": components, "centre": centre, "rows": rows, "statistics": statistics, "table": table}
        settings["counts"] = None if counts is None else counts.name
        changes, found = list[Change](), dict[str, Any]()
        for target in targets(model_tables, table):
            progress(f"directions of the {target.role} table", 0, 1)
            change, facts = remove_directions(target, ids, components, centre, statistics)
            changes.append(change)
            found[target.role] = facts
            notes += [facts["tie"]] if "tie" in facts else []
        finish(
            "directions", model_tables, changes, delta, settings, found, notes, tokens, seed, dry_run, as_json, progress
        )


def show(delta: Delta, as_json: Json = False) -> None:
    """Show what a delta changes, how it was made, and for which model."""
    opened = read_delta(delta)
    tell(opened.facts, repair_shown.facts(opened.facts, delta), as_json)


def apply(
    model: Annotated[str, typer.Argument(help="The model that the delta was made from.")],
    delta: Delta,
    folder: Folder,
    link: Link = False,
    as_json: Json = False,
) -> None:
    """Write a new checkpoint with the repaired table; the model stays as it is."""
    written = checkpoint.apply(model, delta, folder, link=link)
    tell(written, repair_shown.written(written), as_json)


def undo(
    repaired: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder that apply wrote.")],
    delta: Delta,
    folder: Folder,
    link: Link = False,
    as_json: Json = False,
) -> None:
    """Write the original checkpoint again, to the last byte."""
    written = checkpoint.undo(repaired, delta, folder, link=link)
    tell(written, repair_shown.written(written), as_json)


def choose(rows: str, counts: Path | None, model_tables: ModelTables) -> tuple[Int64[Tensor, " M"], list[str]]:
    """The rows that --rows names, and what must be known of them."""
    size = model_tables.embedding.shape[0]
    if counts is not None and rows != "rare":
        raise ValueError("--counts tells which rows are rare; add --rows rare, or leave it out")
    if rows == "all":
        return torch.arange(size), []
    if rows == "rare":
        known = frequencies(model_tables, None, counts)
        if not len(known.groups["rare"]):
            raise ValueError(f"no row of {model_tables.name} is rare; name rows with --rows FILE")
        return known.groups["rare"], [known.facts.warning] if known.facts.warning else []
    if rows.startswith("last:"):
        try:
            share = float(rows.removeprefix("last:"))
        except ValueError:
            raise ValueError(
                f"--rows {rows[:40]!r} is no share; write last:0.2 for the last fifth of the ids"
            ) from None
        return last_rows(size, share), []
    return read_ids(Path(rows), size), []
