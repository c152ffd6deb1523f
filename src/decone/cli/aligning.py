"""Options that name a lexicon and how it is matched, and the alignment that they ask for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from decone.data.lexicons import FORMATS, Lexicon
from decone.files.foreign import terminal_text
from decone.models.tables import ModelTables
from decone.repair.alignment import Alignment, align
from decone.repair.entries import Choices

FORMS = ("follow", "keep", "skip")

Format = Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}; auto looks at the content.")]
Language = Annotated[str, typer.Option(help="Of Wiktionary: the code of the entries wanted, or all.")]
Case = Annotated[str, typer.Option(help="auto, exact, or fold: also words that differ in case.")]
Forms = Annotated[str, typer.Option(help="Senses like 'plural of X': follow, keep or skip.")]
Inflections = Annotated[bool, typer.Option("--inflections", help="Undo English suffixes.")]
Numbers = Annotated[bool, typer.Option("--numbers", help="Spell out numbers without a definition.")]
Pieces = Annotated[bool, typer.Option("--pieces", help="Define word pieces as parts of words.")]


def opened(paths: Sequence[Path], format: str, language: str, forms: str) -> Lexicon:
    """Several lexicons as one; earlier ones go first. ValueError where one cannot be read, or an option cannot be."""
    if forms not in FORMS:
        raise ValueError(f"--forms {terminal_text(forms, 40)!r} is not one of {', '.join(FORMS)}")
    if not paths:
        raise ValueError("name a lexicon: --lexicon FILE")
    code = None if language == "all" else language
    found = [Lexicon.open(path, format, code, forms != "skip") for path in paths]
    return sum(found[1:], found[0])


def aligned(
    model_tables: ModelTables, lexicon: Lexicon, choices: Choices, progress: Callable[[str, int, int], None]
) -> Alignment:
    """The tokens of a model with their definitions; ValueError where it has no tokenizer."""
    if model_tables.tokenizer is None:
        why = "; ".join(model_tables.notes) or "its folder holds none"
        raise ValueError(f"{model_tables.name} has no tokenizer to align a lexicon with ({why})")
    progress("reading the lexicon", 0, 1)
    return align(model_tables.tokenizer, lexicon, model_tables.embedding.shape[0], model_tables.special, choices)
