"""What every study that can be reproduced has in common, whatever its runs are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from decone.studies.pool import Watch
from decone.studies.table import Table


@dataclass(frozen=True)
class Wish:
    """What a user asks of a published table; None leaves the choice to the table.

    Attributes:
        rows: names separated by commas.
        seeds: seeds that are to be there.
        out: folder of results.
        runs: folder of the runs themselves.
        device: by name.
        select: state of a run that counts, "best" or "last".
        model: preset, folder or hub name of the model that is fine-tuned.
        tasks: names separated by commas.
        deltas: file of the delta of a row.
        settings: of the runs, that differ from the preset.
    """

    rows: str | None
    seeds: Sequence[int]
    out: Path
    runs: Path
    device: str = "auto"
    select: str | None = None
    model: str | None = None
    tasks: str | None = None
    deltas: Mapping[str, Path] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def refuse_settings(self, name: str) -> None:
        """Refuses what only studies of fine-tuned models take; ValueError names the first such option."""
        given = {"--model": self.model, "--tasks": self.tasks, "--delta": self.deltas, "--set": self.settings}
        for option, value in given.items():
            if value:
                raise ValueError(f"{name} takes no {option}; its runs are those of the paper")


@runtime_checkable
class Study(Protocol):
    """A table as it was wished for: what is missing can be run, what is there can be shown."""

    @property
    def page(self) -> Path:
        """Where the table is written as markdown."""
        ...

    def steps(self) -> int:
        """Steps of the runs that are missing."""
        ...

    def run(self, processes: int = 0, watch: Watch | None = None, done: Watch | None = None) -> None:
        """Carries out what is missing, and keeps each result as soon as it is there; see `pool.work_off`."""
        ...

    def documents(self) -> dict[str, list[dict[str, Any]]]:
        """All results that are there, by the label of their row."""
        ...

    def render(self) -> Table:
        """The table of what is there."""
        ...


@runtime_checkable
class Reproducible(Protocol):
    """A table that can be reproduced."""

    @property
    def title(self) -> str:
        """Heading of the table."""
        ...

    @property
    def row_names(self) -> list[str]:
        """Names of its rows."""
        ...

    def plan(self, wish: Wish) -> Study:
        """What is to be run and shown; ValueError for a wish that makes no sense here."""
        ...


def chosen(names: str, known: Sequence[str], what: str, owner: str) -> list[str]:
    """Reads a list of names separated by commas; each counts once.

    Args:
        names: as on the command line.
        known: what there is.
        what: one of them in a word; the option is called by its plural.
        owner: whose they are.

    Raises:
        ValueError: the list is empty or names something unknown.

    Example:
        >>> chosen("b, a,b", ["a", "b"], "row", "study:table")
        ['b', 'a']
    """
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not wanted:
        raise ValueError(f"--{what}s is empty; {owner} has {', '.join(known)}")
    for name in wanted:
        if name not in known:
            raise ValueError(f"{owner} has no {what} {name!r}; its {what}s: {', '.join(known)}")
    return wanted
