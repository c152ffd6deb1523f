"""`decone trim`: takes unused tokens out of a model that exists, as a new folder."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import print_json, stages, write
from decone.cli.options import Json, Quiet
from decone.document import terminal
from decone.repair.vocabulary.trim import trim

TEXT = "UTF-8 text whose tokens stay; may be repeated. It is cut exactly as before."
LEAVE = "A tensor as long as the vocabulary that has nothing to do with it; may be repeated."


def command(
    model: Annotated[str, typer.Argument(help="A Hugging Face model: folder or hub name.")],
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="The new folder; it must not exist.")] = None,
    text: Annotated[list[Path] | None, typer.Option(help=TEXT)] = None,
    keep: Annotated[Path | None, typer.Option(help="Tokens that stay, one per line, as in the vocabulary.")] = None,
    unreachable: Annotated[bool, typer.Option("--unreachable", help="Drop only what no text leads to.")] = False,
    min_count: Annotated[int, typer.Option(min=1, help="How often a token must be in the texts.")] = 1,
    leave: Annotated[list[str] | None, typer.Option(help=LEAVE)] = None,
    embedding: Annotated[str | None, typer.Option(help="Name of the input table in the file.")] = None,
    head: Annotated[str | None, typer.Option(help="Name of the output table in the file.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Link other files instead of copying them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take tokens out of a model; what stays keeps its rows byte for byte and gets new ids.

    Special and added tokens stay, and what spells others. The model itself is never changed.
    """
    if folder is None and not dry_run:
        raise ValueError("say where the new model goes, --out FOLDER, or only look with --dry-run")
    with stages(quiet) as progress:
        report = trim(
            model,
            None if dry_run else folder,
            text=text or (),
            keep=keep,
            unreachable=unreachable,
            min_count=min_count,
            leave=leave or (),
            embedding=embedding,
            head=head,
            link=link,
            progress=progress,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        write(terminal.render(report.to_document()))
