"""`decone grow` and `decone trim`: tokens added to a model or taken out of it, as a new folder."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import (
    INITIALISATIONS,
    Device,
    DryRun,
    Embedding,
    Head,
    Json,
    Leave,
    LinkFiles,
    Match,
    NewFolder,
    Quiet,
    print_result,
    stages,
)

INIT = (
    "How rows are made: pieces (mean of the rows of what the old tokenizer cuts the token into), mean (of all trained "
    "rows), sample (drawn from a normal with their mean and covariance), neighbours (mean of rows near the pieces), "
    "definitions (rebuilt from a --lexicon)."
)
MATCH = "word: a token is not found inside longer words, but in scripts without spaces; anywhere: inside words too."
TEXT = "UTF-8 text whose tokens stay; may be repeated. It is cut exactly as before."

Model = Annotated[str, typer.Argument(help="A Hugging Face model: folder or hub name.")]


def grow(
    model: Model,
    tokens: Annotated[str, typer.Argument(help="A file with one token per line, or tokens: covid,blog.")],
    out: NewFolder = None,
    init: Annotated[str, typer.Option(help=INIT, metavar="|".join(INITIALISATIONS))] = "pieces",
    neighbours: Annotated[int, typer.Option(min=1, help="Rows for --init neighbours.")] = 10,
    lexicon: Annotated[list[Path] | None, typer.Option("--lexicon", "-l", help="For --init definitions.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting of definitions, key=value.")] = None,
    device: Device = "auto",
    text: Annotated[Path | None, typer.Option(help="UTF-8 text: compare the outputs before and after on it.")] = None,
    multiple: Annotated[int | None, typer.Option(min=1, help="Make the number of rows a multiple of this.")] = None,
    match: Annotated[Match, typer.Option(help=MATCH)] = "word",
    seed: Annotated[int, typer.Option(min=0, help="Of --init sample and definitions.")] = 0,
    leave: Leave = None,
    embedding: Embedding = None,
    head: Head = None,
    link: LinkFiles = False,
    show: Annotated[int, typer.Option(min=0, help="New tokens shown one by one.")] = 10,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add tokens to a model; its old rows stay byte for byte, and it is never changed itself.

    New tokens take rows that no token has yet, and only then make the tables longer.
    """
    from decone.files.settings import parse_pairs
    from decone.repair.vocabulary.grow import grow

    _require_out(out, dry_run)
    with stages(quiet) as progress:
        report = grow(
            model,
            tokens,
            None if dry_run else out,
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
    print_result(report, as_json)


def trim(
    model: Model,
    out: NewFolder = None,
    text: Annotated[list[Path] | None, typer.Option(help=TEXT)] = None,
    keep: Annotated[Path | None, typer.Option(help="Tokens that stay, one per line, as in the vocabulary.")] = None,
    unreachable: Annotated[bool, typer.Option("--unreachable", help="Drop only what no text leads to.")] = False,
    min_count: Annotated[int, typer.Option(min=1, help="How often a token must be in the texts.")] = 1,
    leave: Leave = None,
    embedding: Embedding = None,
    head: Head = None,
    link: LinkFiles = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take tokens out of a model; what stays keeps its rows byte for byte and gets new ids.

    Special and added tokens stay, and what spells others. The model itself is never changed.
    """
    from decone.repair.vocabulary.trim import trim

    _require_out(out, dry_run)
    with stages(quiet) as progress:
        report = trim(
            model,
            None if dry_run else out,
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
    print_result(report, as_json)


def _require_out(out: Path | None, dry_run: bool) -> None:
    if out is None and not dry_run:
        raise ValueError("say where the new model goes, --out FOLDER, or only look with --dry-run")
