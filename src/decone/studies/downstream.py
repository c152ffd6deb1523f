"""Comparisons of embedding tables after fine-tuning: rows, tasks and seeds, filled in bit by bit."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from decone.files.failure import make_folder
from decone.files.foreign import quoted
from decone.files.settings import explain_mistake, parse_json
from decone.models.find_tables import find_tables
from decone.repair.api import apply_delta, read_delta, repair_with
from decone.repair.delta import model_path
from decone.repair.methods.base import repair_variants
from decone.studies.pool import Stop, Watch, work_off
from decone.studies.store import NO_FINETUNING, CellKey, FinetuneRequest, ResultStore, Study, StudyRequest, select_names
from decone.studies.table import Measure, StudyTable, build_scores
from decone.training.finetuning import FinetuneConfig
from decone.training.machine import provenance, resolve_device
from decone.training.run import ResultModel, require_creatable, require_writable
from decone.training.tasks import tasks as all_tasks

SCHEMA = "decone.downstream/1"
ORIGINAL = "original"
AVERAGE, UNTUNED = "average", "untuned"
DIGITS = 2
_FIXED = {"model": "--model", "task": "--tasks", "row": "--rows", "seed": "--seeds"}
_COMPARED = ("method", "settings", "before")  # tables made alike may differ in rounding between machines


@dataclass(frozen=True)
class Preset:
    """A model with settings that suit it.

    Attributes:
        find: gives its folder on this machine, or its name at the hub.
        settings: that differ from the defaults, for every task.
        tasks: that differ further, by task.
    """

    find: Callable[[], str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def hub_model(name: str) -> Callable[[], str]:
    """Finder of a model that is named as at the hub."""
    return lambda: name


@dataclass(frozen=True)
class Suite:
    """Tasks that models are fine-tuned on in one table.

    Attributes:
        tasks: names of all of them; see `finetuning.tasks`.
        usual: those of the table where the user names none.
        presets: models with settings by name; the first is the default.
        notes: sentences for the reader of the numbers.
    """

    tasks: Sequence[str]
    usual: Sequence[str]
    presets: Mapping[str, Preset]
    notes: Sequence[str] = ()

    def measures(self, tasks: Sequence[str]) -> tuple[Measure, ...]:
        """Columns: the measures of each task, the average over tasks, and measures before fine-tuning."""
        columns = [
            Measure(f"{task}.{key}", heading, True, DIGITS)
            for task in tasks
            for key, heading in all_tasks()[task].headings.items()
        ]
        if len(tasks) > 1:
            columns.append(Measure(AVERAGE, "Average", True, DIGITS))
        untuned = (all_tasks()[task].untuned_heading for task in tasks)
        return (*columns, *(Measure(UNTUNED, heading, True, DIGITS, seeded=False) for heading in untuned if heading))

    def values(self, results: Mapping[str, dict[str, Any]], tasks: Sequence[str]) -> dict[str, float]:
        """Numbers of a row and seed by column: measures after the last epoch, times 100.

        Args:
            results: by task.
            tasks: of the table; there is no average, over tasks each the mean of its measures, while one is missing.
        """
        numbers, means = dict[str, float](), list[float]()
        for task, result in results.items():
            measured = result["epochs"][-1]["measured"]
            scores = {key: 100 * float(measured[key]) for key in all_tasks()[task].headings}
            numbers |= {f"{task}.{key}": score for key, score in scores.items()}
            means.append(sum(scores.values()) / len(scores))
        if results.keys() >= set(tasks):
            numbers[AVERAGE] = sum(means) / len(means)
        for task, result in results.items():
            if all_tasks()[task].untuned_heading is not None and result.get("untuned") is not None:
                numbers[UNTUNED] = 100 * float(result["untuned"])
        return numbers


@dataclass(frozen=True)
class TableRow:
    """A table that is compared.

    Attributes:
        name: on the command line and in file names; that of a variant of a repair, or `ORIGINAL`.
        label: in print.
    """

    name: str
    label: str


class DeltaRecord(ResultModel):
    """Facts about the delta of a row that are recorded with a result."""

    sha256: str
    method: str
    settings: dict[str, Any]
    before: list[str]


class Epoch(ResultModel):
    """Training loss and measures of one epoch, and its seconds."""

    epoch: int
    loss: float
    measured: dict[str, float] = Field(min_length=1)
    seconds: dict[str, float]


class FinetuneResult(ResultModel):
    """Result of one fine-tuning, one JSON file."""

    delta: DeltaRecord | None
    row: str
    task: str
    seed: int
    config: dict[str, Any]
    epochs: list[Epoch]

    @model_validator(mode="before")
    @classmethod
    def _has_the_schema(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("schema") != SCHEMA:
            raise ValueError("not this program's format")
        return content

    @model_validator(mode="after")
    def _is_consistent(self) -> "FinetuneResult":
        if not all(math.isfinite(number) for epoch in self.epochs for number in epoch.measured.values()):
            raise ValueError("a measure is no number")
        if (self.delta is None) != (self.config["row"] == ORIGINAL):
            raise ValueError("its delta does not fit its row")
        return self


def read_finetune_result(path: Path, config: FinetuneConfig) -> dict[str, Any]:
    """Reads a result.

    Args:
        path: of the file.
        config: settings it must have been made with.

    Raises:
        ValueError: it is damaged, something else, or was made with other settings; the message names the mend.
    """
    try:
        content: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        result = FinetuneResult.model_validate(content)
        recorded = type(config).build(result.config)
        if len(result.epochs) != recorded.epochs:
            raise ValueError(f"{len(result.epochs)} of {recorded.epochs} epochs")
    except (OSError, ValueError, KeyError) as error:
        reason = explain_mistake(FinetuneResult, error) if isinstance(error, ValidationError) else str(error)
        raise ValueError(f"{path} is damaged ({reason:.200}); remove it to run it again") from None
    if recorded.identity() != config.identity():
        requested = config.model_dump()
        key = next(key for key, value in recorded.model_dump().items() if requested[key] != value)
        raise ValueError(
            f"{path} was made with {key}={getattr(recorded, key)}, not {requested[key]}; choose another --out, or "
            "remove it"
        )
    return content


@dataclass(frozen=True)
class FinetuneJob:
    """One fine-tuning: everything a process needs of it.

    Attributes:
        name: in messages.
        config: its settings; they name the task.
        model: folder or hub name of the model with its table.
        path: folder of its log.
        steps: optimiser steps.
        device: by name.
        facts: further fields of its result.
    """

    name: str
    config: FinetuneConfig
    model: str
    path: Path
    steps: int
    device: str
    facts: Mapping[str, Any]


def fine_tune(job: FinetuneJob, threads: int, stop: Stop) -> dict[str, Any]:
    """Carries out one fine-tuning; gives the content of its result."""
    began = time.perf_counter()
    outcome = all_tasks()[job.config.task].run(job.config, job.model, job.path, job.device, stop)
    return {
        "schema": SCHEMA,
        **job.facts,
        "row": job.config.row,
        "task": job.config.task,
        "seed": job.config.seed,
        "config": job.config.model_dump(),
        "device": job.device,
        "threads": threads,
        **outcome,
        "seconds": time.perf_counter() - began,
        **provenance(),
    }


@dataclass(frozen=True)
class DownstreamTable:
    """A comparison of tables after fine-tuning.

    Attributes:
        study: of which it is a table.
        name: of the table.
        title: heading.
        suite: tasks and models.
        rows: tables compared; the first is the original.
        usual: names of the rows where the user names none.
        notes: sentences for its reader.
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

    def plan(self, request: StudyRequest, finetuning: FinetuneRequest = NO_FINETUNING) -> "DownstreamStudy":
        """The study of a request.

        Raises:
            ValueError: a row, task or setting does not exist, or is not free.
        """
        owner = f"{self.study}:{self.name}"
        if request.select not in (None, "last"):
            raise ValueError(f"{owner} counts the last epoch and chooses none; leave --select {request.select} out")
        names = list(self.usual) if request.rows is None else select_names(request.rows, self.row_names, "row", owner)
        tasks = list(self.suite.usual)
        if finetuning.tasks is not None:
            selection = select_names(finetuning.tasks, self.suite.tasks, "task", owner)
            tasks = [task for task in self.suite.tasks if task in selection]
        for name in finetuning.deltas:
            if name == ORIGINAL or name not in names:
                repaired = ", ".join(row for row in names if row != ORIGINAL) or "none"
                raise ValueError(f"--delta names the row {quoted(name)}; rows of this run that take one: {repaired}")
        for key, option in _FIXED.items():
            if key in finetuning.settings:
                raise ValueError(f"--set {key} is not free here; use {option}")
        # The first row is what the others are compared with, in whatever order they were named.
        rows = [row for row in self.rows if row.name in names]
        study = DownstreamStudy(self, rows, tasks, request, finetuning)
        study.config(CellKey(rows[0].name, 0, tasks[0]))  # refuses a setting that cannot be
        return study


class DownstreamStudy(Study):
    """Requested rows, tasks and seeds of a comparison of tables.

    Results are one JSON per (row, task, seed); under the folder of runs lie deltas, repaired models and logs.
    Fine-tuned weights are not stored.

    Args:
        table: the comparison.
        rows: tables, the first is what the others are compared with.
        tasks: of its suite.
        request: seeds, folders, device.
        finetuning: model, deltas, settings.
    """

    def __init__(
        self,
        table: DownstreamTable,
        rows: Sequence[TableRow],
        tasks: Sequence[str],
        request: StudyRequest,
        finetuning: FinetuneRequest,
    ) -> None:
        self.table, self.suite, self.rows, self.tasks, self.seeds = table, table.suite, rows, tasks, request.seeds
        self.device, self.finetuning = request.device, finetuning
        self.model = finetuning.model or next(iter(self.suite.presets))
        path = Path(table.study) / table.name / self.label
        self.store = ResultStore(request.out / path, lambda key, file: read_finetune_result(file, self.config(key)))
        self.runs = request.runs / path
        self.page = self.store.folder.with_name(f"{self.label}.md")

    @property
    def label(self) -> str:
        """The model as a folder name; its path on this machine is left out."""
        named = self.model in self.suite.presets or not Path(self.model).exists()
        return self.model.replace("/", "--") if named else Path(self.model).resolve().name

    @property
    def preset(self) -> Preset:
        """The model with its settings; one that is no preset has the defaults."""
        return self.suite.presets.get(self.model) or Preset(hub_model(self.model))

    def config(self, key: CellKey) -> FinetuneConfig:
        """Settings of one fine-tuning."""
        settings = {**self.preset.settings, **self.preset.tasks.get(key.task, {}), **self.finetuning.settings}
        return all_tasks()[key.task].build({**settings, "model": self.label, "row": key.row, "seed": key.seed})

    def steps(self) -> int:
        """Optimiser steps that are missing; ValueError where the data of a task cannot be had."""
        missing = self.missing()
        once = self._steps_by_task(missing)
        return sum(once[key.task] for key in missing)

    def run(self, processes: int = 0, watch: Watch | None = None, done: Watch | None = None) -> None:
        """Carries out the fine-tunings whose results are missing, and stores each result as soon as it is finished.

        Raises:
            ValueError: a result is damaged or was made otherwise, a delta cannot be made or is not of this model, or
                something that the runs need cannot be had.
        """
        missing = self.missing()
        if not missing:
            return
        require_creatable(self.store.folder)
        require_creatable(self.runs)
        device = str(resolve_device(self.device))
        once = self._steps_by_task(missing)
        models = {name: self._repaired_model(name) for name in dict.fromkeys(key.row for key in missing)}
        self._require_same_deltas({name: delta for name, (_, delta) in models.items()})
        keys, jobs = dict[str, CellKey](), list[FinetuneJob]()
        for key in missing:
            model, delta = models[key.row]
            facts = {"study": self.table.study, "table": self.table.name, "delta": delta}
            folder = self.runs / "logs" / key.stem
            jobs.append(FinetuneJob(key.title, self.config(key), model, folder, once[key.task], device, facts))
            require_writable(folder)
            keys[key.title] = key
        require_writable(self.store.folder)

        def save(job: FinetuneJob, result: dict[str, Any]) -> None:
            self.store.save(keys[job.name], result)
            if done is not None:
                done(job, job.steps)

        work_off(jobs, fine_tune, save, processes, watch)

    def render(self) -> StudyTable:
        """The table of the results that are present."""
        numbers = {
            label: {seed: self.suite.values(by_task, self.tasks) for seed, by_task in seeds.items()}
            for label, seeds in self.results().items()
        }
        return build_scores(
            f"{self.table.title}: {self.label}",
            "development sets",
            numbers,
            self.suite.measures(self.tasks),
            [*self.table.notes, *self.suite.notes],
            "none found",
        )

    def _steps_by_task(self, keys: Sequence[CellKey]) -> dict[str, int]:
        """Optimiser steps of one fine-tuning on each task."""
        names, row = dict.fromkeys(key.task for key in keys), self.rows[0].name
        return {task: all_tasks()[task].steps(self.config(CellKey(row, 0, task))) for task in names}

    def _require_same_deltas(self, deltas: Mapping[str, dict[str, Any] | None]) -> None:
        """Refuses results of these rows that were made with other deltas than those applied now."""
        for row, delta in deltas.items():
            for seed, by_task in self.store.results(row, self.tasks).items() if delta else ():
                for task, result in by_task.items():
                    for fact in _COMPARED:
                        if delta is not None and result["delta"][fact] != delta[fact]:
                            raise ValueError(
                                f"{self.store.path(CellKey(row, seed, task))} was made with another delta ({fact} "
                                "differs); give the same delta with --delta, choose another --out, or remove it"
                            )

    def _repaired_model(self, row: str) -> tuple[str, dict[str, Any] | None]:
        """The model of a row, repaired if need be, and the facts that are recorded about its delta."""
        model = self.preset.find()
        if row == ORIGINAL:
            return model, None
        folder = self.runs / "tables"
        delta = self.finetuning.deltas.get(row)
        if delta is None:
            delta = folder / f"{row}.safetensors"
            make_delta(row, model, delta)
        facts = read_delta(delta).facts
        with delta.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return str(repaired_model(model, delta, folder)), {
            "sha256": digest,
            "method": facts.method,
            "settings": facts.settings,
            "decone": facts.decone,
            "before": [table.before for table in facts.tables],
            "after": [table.after for table in facts.tables],
        }


def make_delta(row: str, model: str, out: Path) -> None:
    """Makes the delta of a row, unless it is there.

    Args:
        row: name of a variant, one of `repair_variants`.
        model: folder or hub name.
        out: the delta to write, a .safetensors file.

    Raises:
        ValueError: it cannot be made; nothing is left behind.
    """
    if out.exists():
        return
    method, variant = repair_variants()[row]
    try:
        repair_with(method, model, out=out, **variant.settings())
    except ValueError as error:
        raise ValueError(
            f"{error}; or make a delta with decone repair {method}, and give it: --delta {row}=FILE.safetensors"
        ) from None


def repaired_model(model: str, delta: Path, folder: Path) -> Path:
    """Applies a delta to a model, in a folder named by the digest of its table; written unless it is there.

    Other files than those of the table are hard links where both lie on one disk, and copies elsewhere.

    Raises:
        ValueError: as `apply_delta`.
    """
    facts = read_delta(delta).facts
    out = folder / f"{facts.method}-{facts.tables[0].after[:16]}"
    if not out.is_dir():
        make_folder(folder)
        source = Path(model) if Path(model).exists() else model_path(find_tables(model))
        apply_delta(model, delta, out, link=source.stat().st_dev == folder.stat().st_dev)
    return out
