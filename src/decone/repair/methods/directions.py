"""Settings of a repair that takes the mean and the strongest principal components out of the rows of a table.

The formulas are in `decone.repair.directions`, which is imported when the repair is carried out: help of the command
needs no torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from decone.files.settings import Progress
from decone.repair.methods.base import (
    ROWS,
    ROWS_HELP,
    CountsFile,
    InputName,
    OutputName,
    RepairedRows,
    RepairMethod,
    RepairVariant,
    Setting,
    TableChoice,
)

if TYPE_CHECKING:
    from torch import Tensor

    from decone.models.tables import ModelTables

Centre = Literal["mean", "released", "kept", "origin"]
Statistics = Literal["all", "chosen"]
CENTRE_HELP = (
    "mean: rows minus their mean, then the components of that; released: components of the rows as they were; kept: "
    "the mean stays; origin: components around 0."
)


@dataclass(frozen=True)
class Directions(RepairMethod):
    """Take the mean and the strongest principal components out of rows of a table.

    All-but-the-top (Mu and Viswanath 2018); with --centre released, DelDirection. Writes a delta, see apply.
    """

    variants: ClassVar[tuple[RepairVariant, ...]] = (
        RepairVariant("directions", "DelDirection, as released", lambda: {"components": 10, "centre": "released"}),
        RepairVariant("directions-mean", "All-but-the-top"),
    )

    components: Annotated[
        int | None, Setting("Components taken out; 0 is the mean alone.", minimum=0, default="width / 100")
    ] = None
    centre: Annotated[Centre, Setting(CENTRE_HELP)] = "mean"
    rows: Annotated[str, Setting(f"Rows that change: {ROWS_HELP}.", metavar=ROWS)] = "all"
    counts: CountsFile = None
    statistics: Annotated[Statistics, Setting("Mean and components of all rows, or the chosen.")] = "all"
    table: Annotated[TableChoice, Setting("Which of two tables; tied ones are one.")] = "input"
    embedding: InputName = None
    head: OutputName = None

    def repair(self, model_tables: "ModelTables", seed: int, progress: Progress) -> RepairedRows:
        """Makes rows without the directions; see `repair.directions.remove_directions`."""
        from decone.repair.delta import repair_targets
        from decone.repair.directions import remove_directions

        ids, notes = self._rows(model_tables)
        if (
            len(ids) < model_tables.embedding.shape[0]
            and self.centre in ("mean", "released")
            and self.statistics == "all"
        ):
            notes.append(
                "the mean of all rows is taken out of some, which moves them away from the others; --centre kept "
                "leaves it in"
            )
        settings = {
            "components": self.components,
            "centre": self.centre,
            "rows": self.rows,
            "statistics": self.statistics,
            "table": self.table,
            "counts": None if self.counts is None else self.counts.name,
        }
        repaired = RepairedRows([], settings, {}, notes)
        for target in repair_targets(model_tables, self.table):
            progress(f"directions of the {target.role} table", 0, 1)
            delta, results = remove_directions(target, ids, self.components, self.centre, self.statistics)
            repaired.deltas.append(delta)
            repaired.results[target.role] = results
            notes += [results["tie"]] if "tie" in results else []
        return repaired

    def _rows(self, model_tables: "ModelTables") -> "tuple[Tensor, list[str]]":
        from decone.frequencies import frequencies, read_counts, rows_by_token
        from decone.repair.row_selection import BY_INDEX, parse_rows, select_rows

        selection = parse_rows(self.rows)
        if self.counts is not None and selection.kind not in ("rare", "seen"):
            raise ValueError("--counts tells which rows are rare; add --rows rare, or leave it out")
        if selection.kind == "rare" and selection.share is None:
            groups = frequencies(model_tables, None, self.counts)
            if not len(groups.groups["rare"]):
                raise ValueError(f"no row of {model_tables.name} is rare; name rows with --rows FILE")
            return groups.groups["rare"], [groups.facts.warning] if groups.facts.warning else []
        counts = None if self.counts is None else read_counts(self.counts, model_tables)
        ids = select_rows(selection, model_tables.embedding.shape[0], counts, rows_by_token(model_tables))
        return ids, [BY_INDEX] if selection.kind == "rare" and counts is None else []
