"""Studies and their results: one JSON file per cell, a cell being a row, a seed and, of fine-tuned models, a task."""

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from decone.files.atomic import write_text
from decone.files.foreign import quoted
from decone.studies.pool import Watch
from decone.studies.table import StudyTable

MOST_SEEDS = 10_000  # of one study
FIRST_SEED = 1337  # the papers' own seed comes first, so that one seed is their run


@dataclass(frozen=True)
class CellKey:
    """A cell of a study.

    Attributes:
        row: name of the row.
        seed: of the run.
        task: that a model is fine-tuned on; empty where a study has none.

    Example:
        >>> CellKey("directions", 1, "RTE").stem, CellKey("baseline", 1).title
        ('directions-RTE-seed-1', 'baseline seed 1')
    """

    row: str
    seed: int
    task: str = ""

    @property
    def stem(self) -> str:
        """Name of its file, without the ending."""
        return "-".join(filter(None, (self.row, self.task, f"seed-{self.seed}")))

    @property
    def title(self) -> str:
        """Its name in messages."""
        return " ".join(filter(None, (self.row, self.task, f"seed {self.seed}")))


@dataclass(frozen=True)
class ResultStore:
    """A folder of results.

    Attributes:
        folder: that holds them.
        read: reads the file of a cell; ValueError when it is damaged or was made with other settings.
    """

    folder: Path
    read: Callable[[CellKey, Path], dict[str, Any]]

    def path(self, key: CellKey) -> Path:
        """File of a cell."""
        return self.folder / f"{key.stem}.json"

    def get(self, key: CellKey) -> dict[str, Any] | None:
        """Result of a cell, None without one; ValueError as `read`."""
        path = self.path(key)
        return self.read(key, path) if path.exists() else None

    def save(self, key: CellKey, result: Mapping[str, Any]) -> None:
        """Writes the result of a cell."""
        write_text(self.path(key), json.dumps(result, indent=1) + "\n")

    def missing(self, rows: Sequence[str], seeds: Sequence[int], tasks: Sequence[str] = ("",)) -> list[CellKey]:
        """Cells without a result; seeds go outermost and rows innermost, so that a partly filled table is paired."""
        keys = (CellKey(row, seed, task) for seed in seeds for task in tasks for row in rows)
        return [key for key in keys if self.get(key) is None]

    def seeds(self, row: str, tasks: Sequence[str] = ("",)) -> list[int]:
        """Seeds of which a row has the result of a task, in order."""
        numbers = set[int]()
        for task in tasks:
            prefix = CellKey(row, 0, task).stem.removesuffix("0")
            stems = (path.stem.removeprefix(prefix) for path in self.folder.glob(f"{prefix}*.json"))
            numbers |= {int(seed) for seed in stems if seed.isdigit()}
        return sorted(numbers)

    def results(self, row: str, tasks: Sequence[str] = ("",)) -> dict[int, dict[str, dict[str, Any]]]:
        """All results of a row, whatever their seed, by seed and task."""
        cells = {seed: {task: self.get(CellKey(row, seed, task)) for task in tasks} for seed in self.seeds(row, tasks)}
        return {
            seed: {task: result for task, result in by_task.items() if result is not None}
            for seed, by_task in cells.items()
        }


@runtime_checkable
class NamedRow(Protocol):
    """A row of a study: its name on the command line and in files, its label in print."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...


class Study(ABC):
    """A table with the rows, tasks and seeds that are requested: missing cells can be run, present ones shown.

    Attributes:
        rows: the first is what the others are compared with.
        seeds: that are to be present.
        tasks: one empty name where a study has none.
        store: of results.
        page: file of the table as markdown.
    """

    rows: Sequence[NamedRow]
    seeds: Sequence[int]
    tasks: Sequence[str] = ("",)
    store: ResultStore
    page: Path

    @abstractmethod
    def steps(self) -> int:
        """Steps of the runs that are missing; ValueError where their data cannot be had."""

    @abstractmethod
    def run(self, processes: int = 0, watch: Watch | None = None, done: Watch | None = None) -> None:
        """Carries out what is missing, and stores each result as soon as it is finished; see `pool.work_off`."""

    @abstractmethod
    def render(self) -> StudyTable:
        """The table of the results that are present."""

    def missing(self) -> list[CellKey]:
        """Cells that are requested and have no result."""
        return self.store.missing([row.name for row in self.rows], self.seeds, self.tasks)

    def results(self) -> dict[str, dict[int, dict[str, dict[str, Any]]]]:
        """All results of the requested rows and tasks, whatever their seed: by label, seed and task."""
        return {row.label: self.store.results(row.name, self.tasks) for row in self.rows}

    def documents(self) -> dict[str, list[dict[str, Any]]]:
        """All results by the label of their row."""
        return {
            label: [result for by_task in seeds.values() for result in by_task.values()]
            for label, seeds in self.results().items()
        }


@dataclass(frozen=True)
class StudyRequest:
    """The part of a table that is requested; None leaves the choice to the table.

    Attributes:
        rows: names separated by commas.
        seeds: seeds that are to be present.
        out: folder of results.
        runs: folder of the runs themselves.
        device: by name.
        select: state of a run that counts, "best" or "last".
    """

    rows: str | None
    seeds: Sequence[int]
    out: Path
    runs: Path
    device: str = "auto"
    select: str | None = None


@dataclass(frozen=True)
class FinetuneRequest:
    """Settings that only studies of fine-tuned models take.

    Attributes:
        model: preset, folder or hub name of the model that is fine-tuned.
        tasks: names separated by commas.
        deltas: file of the delta of a row.
        settings: of the runs, that differ from the preset.
    """

    model: str | None = None
    tasks: str | None = None
    deltas: Mapping[str, Path] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def refuse(self, name: str) -> None:
        """Refuses all of them for another study; ValueError names the first option that was set."""
        options = {"--model": self.model, "--tasks": self.tasks, "--delta": self.deltas, "--set": self.settings}
        for option, value in options.items():
            if value:
                raise ValueError(f"{name} takes no {option}; its runs are those of the paper")


NO_FINETUNING = FinetuneRequest()


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

    def plan(self, request: StudyRequest, finetuning: FinetuneRequest) -> Study:
        """The study of a request; ValueError for a request that makes no sense for this table."""
        ...


def select_names(names: str, available: Sequence[str], noun: str, owner: str) -> list[str]:
    """Reads a list of names separated by commas; a repeated name counts once.

    Args:
        names: as on the command line.
        available: names to select from.
        noun: for one of them, in messages; the option is called by its plural.
        owner: of the names, in messages.

    Raises:
        ValueError: the list is empty or names something unknown.

    Example:
        >>> select_names("b, a,b", ["a", "b"], "row", "study:table")
        ['b', 'a']
    """
    selection = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not selection:
        raise ValueError(f"--{noun}s is empty; {owner} has {', '.join(available)}")
    for name in selection:
        if name not in available:
            raise ValueError(f"{owner} has no {noun} {quoted(name)}; its {noun}s: {', '.join(available)}")
    return selection


def parse_seeds(seeds: str | int | Sequence[int]) -> list[int]:
    """Reads a number of seeds, or the seeds themselves.

    Args:
        seeds: 3 or "3" for three seeds (1337, 1, 2), "1337,7" or [1337, 7] for exactly these; one seed is "7,".

    Raises:
        ValueError: not a positive number or a list of different numbers >= 0.

    Example:
        >>> parse_seeds("3"), parse_seeds("5,6")
        ([1337, 1, 2], [5, 6])
    """
    text = (
        seeds if isinstance(seeds, str) else str(seeds) if isinstance(seeds, int) else f"{','.join(map(str, seeds))},"
    )
    try:
        numbers = [int(number) for number in text.split(",") if number.strip()]
    except ValueError:
        raise ValueError(f"--seeds {quoted(text)} is not a number; write 3, or a list such as 1337,1,2") from None
    if "," in text:
        if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
            raise ValueError(f"--seeds {quoted(text)} needs different numbers of 0 or more")
        return numbers
    if numbers and numbers[0] > MOST_SEEDS:
        raise ValueError(f"--seeds {quoted(text)} is more than {MOST_SEEDS:,} seeds; name fewer, or one seed as 7,")
    if not numbers or numbers[0] < 1:
        raise ValueError(f"--seeds {quoted(text)} must be 1 or more; an interval needs at least 2")
    following = (seed for seed in itertools.count(1) if seed != FIRST_SEED)
    return [FIRST_SEED, *itertools.islice(following, numbers[0] - 1)]
