"""Published tables: what is missing is run, then the paper's numbers stand beside ours.

The data of a table is in a TOML file of `studies/tables`.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from decone.document import markdown
from decone.document.blocks import Document, DocumentModel
from decone.files.atomic import write_text
from decone.files.failure import make_folder
from decone.files.foreign import quoted
from decone.files.settings import Progress, merge_settings
from decone.studies import definitionemb
from decone.studies.pool import RunJob, StepCounter, Watch, check, run_all
from decone.studies.store import (
    NO_FINETUNING,
    CellKey,
    FinetuneRequest,
    Reproducible,
    ResultStore,
    Study,
    StudyRequest,
    parse_seeds,
    select_names,
)
from decone.studies.table import StudyTable, build
from decone.studies.view import table_document
from decone.training.config import RunConfig
from decone.training.run import read_result, require_creatable, require_writable

Numbers = Mapping[str, Mapping[str, float]]  # language -> key of a measure of `table.MEASURES` -> number


@dataclass(frozen=True)
class PaperRow:
    """A row of a published table.

    Attributes:
        name: on the command line and in file names.
        label: as printed in the paper.
        method: the method that makes it.
        published: the paper's numbers by language and measure.
        overrides: configuration keys that differ from the study's base.
    """

    name: str
    label: str
    method: str
    published: Numbers
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A published table: its rows, the configuration they share, notes for its reader."""

    study: str
    name: str
    title: str
    base: dict[str, Any]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def row_names(self) -> list[str]:
        """Names of the rows, in order."""
        return [row.name for row in self.rows]

    def select(self, names: str | None) -> list[PaperRow]:
        """Rows by name, separated by commas; all of them for None. ValueError for an unknown name."""
        if names is None:
            return list(self.rows)
        rows = {row.name: row for row in self.rows}
        return [rows[name] for name in select_names(names, list(rows), "row", f"{self.study}:{self.name}")]

    def plan(self, request: StudyRequest, finetuning: FinetuneRequest = NO_FINETUNING) -> "PaperStudy":
        """The study of a request; ValueError for a request that makes no sense for this table."""
        finetuning.refuse(f"{self.study}:{self.name}")
        select = request.select or "best"
        if select not in ("best", "last"):
            raise ValueError(f"unknown --select {quoted(select)}; choose best or last")
        rows = self.select(request.rows)
        return PaperStudy(self, rows, request.seeds, request.out, request.runs, request.device, select)

    def config(self, row: PaperRow, seed: int, device: str = "auto") -> RunConfig:
        """The configuration of one run."""
        fixed = {"method": row.method, "seed": seed, "machine.device": device}
        return RunConfig.build(merge_settings(self.base, {**row.overrides, **fixed}))


def load_tables(name: str) -> dict[str, PaperTable]:
    """Tables of a paper by their name on the command line.

    Args:
        name: of a TOML file of `studies/tables`, without its ending.

    Example:
        >>> list(load_tables("stop_jostling"))
        ['stop-jostling:table1', 'stop-jostling:table6']
    """
    content = tomllib.loads((files("decone.studies") / "tables" / f"{name}.toml").read_text(encoding="utf-8"))
    study, tables = content["study"], {}
    for table in content["tables"]:
        rows = tuple(PaperRow(**row) for row in table["rows"])
        notes = tuple(content["notes"][note] for note in table["notes"])
        tables[f"{study}:{table['name']}"] = PaperTable(
            study, table["name"], table["title"], content["base"], rows, notes
        )
    return tables


class PaperStudy(Study):
    """Requested rows and seeds of a published table.

    Results are one JSON per (row, seed) under `out`; run folders with their checkpoints lie under `runs`.

    Args:
        table: the published table.
        rows: of it.
        seeds: that are to be present.
        out: folder of results.
        runs: folder of the runs themselves.
        device: by name.
        select: state of a run that counts, "best" or "last".
    """

    def __init__(
        self,
        table: PaperTable,
        rows: Sequence[PaperRow],
        seeds: Sequence[int],
        out: Path,
        runs: Path,
        device: str = "auto",
        select: str = "best",
    ) -> None:
        self.table, self.rows, self.seeds, self.runs, self.device, self.select = (
            table,
            rows,
            seeds,
            runs,
            device,
            select,
        )
        self.by_name = {row.name: row for row in rows}
        self.store = ResultStore(out / table.study, self._read)
        self.page = out / table.study / f"{table.name}.md"

    def steps(self) -> int:
        """Optimiser steps of the runs that are missing."""
        return sum(self._config(key).steps for key in self.missing())

    def run(self, processes: int = 0, watch: Watch | None = None, done: Watch | None = None) -> None:
        """Carries out the runs whose results are missing, and stores each result as soon as it is finished.

        Raises:
            ValueError: a result is damaged or was made otherwise, a folder cannot be written, or what the runs need
                cannot be had; then nothing is written.
        """
        missing = self.missing()
        if not missing:
            return
        study = self.table.study
        keys = {self.runs / study / key.row / f"seed-{key.seed}": key for key in missing}
        jobs = [RunJob(key.title, self._config(key, self.device), folder) for folder, key in keys.items()]
        for folder in (self.store.folder, self.runs):
            require_creatable(folder)
        check([job.config for job in jobs])
        require_writable(self.store.folder)

        def save(job: RunJob, step: int) -> None:
            self.store.save(keys[job.path], read_result(job.path / "result.json").to_dict())
            if done is not None:
                done(job, step)

        run_all(jobs, processes, watch, save)

    def render(self, select: str | None = None) -> StudyTable:
        """The table of the results that are present, the published numbers beside ours."""
        published = {row.label: row.published for row in self.by_name.values()}
        results = {
            label: {seed: by_task[""] for seed, by_task in seeds.items()} for label, seeds in self.results().items()
        }
        return build(self.table.title, results, select or self.select, published, self.table.notes)

    def _config(self, key: CellKey, device: str = "auto") -> RunConfig:
        return self.table.config(self.by_name[key.row], key.seed, device)

    def _read(self, key: CellKey, path: Path) -> dict[str, Any]:
        result = read_result(path)
        if RunConfig.build(result.config).identity() != self._config(key).identity():
            label = self.by_name[key.row].label
            raise ValueError(f"{path} was made with another configuration than {quoted(label)} asks for; remove it")
        return result.to_dict()


EXHIBITS: dict[str, Reproducible] = {**load_tables("stop_jostling"), **definitionemb.TABLES}


class ReproductionResult(DocumentModel):
    """A published table with our results.

    Attributes:
        table: the numbers.
        results: all results by the label of their row.
        page: file that `save` writes the table to.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    table: StudyTable
    results: dict[str, list[dict[str, Any]]]
    page: Path

    def to_dict(self) -> dict[str, Any]:
        """All results by the label of their row."""
        return self.results

    def to_document(self) -> Document:
        """The table as blocks."""
        return table_document(self.table)

    def save(self) -> Path:
        """Writes the table as markdown and gives its file."""
        make_folder(self.page.parent)
        write_text(self.page, markdown.render(self.to_document()))
        return self.page


def reproduce(
    exhibit: str,
    *,
    rows: str | None = None,
    seeds: str | int | Sequence[int] = 3,
    select: str | None = None,
    model: str | None = None,
    tasks: str | None = None,
    deltas: Mapping[str, Path | str] | None = None,
    settings: Mapping[str, Any] | None = None,
    out: Path | str = "results",
    runs: Path | str = "runs",
    device: str = "auto",
    jobs: int = 0,
    show: bool = False,
    progress: Progress | None = None,
) -> ReproductionResult:
    """Runs what is missing of a published table, and gathers all results.

    Args:
        exhibit: one of `EXHIBITS`, e.g. "stop-jostling:table1".
        rows: names separated by commas; None for those of the table.
        seeds: a number of seeds, or the seeds themselves.
        select: state of a run that counts, "best" or "last"; None for the paper's.
        model: preset, folder or hub name of the model that is fine-tuned.
        tasks: names separated by commas of tasks to fine-tune on.
        deltas: file of the delta of a row, in place of our own.
        settings: of the fine-tuning, that differ from the preset.
        out: folder of results, one JSON per run.
        runs: folder of the runs themselves.
        device: auto, cpu, cuda, cuda:N or mps.
        jobs: runs at once; 0 is one per core.
        show: only gather the results that are present; run nothing.
        progress: called with the name of a run, its steps done and all its steps; "all runs" is all of them.

    Raises:
        Stopped: Ctrl-C, SIGTERM or SIGHUP; the same call resumes.
        ValueError: there is no such exhibit, row or setting, a result is damaged, or a run failed.

    Example:
        >>> result = reproduce("stop-jostling:table1", rows="baseline", out="nowhere", show=True)
        >>> result.to_dict(), result.table.rows[0].cells["perplexity"].published
        ({'Baseline': []}, 5.04)
    """
    if exhibit not in EXHIBITS:
        raise ValueError(f"nothing to reproduce under {quoted(exhibit)}; choose one of {', '.join(EXHIBITS)}")
    request = StudyRequest(rows, parse_seeds(seeds), Path(out), Path(runs), device, select)
    files = {row: Path(file) for row, file in (deltas or {}).items()}
    study = EXHIBITS[exhibit].plan(request, FinetuneRequest(model, tasks, files, settings or {}))
    if not show:
        counter = StepCounter(progress, study.steps())
        study.run(jobs, counter.watch, counter.done)
    return ReproductionResult(table=study.render(), results=study.documents(), page=study.page)
