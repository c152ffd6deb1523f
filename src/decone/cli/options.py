"""Options that mean the same in every command, and choices as literals, so that help needs no torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer

# Copies of what the rooms define; tests/cli/test_quick.py compares them with the source of truth.
CHECKS = (
    "cone",
    "rare-cone",
    "first-direction",
    "undertrained",
    "unreachable",
    "identical",
    "zero",
    "non-finite",
    "padded",
    "repetition",
    "perplexity",
)
INITIALISATIONS = ("pieces", "mean", "sample", "neighbours", "definitions")
Match = Literal["word", "anywhere"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
OptionalDevice = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=0, help="Runs at once; 0 is one per core.")]
Seeds = Annotated[str, typer.Option("--seeds", help="A number of seeds, or the seeds themselves: 3, or 1337,1,2.")]
Counts = Annotated[Path | None, typer.Option(help="Token frequencies: lines of id or token, tab, count.")]
Embedding = Annotated[str | None, typer.Option(help="Name of the input table in the file.")]
Head = Annotated[str | None, typer.Option(help="Name of the output table in the file.")]
NewFolder = Annotated[Path | None, typer.Option("--out", "-o", help="The new folder; it must not exist.")]
LinkFiles = Annotated[bool, typer.Option("--link", help="Link other files instead of copying them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, write nothing.")]
Leave = Annotated[
    list[str] | None,
    typer.Option(help="A tensor as long as the vocabulary that has nothing to do with it; may be repeated."),
]
