"""`decone grow`: adds tokens to a model that exists, as a new folder."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import print_json, stages, write
from decone.cli.options import Device, Json, Quiet
from decone.document import terminal
from decone.files.settings import parse_pairs
from decone.repair.vocabulary.grow import DEFINITIONS, grow
from decone.repair.vocabulary.initialisations import INITIALISATIONS
from decone.repair.vocabulary.tokenizer import Match

INIT = (
    "How rows are made: pieces (mean of the rows of what the old tokenizer cuts the token into), mean (of all trained "
    "rows), sample (drawn from a normal with their mean and covariance), neighbours (mean of rows near the pieces), "
    "definitions (rebuilt from a --lexicon)."
)
MATCH = "word: a token is not found inside longer words, but in scripts without spaces; anywhere: inside words too."
LEAVE = "A tensor as long as the vocabulary that has nothing to do with it; may be repeated."


def command(
    model: Annotated[str, typer.Argument(help="A Hugging Face model: folder or hub name.")],
    tokens: Annotated[str, typer.Argument(help="A file with one token per line, or tokens: covid,blog.")],
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="The new folder; it must not exist.")] = None,
    init: Annotated[str, typer.Option(help=INIT, metavar="|".join([*INITIALISATIONS, DEFINITIONS]))] = "pieces",
    neighbours: Annotated[int, typer.Option(min=1, help="Rows for --init neighbours.")] = 10,
    lexicon: Annotated[list[Path] | None, typer.Option("--lexicon", "-l", help="For --init definitions.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting of definitions, key=value.")] = None,
    device: Device = "auto",
    text: Annotated[Path | None, typer.Option(help="UTF-8 text: compare the outputs before and after on it.")] = None,
    multiple: Annotated[int | None, typer.Option(min=1, help="Make the number of rows a multiple of this.")] = None,
    match: Annotated[Match, typer.Option(help=MATCH)] = "word",
    seed: Annotated[int, typer.Option(min=0, help="Of --init sample and definitions.")] = 0,
    leave: Annotated[list[str] | None, typer.Option(help=LEAVE)] = None,
    embedding: Annotated[str | None, typer.Option(help="Name of the input table in the file.")] = None,
    head: Annotated[str | None, typer.Option(help="Name of the output table in the file.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Link other files instead of copying them.")] = False,
    show: Annotated[int, typer.Option(min=0, help="New tokens shown one by one.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add tokens to a model; its old rows stay byte for byte, and it is never changed itself.

    New tokens take rows that no token has yet, and only then make the tables longer.
    """
    if folder is None and not dry_run:
        raise ValueError("say where the new model goes, --out FOLDER, or only look with --dry-run")
    with stages(quiet) as progress:
        report = grow(
            model,
            tokens,
            None if dry_run else folder,
            init=init,
            neighbours=neighbours,
            lexicon=lexicon or (),
            settings=parse_pairs(settings or [], example="solver=gradient"),
            device=device,
            multiple=multiple,
            match=match,
            seed=seed,
            text=text,
            leave=leave or (),
            embedding=embedding,
            head=head,
            link=link,
            show=show,
            progress=progress,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        write(terminal.render(report.to_document()))
