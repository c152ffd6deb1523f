"""Fine-tunings of one model with several tables: rows, tasks and seeds, filled in bit by bit."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decone.files.atomic import write_text
from decone.repair.delta import read_delta
from decone.studies import scores
from decone.studies.deltas import make_delta, repaired_model
from decone.studies.downstream_result import DOWNSTREAM, read_result, require_same
from decone.studies.pool import Stop, Watch, work_off
from decone.studies.study import Wish
from decone.studies.suite import Preset, Suite, found_on_hub
from decone.studies.table import Table
from decone.training.finetuning.loop import FinetuneConfig
from decone.training.machine import provenance, resolve_device
from decone.training.run import makeable, writable

ORIGINAL = "original"


@dataclass(frozen=True)
class TableRow:
    """A table that is compared: its name on the command line, and its label in print."""

    name: str
    label: str


@dataclass(frozen=True)
class Finetuning:
    """One fine-tuning: everything a process needs of it.

    Attributes:
        name: in messages.
        suite: knows how it is done.
        config: its settings.
        model: folder or hub name of the model with its table.
        path: folder of its log.
        steps: optimiser steps.
        device: by name.
        facts: what its result says besides.
    """

    name: str
    suite: Suite
    config: FinetuneConfig
    model: str
    path: Path
    steps: int
    device: str
    facts: Mapping[str, Any]


def fine_tune(piece: Finetuning, threads: int, stop: Stop) -> dict[str, Any]:
    """Carries out one fine-tuning; what it gives is the content of its result."""
    began = time.perf_counter()
    made = piece.suite.work(piece.config, piece.model, piece.path, piece.device, stop)
    return {
        "schema": DOWNSTREAM,
        **piece.facts,
        "row": piece.config.row,
        "task": piece.config.task,
        "seed": piece.config.seed,
        "config": piece.config.model_dump(),
        "device": piece.device,
        "threads": threads,
        **made,
        "seconds": time.perf_counter() - began,
        **provenance(),
    }


@dataclass(frozen=True)
class Downstream:
    """A comparison with the rows, tasks and seeds wanted of it, and where its results and runs are kept.

    Results are one JSON per (row, task, seed); under the folder of runs lie deltas, repaired models and logs.
    Fine-tuned weights are not kept.

    Attributes:
        study: the study.
        name: the table in it.
        title: heading.
        suite: what the model is fine-tuned on.
        model: preset, folder or hub name.
        rows: tables, the first is what the others are compared with.
        tasks: of the suite.
        wish: seeds, folders, device, deltas, settings.
        notes: what to know when reading the table.
    """

    study: str
    name: str
    title: str
    suite: Suite
    model: str
    rows: Sequence[TableRow]
    tasks: Sequence[str]
    wish: Wish
    notes: Sequence[str] = ()

    @property
    def label(self) -> str:
        """The model as a folder name; where it lies on this machine is left out."""
        known = self.model in self.suite.presets or not Path(self.model).exists()
        return self.model.replace("/", "--") if known else Path(self.model).resolve().name

    @property
    def preset(self) -> Preset:
        """The model with its settings; one that is no preset has the defaults."""
        return self.suite.presets.get(self.model) or Preset(found_on_hub(self.model))

    @property
    def home(self) -> Path:
        """Folder of the results."""
        return self.wish.out / self.study / self.name / self.label

    @property
    def place(self) -> Path:
        """Folder of deltas, repaired models and logs."""
        return self.wish.runs / self.study / self.name / self.label

    @property
    def page(self) -> Path:
        """Where the table is written."""
        return self.home.parent / f"{self.label}.md"

    def path(self, row: TableRow, task: str, seed: int) -> Path:
        """Where a result is kept."""
        return self.home / f"{row.name}-{task}-seed-{seed}.json"

    def config(self, row: TableRow, task: str, seed: int) -> FinetuneConfig:
        """Settings of one fine-tuning."""
        settings = {**self.preset.settings, **self.preset.tasks.get(task, {}), **self.wish.settings}
        return self.suite.build({**settings, "model": self.label, "task": task, "row": row.name, "seed": seed})

    def missing(self) -> list[tuple[TableRow, str, int]]:
        """What has no result; seeds go outermost and rows innermost, so that a partly filled table is paired."""
        return [
            (row, task, seed)
            for seed in self.wish.seeds
            for task in self.tasks
            for row in self.rows
            if self._read(row, task, seed) is None
        ]

    def steps(self) -> int:
        """Optimiser steps that are missing; ValueError where the data of a task cannot be had."""
        missing = [task for _, task, _ in self.missing()]
        once = self._once(missing)
        return sum(once[task] for task in missing)

    def run(self, processes: int = 0, watch: Watch | None = None, done: Watch | None = None) -> None:
        """Carries out the fine-tunings whose results are missing, and keeps each result as soon as it is there.

        Raises:
            ValueError: a result is damaged or was made otherwise, a delta cannot be made or is not of this model, or
                what the runs need is not here.
        """
        missing = self.missing()
        if not missing:
            return
        makeable(self.home)
        makeable(self.place)
        device = str(resolve_device(self.wish.device))
        once = self._once([task for _, task, _ in missing])
        tables = {row.name: self._table(row) for row in dict.fromkeys(row for row, _, _ in missing)}
        self._require_same({name: facts for name, (_, facts) in tables.items()})
        pieces, places = list[Finetuning](), dict[str, Path]()
        for row, task, seed in missing:
            model, delta = tables[row.name]
            piece = Finetuning(
                name=f"{row.name} {task} seed {seed}",
                suite=self.suite,
                config=self.config(row, task, seed),
                model=model,
                path=self.place / "logs" / f"{row.name}-{task}-seed-{seed}",
                steps=once[task],
                device=device,
                facts={"study": self.study, "table": self.name, "delta": delta},
            )
            writable(piece.path)
            pieces.append(piece)
            places[piece.name] = self.path(row, task, seed)
        writable(self.home)

        def keep(piece: Finetuning, result: dict[str, Any]) -> None:
            write_text(places[piece.name], json.dumps(result, indent=1) + "\n")
            if done is not None:
                done(piece, piece.steps)

        work_off(pieces, fine_tune, keep, processes, watch)

    def results(self) -> dict[str, dict[int, dict[str, dict[str, Any]]]]:
        """All results that are there of the rows and tasks wanted, whatever their seed: by label, seed and task."""
        found = dict[str, dict[int, dict[str, dict[str, Any]]]]()
        for row in self.rows:
            found[row.label] = {}
            for seed in self._seeds(row):
                there = {task: self._read(row, task, seed) for task in self.tasks}
                found[row.label][seed] = {task: result for task, result in there.items() if result is not None}
        return found

    def documents(self) -> dict[str, list[dict[str, Any]]]:
        """All results that are there, by the label of their row."""
        return {
            label: [result for tasks in seeds.values() for result in tasks.values()]
            for label, seeds in self.results().items()
        }

    def render(self) -> Table:
        """The table of what is there."""
        numbers = {
            label: {seed: self.suite.values(there, self.tasks) for seed, there in seeds.items()}
            for label, seeds in self.results().items()
        }
        notes = [*self.notes, *self.suite.notes]
        columns = self.suite.measures(self.tasks)
        return scores.build(f"{self.title}: {self.label}", "development sets", numbers, columns, notes, "none found")

    def _once(self, tasks: Sequence[str]) -> dict[str, int]:
        """Optimiser steps of one fine-tuning on each task."""
        return {task: self.suite.steps(self.config(self.rows[0], task, 0)) for task in dict.fromkeys(tasks)}

    def _seeds(self, row: TableRow) -> list[int]:
        """Seeds of which a row has a result of a task wanted."""
        found = set[int]()
        for task in self.tasks:
            for path in self.home.glob(f"{row.name}-{task}-seed-*.json"):
                seed = path.stem.removeprefix(f"{row.name}-{task}-seed-")
                found |= {int(seed)} if seed.isdigit() else set()
        return sorted(found)

    def _read(self, row: TableRow, task: str, seed: int) -> dict[str, Any] | None:
        path = self.path(row, task, seed)
        return read_result(path, self.config(row, task, seed)) if path.exists() else None

    def _require_same(self, deltas: Mapping[str, dict[str, Any] | None]) -> None:
        """Refuses results of these rows that were made with other deltas."""
        for row in self.rows:
            for task in self.tasks if row.name in deltas else ():
                for seed in self._seeds(row):
                    result = self._read(row, task, seed)
                    if result is not None:
                        require_same(result, deltas[row.name], self.path(row, task, seed))

    def _table(self, row: TableRow) -> tuple[str, dict[str, Any] | None]:
        """The model of a row, repaired if need be, and what is recorded of its delta."""
        model = self.preset.find()
        if row.name == ORIGINAL:
            return model, None
        given = self.wish.deltas.get(row.name)
        delta = given or self.place / "tables" / f"{row.name}.safetensors"
        if given is None:
            make_delta(row.name, model, delta)
        facts = read_delta(delta).facts
        with delta.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return str(repaired_model(model, delta, self.place / "tables")), {
            "sha256": digest,
            "method": facts.method,
            "settings": facts.settings,
            "decone": facts.decone,
            "before": [table.before for table in facts.tables],
            "after": [table.after for table in facts.tables],
        }
