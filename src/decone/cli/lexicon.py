"""`decone lexicon`: the tokens of a model that a lexicon defines."""

from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import say, stages
from decone.cli.options import Counts, Json, Quiet
from decone.cli.repair import print_result
from decone.data.lexicons import FORMATS


def command(
    model: Annotated[str, typer.Argument(help="A Hugging Face model (folder or hub name), or a decone run.")],
    lexicon: Annotated[list[Path], typer.Argument(help="File, or WordNet's folder; earlier ones go first.")],
    format: Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}; auto looks at the content.")] = "auto",
    language: Annotated[str, typer.Option(help="Of Wiktionary: the code of the entries wanted, or all.")] = "en",
    case: Annotated[str, typer.Option(help="auto, exact, or fold: also words that differ in case.")] = "auto",
    senses: Annotated[str, typer.Option(help="all of a word, or the first.")] = "all",
    forms: Annotated[str, typer.Option(help="Senses like 'plural of X': follow, keep or skip.")] = "follow",
    inflections: Annotated[bool, typer.Option("--inflections", help="Undo English suffixes.")] = False,
    numbers: Annotated[bool, typer.Option("--numbers", help="Spell out numbers without a definition.")] = False,
    pieces: Annotated[bool, typer.Option("--pieces", help="Define word pieces as parts of words.")] = False,
    counts: Counts = None,
    file: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file to write the report to.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Align the tokens of a model with a lexicon, and report what is covered.

    Changes nothing; tells how far a repair by definitions can reach.
    """
    from decone.repair.api import lexicon_coverage

    with stages(quiet) as progress:
        report = lexicon_coverage(
            model,
            lexicon,
            format=format,
            language=language,
            case=case,
            senses=senses,
            forms=forms,
            inflections=inflections,
            numbers=numbers,
            pieces=pieces,
            counts=counts,
            out=file,
            progress=progress,
        )
    if file is not None:
        say(f"the report is {file}")
    print_result(report, as_json)
