"""A comparison of embedding tables after fine-tuning: which tables, on which tasks; and what a user wishes of it."""

from dataclasses import dataclass

from decone.studies.downstream_runs import ORIGINAL, Downstream, TableRow
from decone.studies.study import Wish, chosen
from decone.studies.suite import Suite

_FIXED = {"model": "--model", "task": "--tasks", "row": "--rows", "seed": "--seeds"}


@dataclass(frozen=True)
class DownstreamTable:
    """A comparison of tables after fine-tuning.

    Attributes:
        study: of which it is a table.
        name: of the table.
        title: heading.
        suite: what models are fine-tuned on.
        rows: tables compared; the first is the original.
        usual: names of the rows where the user names none.
        notes: what to know when reading it.
    """

    study: str
    name: str
    title: str
    suite: Suite
    rows: tuple[TableRow, ...]
    usual: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def row_names(self) -> list[str]:
        """Names of the rows, in order."""
        return [row.name for row in self.rows]

    def plan(self, wish: Wish) -> Downstream:
        """What is to be run and shown.

        Raises:
            ValueError: a row, task or setting does not exist, or is not free.
        """
        called = f"{self.study}:{self.name}"
        if wish.select not in (None, "last"):
            raise ValueError(f"{called} counts the last epoch and chooses none; leave --select {wish.select} out")
        names = list(self.usual) if wish.rows is None else chosen(wish.rows, self.row_names, "row", called)
        tasks = list(self.suite.usual)
        if wish.tasks is not None:
            wanted = chosen(wish.tasks, self.suite.tasks, "task", called)
            tasks = [task for task in self.suite.tasks if task in wanted]
        for name in wish.deltas:
            if name == ORIGINAL or name not in names:
                others = ", ".join(row for row in names if row != ORIGINAL) or "none"
                raise ValueError(f"--delta names the row {name!r}; rows of this run that take one: {others}")
        for key, option in _FIXED.items():
            if key in wish.settings:
                raise ValueError(f"--set {key} is not free here; use {option}")
        study = Downstream(
            study=self.study,
            name=self.name,
            title=self.title,
            suite=self.suite,
            model=wish.model or next(iter(self.suite.presets)),
            # The first row is what the others are compared with, in whatever order they were named.
            rows=[row for row in self.rows if row.name in names],
            tasks=tasks,
            wish=wish,
            notes=self.notes,
        )
        study.config(study.rows[0], study.tasks[0], 0)  # a setting that cannot be is refused here
        return study
