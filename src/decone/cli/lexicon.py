"""`decone lexicon`: which tokens of a model a lexicon defines."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from decone.cli.aligning import Case, Format, Forms, Inflections, Language, Numbers, Pieces, aligned, opened
from decone.cli.console import out, print_json, say, stages
from decone.cli.options import Json, Quiet
from decone.files.atomic import write_text
from decone.files.foreign import terminal_text, token_label
from decone.frequencies import read_counts
from decone.models.find_tables import find_tables
from decone.repair.coverage import Coverage, coverage
from decone.repair.entries import Choices

GLOSS = 70  # characters of a definition that are shown
MEANT = {
    "exact": "written as in the lexicon",
    "normalised": "as the tokenizer writes a word of the lexicon",
    "folded": "differ from a word in case only",
    "inflection": "forms of a defined word",
    "number": "numbers spelled out",
    "host": "pieces of a defined word",
}


def command(
    model: Annotated[str, typer.Argument(help="A Hugging Face model (folder or hub name), or a decone run.")],
    lexicon: Annotated[list[Path], typer.Argument(help="File, or WordNet's folder; earlier ones go first.")],
    format: Format = "auto",
    language: Language = "en",
    case: Case = "auto",
    senses: Annotated[str, typer.Option(help="all of a word, or the first.")] = "all",
    forms: Forms = "follow",
    inflections: Inflections = False,
    numbers: Numbers = False,
    pieces: Pieces = False,
    counts: Annotated[Path | None, typer.Option(help="Token frequencies: lines of id or token, tab, count.")] = None,
    file: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file to write the report to.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Align the tokens of a model with a lexicon, and report what is covered.

    Changes nothing; tells how far a repair by definitions can reach.
    """
    if file is not None and not (file.absolute().parent.is_dir() and not file.is_dir()):
        raise ValueError(f"cannot write {file}; name a file in a folder that exists")
    choices = Choices(case, senses, forms == "follow", inflections, numbers, pieces)
    words = opened(lexicon, format, language, forms)
    with stages(quiet) as progress:
        progress("reading the vocabulary", 0, 1)
        model_tables = find_tables(model)
        found = None if counts is None else read_counts(counts, model_tables)
        alignment = aligned(model_tables, words, choices, progress)
    report = coverage(alignment, model_tables.name, found)
    if file is not None:
        write_text(file, report.model_dump_json(by_alias=True, indent=1, ensure_ascii=True) + "\n")
        say(f"the report is {file}")
    if as_json:
        print_json(report.model_dump(by_alias=True))
    else:
        out.print(_render(report))


def _render(report: Coverage) -> RenderableType:
    """The report for a terminal; foreign strings are `Text`, whose markup is not read."""
    pieces: list[RenderableType] = [
        Text.assemble(
            (terminal_text(report.model, 200), "bold"),
            f"  {report.covered:,} of {report.rows:,} tokens have a definition, {report.words:,} of them whole words",
        )
    ]
    for source in report.sources:
        said = f"{terminal_text(source.name, 200)}: {source.format}, {source.senses:,} senses, {source.licence}"
        left = "".join(f", {count:,} {terminal_text(reason, 60)}" for reason, count in source.skipped.items())
        pieces.append(Text(said + (f"; left out{left.removeprefix(',')}" if left else ""), style="dim"))
    grid = _grid("Tokens", "count", "defined", "share")
    for name, share in [*report.kinds.items(), *(report.groups or {}).items()]:
        part = f"{share.covered / share.tokens:.1%}" if share.tokens else ""
        grid.add_row(name, f"{share.tokens:,}", f"{share.covered:,}", part)
    pieces += [Text(), grid, Text()]
    grid = _grid("Matched", "count", "how")
    grid.columns[-1].justify = "left"
    for way, count in report.ways.items():
        grid.add_row(way, f"{count:,}", MEANT[way])
    pieces += [grid, Text()]
    sharing = report.sharing
    pieces.append(
        Text(
            f"{report.senses:,} senses, {report.several:,} tokens with several · {report.self_mentions:,} "
            f"first glosses name their token · {sharing.tokens:,} tokens in {sharing.groups:,} groups share "
            "all their glosses"
        )
    )
    if report.inner:
        pieces.append(Text(f"{report.inner:,} of the tokens defined can also stand inside other words"))
    unused = ", ".join(f"{count:,} {terminal_text(reason, 60)}" for reason, count in report.unused.items())
    pieces.append(Text(f"senses of no token, and others: {unused}", style="dim") if unused else Text())
    for example in report.examples:
        token, gloss = (
            token_label(example.token, 24),
            terminal_text(example.gloss if len(example.gloss) <= GLOSS else f"{example.gloss[:GLOSS]}…"),
        )
        pieces.append(Text.assemble(("  ", ""), (token, "bold"), f"  {terminal_text(example.word, 40)}: {gloss}"))
    some = ", ".join(token_label(token, 24) for token in report.missing.tokens)
    pieces.append(Text(f"{report.missing.count:,} tokens have none and stay as they are: {some}"))
    return Group(*pieces)


def _grid(first: str, *others: str) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text(first, style="bold underline"), no_wrap=True, min_width=12)
    for heading in others:
        grid.add_column(heading, justify="right", header_style="dim")
    return grid
