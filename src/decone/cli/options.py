"""Options that mean the same in every command."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=0, help="Runs at once; 0 is one per core.")]
Seeds = Annotated[str, typer.Option("--seeds", help="A number of seeds, or the seeds themselves: 3, or 1337,1,2.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write to.")]
