"""Rows of tokens that were never trained, made anew: the settings; the work is in `decone.repair.row_renewal`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from decone.files.settings import Progress
from decone.repair.methods.base import (
    ROWS,
    InputName,
    OutputName,
    RepairedRows,
    RepairMethod,
    Setting,
    TableChoice,
)

if TYPE_CHECKING:
    from decone.models.tables import ModelTables


@dataclass(frozen=True)
class Renewal(RepairMethod):
    """Give new rows to tokens that exist but were never trained, such as chat tokens of a base model.

    Input and output rows come from the trained rows of their own table, output biases from theirs. A new row is a start
    for training, not knowledge. Writes a delta, see apply.
    """

    seed: ClassVar[Setting] = Setting("Of --init sample, of the states and the rows shown.")
    controlled: ClassVar[bool] = False

    ids: Annotated[
        str,
        Setting(
            "untrained (rows of tokens that are zero, not finite, or like rows of no token, each table by itself), a "
            "list of ids, ranges and tokens such as 5,7-9,<|im_start|>, or a file of them; or rows by the names that "
            "other repairs take.",
            metavar=f"untrained|{ROWS}",
        ),
    ] = "untrained"
    init: Annotated[
        str,
        Setting(
            "How rows are made: mean (of all trained rows), like=TOKEN (the row of that one), pieces (mean of the rows "
            "of what the tokenizer would cut the token into if it did not know it), neighbours (mean of rows near the "
            "pieces), sample (drawn from a normal with the mean and covariance of the trained rows).",
            metavar="mean|like=TOKEN|pieces|neighbours|sample",
        ),
    ] = "mean"
    neighbours: Annotated[int, Setting("Rows for --init neighbours.", minimum=1)] = 10
    table: Annotated[TableChoice, Setting("Which of two tables; tied ones are one.")] = "both"
    embedding: InputName = None
    head: OutputName = None

    def repair(self, model_tables: "ModelTables", seed: int, progress: Progress) -> RepairedRows:
        """Makes the rows; see `decone.repair.row_renewal.renew_rows`."""
        from decone.repair.row_renewal import renew_rows

        return renew_rows(model_tables, self.ids, self.init, self.neighbours, self.table, seed, progress)
