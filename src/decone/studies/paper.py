"""A published table as runs to make and numbers to meet; the runs are filled in bit by bit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decone.files.atomic import write_text
from decone.files.settings import merge_settings
from decone.studies.pool import Job, Watch, check, run_all
from decone.studies.study import Wish, chosen
from decone.studies.table import Results, Table, build
from decone.training.config import RunConfig
from decone.training.run import makeable, read_result, writable

Numbers = Mapping[str, Sequence[float]]  # language -> one number per measure, in the order of `table.MEASURES`


@dataclass(frozen=True)
class PaperRow:
    """A row of a published table.

    Attributes:
        name: on the command line and in file names.
        label: as printed in the paper.
        method: the method that makes it.
        published: the paper's numbers by language.
        overrides: configuration keys that differ from the study's base.
    """

    name: str
    label: str
    method: str
    published: Numbers
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A published table: its rows, the configuration they share, what to know when reading it."""

    study: str
    name: str
    title: str
    base: dict[str, Any]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...] = ()

    def choose(self, names: str | None) -> list[PaperRow]:
        """Rows by name, separated by commas; all of them for None. ValueError for an unknown name."""
        if names is None:
            return list(self.rows)
        known = {row.name: row for row in self.rows}
        return [known[name] for name in chosen(names, list(known), "row", f"{self.study}:{self.name}")]

    @property
    def row_names(self) -> list[str]:
        """Names of the rows, in order."""
        return [row.name for row in self.rows]

    def plan(self, wish: Wish) -> "Reproduction":
        """What is to be run and shown; ValueError for a wish that makes no sense here."""
        wish.refuse_settings(f"{self.study}:{self.name}")
        select = wish.select or "best"
        if select not in ("best", "last"):
            raise ValueError(f"unknown --select {select!r}; choose best or last")
        return Reproduction(self, self.choose(wish.rows), wish.seeds, wish.out, wish.runs, wish.device, select)

    def config(self, row: PaperRow, seed: int, device: str = "auto") -> RunConfig:
        """The configuration of one run."""
        fixed = {"method": row.method, "seed": seed, "machine.device": device}
        return RunConfig.build(merge_settings(self.base, {**row.overrides, **fixed}))


@dataclass(frozen=True)
class Reproduction:
    """One published table, the rows and seeds wanted of it, and where its results and runs are kept.

    Results are one JSON per (row, seed) under `out`; run folders with their checkpoints lie under `runs`.
    """

    table: PaperTable
    rows: Sequence[PaperRow]
    seeds: Sequence[int]
    out: Path
    runs: Path
    device: str = "auto"
    select: str = "best"

    @property
    def page(self) -> Path:
        """Where the table is written."""
        return self.out / self.table.study / f"{self.table.name}.md"

    def steps(self) -> int:
        """Optimiser steps of the runs that are missing."""
        return sum(self.table.config(row, seed).steps for row, seed in self.missing())

    def documents(self) -> dict[str, list[dict[str, Any]]]:
        """All results that are there, by printed label."""
        return {label: list(found.values()) for label, found in self.results().items()}

    def path(self, row: PaperRow, seed: int) -> Path:
        """Where a result is kept."""
        return self.out / self.table.study / f"{row.name}-seed-{seed}.json"

    def folder(self, row: PaperRow, seed: int) -> Path:
        """Where a run is carried out."""
        return self.runs / self.table.study / row.name / f"seed-{seed}"

    def run(self, processes: int = 0, watch: Watch | None = None, done: Watch | None = None) -> None:
        """Carries out the runs whose results are missing, and keeps each result as soon as it is there.

        Raises:
            ValueError: a result is damaged or was made otherwise, a folder cannot be written, or what the runs need is
                not here; then nothing is written.
        """
        missing = self.missing()
        if not missing:
            return
        places = {self.folder(row, seed): self.path(row, seed) for row, seed in missing}
        jobs = [
            Job(f"{row.name} seed {seed}", self.table.config(row, seed, self.device), self.folder(row, seed))
            for row, seed in missing
        ]

        for folder in (self.out / self.table.study, self.runs):
            makeable(folder)
        check([job.config for job in jobs])
        writable(self.out / self.table.study)

        def keep(job: Job, step: int) -> None:
            source, target = job.path / "result.json", places[job.path]
            write_text(target, source.read_text(encoding="utf-8"))
            if done is not None:
                done(job, step)

        run_all(jobs, processes, watch, keep)

    def missing(self) -> list[tuple[PaperRow, int]]:
        """Rows and seeds without a result; seeds go outermost, so that a partly filled table is paired."""
        return [(row, seed) for seed in self.seeds for row in self.rows if self._read(row, seed) is None]

    def results(self) -> Results:
        """All results that are there for the rows wanted, whatever their seed, by printed label."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for row in self.rows:
            found[row.label] = {}
            for path in sorted((self.out / self.table.study).glob(f"{row.name}-seed-*.json")):
                seed = path.stem.removeprefix(f"{row.name}-seed-")
                if seed.isdigit() and (result := self._read(row, int(seed))) is not None:
                    found[row.label][int(seed)] = result
        return found

    def render(self, select: str | None = None) -> Table:
        """The table of what is there, published beside ours."""
        published = {row.label: row.published for row in self.rows}
        return build(self.table.title, self.results(), select or self.select, published, self.table.notes)

    def _read(self, row: PaperRow, seed: int) -> dict[str, Any] | None:
        path = self.path(row, seed)
        if not path.exists():
            return None
        result = read_result(path).to_dict()
        if RunConfig.build(result["config"]).identity() != self.table.config(row, seed).identity():
            raise ValueError(f"{path} was made with another configuration than {row.label!r} asks for; remove it")
        return result
