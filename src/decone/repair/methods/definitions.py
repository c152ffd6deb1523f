"""Definitions: rows rebuilt from a dictionary's definitions of their tokens (DefinitionEMB).

Zhang, Li and Okumura 2024 (arXiv 2408.01308). The model, the map and their scores are in `decone.repair.definitions`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from decone.data.lexicons import FORMATS
from decone.files.settings import Progress
from decone.repair.methods.base import (
    ROWS,
    ROWS_HELP,
    CountsFile,
    InputName,
    RepairedRows,
    RepairMethod,
    RepairVariant,
    Setting,
)

if TYPE_CHECKING:
    from decone.models.tables import ModelTables


def _published_lexicon() -> dict[str, Any]:
    from decone.data.published import Published, find

    # The senses of the lexicon as a table, made from its YAML source; see the page on the study.
    oewn = Published(
        "wordnet/oewn_lemma_glosses.tsv",
        None,
        "b11bd34fb60cc0df23c48a5225b8341177d6f4b399f28a3f4f59fd21fe0e7de1",
        "write lemma, pos, sense, synset, gloss and examples of every sense of its YAML source to a table",
    )
    return {"lexicon": [find(oewn, "Open English WordNet")[1]], "rows": "rare"}


@dataclass(frozen=True)
class Definitions(RepairMethod):
    """Rebuild rows of a table from the definitions of their tokens (DefinitionEMB), where these were lost.

    Writes a delta, see apply. Tells by held-out tokens how much of a row a definition gives back.
    """

    model: ClassVar[str] = "An encoder, or an encoder with a decoder (folder or hub name)."
    seed: ClassVar[Setting] = Setting("Of training, folds and the rows shown.", minimum=0)
    variants: ClassVar[tuple[RepairVariant, ...]] = (RepairVariant("definitions", "DefinitionEMB", _published_lexicon),)

    lexicon: Annotated[
        list[Path], Setting("File, or WordNet's folder; may be repeated.", flags=("--lexicon", "-l"), metavar="FILE")
    ]
    rows: Annotated[
        str,
        Setting(
            "doubtful (those of the rarest fifth that their definitions contradict), "
            f"{ROWS_HELP}; shares are of the defined tokens.",
            metavar=f"doubtful|{ROWS}",
        ),
    ] = "doubtful"
    counts: CountsFile = None
    preset: Annotated[str, Setting("decone, or paper: as released with DefinitionEMB.")] = "decone"
    settings: Annotated[
        list[str] | None,
        Setting(
            "A setting of the method, key=value; see docs/repair.md. Repeat it for more.",
            flags=("--set",),
            metavar="key=value",
        ),
    ] = None
    format: Annotated[str, Setting(f"{', '.join(FORMATS)}; auto looks at the content.")] = "auto"
    language: Annotated[str, Setting("Of Wiktionary: the code of the entries wanted, or all.")] = "en"
    case: Annotated[str, Setting("auto, exact, or fold: also words that differ in case.")] = "auto"
    forms: Annotated[str, Setting("Senses like 'plural of X': follow, keep or skip.")] = "follow"
    inflections: Annotated[bool, Setting("Undo English suffixes.")] = False
    numbers: Annotated[bool, Setting("Spell out numbers without a definition.")] = False
    pieces: Annotated[bool, Setting("Define word pieces as parts of words.")] = False
    mask: Annotated[str | None, Setting("The token that stands for what is asked.")] = None
    embedding: InputName = None
    device: Annotated[str, Setting("auto, cpu, cuda, cuda:N or mps.")] = "auto"

    def repair(self, model_tables: "ModelTables", seed: int, progress: Progress) -> RepairedRows:
        """Makes rows from definitions; see `decone.repair.definitions.rebuild`."""
        from decone.files.settings import parse_pairs
        from decone.frequencies import read_counts
        from decone.repair.alignment.align import align_model, open_lexicons
        from decone.repair.alignment.result import AlignmentSettings
        from decone.repair.definitions.fit import Reconstructor
        from decone.repair.definitions.rebuild import find_doubtful_rows, rebuild_rows
        from decone.repair.definitions.recipe import DefinitionRecipe
        from decone.repair.delta import repair_targets, separate_inputs
        from decone.repair.row_selection import BY_INDEX, parse_rows, select_defined_rows

        pairs = parse_pairs(self.settings or [], example="solver=gradient")
        recipe = DefinitionRecipe.build(self.preset, {"seed": str(seed), **pairs})
        lexicon = open_lexicons(self.lexicon, self.format, self.language, self.forms)
        matching = AlignmentSettings(
            self.case, "all", self.forms == "follow", self.inflections, self.numbers, self.pieces
        )
        selection = parse_rows(self.rows, "doubtful")
        counts = None if self.counts is None else read_counts(self.counts, model_tables)
        (target,) = repair_targets(model_tables)
        separate = separate_inputs(model_tables, target)
        if separate and self.embedding is None:
            raise ValueError(
                f"encoder and decoder of {model_tables.name} have tables of their own; repair one at a time: "
                f"--embedding {target.table.name} or --embedding {separate[0]}"
            )
        alignment = align_model(model_tables, lexicon, matching, progress)
        reconstructor = Reconstructor(model_tables, target.table, alignment, recipe, self.device, self.mask, progress)
        ids, doubts = select_defined_rows(selection, alignment, counts), dict[str, Any]()
        if selection.kind == "doubtful":
            ids, doubts = find_doubtful_rows(reconstructor, ids)
        delta, results, notes = rebuild_rows(target, reconstructor, ids)
        if counts is None and selection.kind not in ("all", "list"):
            notes.append(BY_INDEX)
        if model_tables.head is not None:
            notes.append("the output table is one of its own and stays as it is")
        elif model_tables.tied and not separate:
            notes.append("the output table is the input table, so how the model predicts these tokens changes too")
        settings = {
            "rows": self.rows,
            "counts": None if self.counts is None else self.counts.name,
            "lexicon": [Path(source.name).name for source in lexicon.sources],
            "licence": [source.licence for source in lexicon.sources],
            "preset": self.preset,
            "recipe": recipe.model_dump(mode="json"),
            "alignment": dict(vars(matching)),
        }
        return RepairedRows([delta], settings, {target.role: {**doubts, **results}}, notes)
