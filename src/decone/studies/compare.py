"""Methods against each other at equal budget, over seeds: the plan, the runs, the table, the page."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from decone.data import corpora
from decone.document import figures, html, markdown
from decone.document.blocks import Document, DocumentModel
from decone.files.atomic import write_text
from decone.files.failure import folders_above, write_failures
from decone.files.foreign import quoted
from decone.files.lock import lock
from decone.files.settings import Progress, parse_json
from decone.studies.exhibits import ModelExhibit, load_exhibits
from decone.studies.pool import RunJob, StepCounter, Watch, resumable, run_all
from decone.studies.store import parse_seeds
from decone.studies.table import Results, StudyTable, build
from decone.studies.view import comparison_document
from decone.training import inputs
from decone.training.config import RunConfig
from decone.training.machine import provenance
from decone.training.run import LOCKS, read_result, require_unclaimed

PLAN = "compare.json"
RUN_ONLY = {"method", "seed", "machine"}  # keys that may differ between runs of one comparison
METHODS = "mle,threshold:margin=1,threshold:margin=1+row-adamw"
STEPS = 1000  # where neither the caller nor a file says otherwise
RunContents = dict[str, dict[int, dict[str, Any]]]  # content of `result.json` by method and seed


class ComparisonResult(DocumentModel):
    """A comparison with the results of its runs.

    Attributes:
        plan: configuration, methods, seeds, folder.
        results: content of `result.json` by method and seed.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    plan: "Comparison"
    results: RunContents

    @property
    def table(self) -> StudyTable:
        """Means with intervals, differences paired by seed."""
        return self.plan.table(self.results)

    def to_dict(self) -> dict[str, Any]:
        """Contents of `result.json` by method, in order of the seeds."""
        return {method: list(runs.values()) for method, runs in self.results.items()}

    def to_document(self) -> Document:
        """Table, plots and samples as blocks; loads a model of every method."""
        return self._document

    def save(self) -> Path:
        """Writes `table.md` and `report.html` into the folder of the comparison; gives the latter."""
        write_text(self.plan.out / "table.md", markdown.render(self._document))
        return html.save(self.plan.out / "report.html", self._document)

    @cached_property
    def _document(self) -> Document:
        return comparison_document(self.table, self.results, self.plan.exhibits(), provenance())


def compare(
    methods: str | Sequence[str] = METHODS,
    *,
    corpus: str | None = None,
    seeds: str | int | Sequence[int] = 3,
    steps: int | None = None,
    config: RunConfig | Mapping[str, Any] | Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    out: Path | str = "runs/compare",
    device: str | None = None,
    jobs: int = 0,
    progress: Progress | None = None,
) -> ComparisonResult:
    """Compares methods over seeds; the first method is the one the others are compared with.

    Runs that are finished are only read; the same call again continues after a stop.

    Args:
        methods: objective[:key=value,...][+optimiser], a list or separated by commas.
        corpus: default, one of `data.corpora.PUBLISHED`, or a UTF-8 text file; None for that of the configuration.
        seeds: a number of seeds, or the seeds themselves.
        steps: optimiser steps of every run; None for those of the configuration, or 1,000 without one.
        config: configuration that all runs share, its values, or a TOML file of it.
        settings: values by dotted key that replace those of the configuration.
        out: folder of the comparison; `table.md` and `report.html` are written into it.
        device: auto, cpu, cuda, cuda:N or mps; None for that of the configuration.
        jobs: runs at once; 0 is one per core, or one where a CUDA device is shared.
        progress: called with the name of a run, its steps done and all its steps; "all runs" is all of them.

    Raises:
        Stopped: Ctrl-C, SIGTERM or SIGHUP; the same call resumes.
        ValueError: the folder holds something else, a method or setting does not exist, or a run failed.
    """
    options = {"corpus.name": corpus, "steps": steps, "machine.device": device}
    overrides = {key: value for key, value in options.items() if value is not None} | dict(settings or {})
    shared = RunConfig.resolve({"steps": STEPS} if config is None else config, overrides)
    names = split_methods(methods) if isinstance(methods, str) else list(methods)
    plan = Comparison(shared, names, parse_seeds(seeds), Path(out))
    figures.graph_objects()  # hours of training must not end in a missing package
    with resumable(), plan.lock():
        counter = StepCounter(progress, shared.steps * len(plan.jobs()))
        result = ComparisonResult(plan=plan, results=plan.run(jobs, counter.watch, counter.done))
        result.save()
    return result


def draw_report(folder: Path | str) -> ComparisonResult:
    """Draws `table.md` and `report.html` of a comparison again, from the runs that are finished.

    Raises:
        ValueError: the folder holds no comparison, or no run of it is finished.
    """
    plan, results = reopen(Path(folder))
    result = ComparisonResult(plan=plan, results=results)
    result.save()
    return result


def split_methods(text: str) -> list[str]:
    """Splits a list of methods at its commas; `key=value` pieces belong to the method before them.

    Raises:
        ValueError: the list is empty or names a method twice.

    Example:
        >>> split_methods("mle,threshold:margin=1,temperature=0.46+row-adamw")
        ['mle', 'threshold:margin=1,temperature=0.46+row-adamw']
    """
    methods: list[str] = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        if re.match(r"\w+\s*=", piece) and methods:
            methods[-1] += f",{piece}"
        else:
            methods.append(piece)
    if not methods:
        raise ValueError("--methods is empty; write e.g. mle,threshold:margin=1")
    for method in methods:
        if methods.count(method) > 1:
            raise ValueError(f"--methods names {quoted(method)} twice; keep one")
    return methods


def slug(method: str) -> str:
    """A method as a folder name.

    Example:
        >>> slug("threshold:margin=1,temperature=0.46")
        'threshold-margin=1-temperature=0.46'
    """
    return re.sub(r"[^A-Za-z0-9.=+_-]", "-", method)


@dataclass(frozen=True)
class Comparison:
    """A plan: which configuration, with which methods and seeds, under which folder."""

    config: RunConfig
    methods: Sequence[str]
    seeds: Sequence[int]
    out: Path

    def jobs(self) -> list[RunJob]:
        """All runs; seeds go outermost, so that a partly finished comparison is paired."""
        jobs = []
        for seed in self.seeds:
            for method in self.methods:
                config = RunConfig.build({**self.config.model_dump(), "method": method, "seed": seed})
                jobs.append(RunJob(f"{method} seed {seed}", config, self.folder(method, seed)))
        return jobs

    def folder(self, method: str, seed: int) -> Path:
        """The folder of one run."""
        return self.out / "runs" / slug(method) / f"seed-{seed}"

    def claim(self) -> None:
        """Claims the output folder; ValueError as `lock`."""
        with self.lock():
            pass

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps the output folder for this process, and writes the plan into it.

        The folder may hold this very comparison already; more methods or seeds may be added.

        Raises:
            ValueError: the folder holds something else, another process has it, or what the runs need cannot be had;
                then nothing is written.
        """
        shared = json.loads(json.dumps(self.config.model_dump(exclude=RUN_ONLY)))
        plan = _read_plan(self.out) if (self.out / PLAN).exists() else None
        if plan is None:
            require_unclaimed(self.out)
        elif plan["config"] != shared:
            raise ValueError(f"{self.out} holds a comparison with other settings; choose another --out")
        self.jobs()  # a method or seed that cannot be is refused here
        digest = inputs.check(self.config).corpus.sha256
        if plan is not None and plan.get("corpus", digest) != digest:
            raise ValueError(
                f"{self.config.corpus.name} has changed since the comparison in {self.out} began; choose another --out"
            )
        content = {"config": shared, "corpus": digest, "methods": list(self.methods), "seeds": list(self.seeds)}
        subject = f"the comparison in {self.out} is under way"
        with folders_above(self.out / PLAN), lock(self.out / LOCKS[1], subject, "choose another --out"):
            write_text(self.out / PLAN, json.dumps(content, indent=1) + "\n")
            yield

    def run(
        self, processes: int = 0, watch: Watch | None = None, done: Watch | None = None
    ) -> dict[str, dict[int, dict[str, Any]]]:
        """Carries out what is missing and gathers all results; see `pool.run_all`."""
        runs = run_all(self.jobs(), processes, watch, done)
        results: RunContents = {method: {} for method in self.methods}
        for method in self.methods:
            for seed in self.seeds:
                result = runs[self.folder(method, seed)]
                results[method][seed] = result
                write_text(self.result_path(method, seed), json.dumps(result, indent=1) + "\n")
        return results

    def result_path(self, method: str, seed: int) -> Path:
        """File of one run's result in the folder of the comparison."""
        path = self.out / "results" / f"{slug(method)}-seed-{seed}.json"
        with write_failures(path):
            path.parent.mkdir(exist_ok=True)  # only this one: the folder of the comparison may have been removed
        return path

    def table(self, results: Results) -> StudyTable:
        """The comparison's table."""
        name = self.config.corpus.name
        name = name if name == corpora.DEFAULT or name in corpora.PUBLISHED else Path(name).name
        title = f"{len(self.methods)} methods, {len(self.seeds)} seeds, {self.config.steps} steps on {name}"
        return build(title, results, self.config.evaluation.select)

    def exhibits(self) -> list[ModelExhibit]:
        """The first finished seed's model of every method."""
        selection = []
        for method in self.methods:
            folders = [self.folder(method, seed) for seed in self.seeds]
            finished = [folder for folder in folders if (folder / "result.json").exists()]
            selection += [(method, folder) for folder in finished[:1]]
        return load_exhibits(selection)


def reopen(folder: Path) -> tuple[Comparison, RunContents]:
    """A comparison from its folder with the results that are present.

    Raises:
        ValueError: the folder holds no comparison, or no run of it is finished.
    """
    plan = _read_plan(folder)
    comparison = Comparison(RunConfig.build(plan["config"]), plan["methods"], plan["seeds"], folder)
    results: RunContents = {method: {} for method in comparison.methods}
    for method in comparison.methods:
        for seed in comparison.seeds:
            path = comparison.folder(method, seed) / "result.json"
            if path.exists():
                results[method][seed] = read_result(path).to_dict()
    if not any(results.values()):
        raise ValueError(f"no run of {folder} is finished; go on with decone compare --out {folder}")
    return comparison, results


def _read_plan(folder: Path) -> dict[str, Any]:
    path = folder / PLAN
    if not path.is_file():
        raise ValueError(f"{folder} holds no comparison ({PLAN} is missing); name the --out of decone compare")
    try:
        plan = parse_json(path.read_text(encoding="utf-8"))
        RunConfig.build(plan["config"])
        if not plan["methods"] or not all(isinstance(method, str) for method in plan["methods"]):
            raise ValueError("no methods")
        if not plan["seeds"] or not all(isinstance(seed, int) for seed in plan["seeds"]):
            raise ValueError("no seeds")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); compare again in a new folder") from None
    content: dict[str, Any] = plan
    return content


ComparisonResult.model_rebuild()
