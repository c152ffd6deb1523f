"""`decone repair definitions`: rows rebuilt from what a dictionary says of their tokens."""

from pathlib import Path
from typing import Annotated, Any

import typer
from jaxtyping import Int64
from torch import Tensor

from decone.cli.aligning import Case, Format, Forms, Inflections, Language, Numbers, Pieces, aligned, opened
from decone.cli.console import stages
from decone.cli.options import Device, Json, Quiet
from decone.cli.repairing import finish, nothing_written, require_place
from decone.files.settings import parse_pairs
from decone.frequencies import read_counts
from decone.models.find_tables import find_tables
from decone.repair.definitions.choice import rows_by_name
from decone.repair.definitions.rebuild import in_doubt, rebuild
from decone.repair.definitions.recipe import Recipe
from decone.repair.definitions.reconstructor import Reconstructor
from decone.repair.entries import Choices
from decone.repair.tables import other_inputs, targets

ROWS = (
    "doubtful (those of the rarest fifth that their definitions contradict), rare or rare:SHARE, seen:SHARE (the "
    "rarest that occur in --counts), last:SHARE of the ids, all, or a file of ids; shares are of the defined tokens."
)
SET = "A setting of the method, key=value; see docs/repair.md. Repeat it for more."


def definitions(
    model: Annotated[str, typer.Argument(help="An encoder, or an encoder with a decoder (folder or hub name).")],
    lexicon: Annotated[list[Path], typer.Option("--lexicon", "-l", help="File, or WordNet's folder; may be repeated.")],
    delta: Annotated[Path | None, typer.Option("--out", "-o", help="The delta to write, a .safetensors file.")] = None,
    rows: Annotated[str, typer.Option(help=ROWS)] = "doubtful",
    counts: Annotated[Path | None, typer.Option(help="Token frequencies: lines of id or token, tab, count.")] = None,
    preset: Annotated[str, typer.Option(help="decone, or paper: as released with DefinitionEMB.")] = "decone",
    settings: Annotated[list[str] | None, typer.Option("--set", help=SET)] = None,
    format: Format = "auto",
    language: Language = "en",
    case: Case = "auto",
    forms: Forms = "follow",
    inflections: Inflections = False,
    numbers: Numbers = False,
    pieces: Pieces = False,
    mask: Annotated[str | None, typer.Option(help="The token that stands for what is asked.")] = None,
    embedding: Annotated[str | None, typer.Option(help="Name of the table in the file.")] = None,
    device: Device = "auto",
    tokens: Annotated[int, typer.Option(min=0, help="Changed rows shown one by one.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of training, folds and the rows shown.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and show, write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rebuild rows of a table from the definitions of their tokens (DefinitionEMB), where these were lost.

    Writes a delta, see apply. Tells by held-out tokens how much of a row a definition gives back.
    """
    recipe = Recipe.build(preset, {"seed": str(seed), **parse_pairs(settings or [], example="solver=gradient")})
    words = opened(lexicon, format, language, forms)
    choices = Choices(case, "all", forms == "follow", inflections, numbers, pieces)
    with stages(quiet) as progress, nothing_written():
        progress("tables", 0, 1)
        model_tables = find_tables(model, embedding)
        require_place(delta, model_tables, dry_run)
        known = None if counts is None else read_counts(counts, model_tables)
        (target,) = targets(model_tables)
        others = other_inputs(model_tables, target)
        if others and embedding is None:
            raise ValueError(
                f"encoder and decoder of {model_tables.name} have tables of their own; repair one at a time: --embedding "
                f"{target.table.name} or --embedding {others[0]}"
            )
        alignment = aligned(model_tables, words, choices, progress)
        reconstructor = Reconstructor(model_tables, target.table, alignment, recipe, device, mask, progress)
        found: dict[str, Any] = {}
        ids: Int64[Tensor, " M"]
        if rows == "doubtful":
            ids, found = in_doubt(reconstructor, rows_by_name(alignment, "rare", known))
        else:
            ids = rows_by_name(alignment, rows, known)
        change, facts, notes = rebuild(target, reconstructor, ids)
        if known is None and rows != "all" and not Path(rows).is_file():
            notes.append("rare is what has a high id; give --counts to go by how often a token occurs")
        if model_tables.head is not None:
            notes.append("the output table is one of its own and stays as it is")
        elif model_tables.tied and not others:
            notes.append("the output table is the input table, so how the model predicts these tokens changes too")
        said = {
            "rows": rows,
            "counts": None if counts is None else counts.name,
            "lexicon": [Path(source.name).name for source in words.sources],
            "licence": [source.licence for source in words.sources],
            "preset": preset,
            "recipe": recipe.model_dump(mode="json"),
            "alignment": dict(vars(choices)),
        }
        together: dict[str, Any] = {target.role: {**found, **facts}}
        finish(
            "definitions",
            model_tables,
            [change],
            delta,
            said,
            together,
            notes,
            tokens,
            seed,
            dry_run,
            as_json,
            progress,
        )
