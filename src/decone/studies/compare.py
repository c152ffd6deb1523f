"""Methods against each other at equal budget, over seeds: the plan, the runs, the table."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decone.data import corpora
from decone.data.windows import split
from decone.files.atomic import write_text
from decone.studies.exhibits import Exhibit, exhibit
from decone.studies.pool import Job, Watch, run_all
from decone.studies.table import Results, Table, build
from decone.training import inputs
from decone.training.config import RunConfig
from decone.training.run import Run, read_result, vacant, writable
from decone.vocab.counts import count_tokens

PLAN = "compare.json"
RUN_ONLY = {"method", "seed", "machine"}  # what may differ between runs of one comparison


def methods(text: str) -> list[str]:
    """Splits a list of methods at its commas; `key=value` pieces belong to the method before them.

    Raises:
        ValueError: the list is empty or names a method twice.

    Example:
        >>> methods("mle,threshold:margin=1,temperature=0.46+row-adamw")
        ['mle', 'threshold:margin=1,temperature=0.46+row-adamw']
    """
    found: list[str] = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        if re.match(r"\w+\s*=", piece) and found:
            found[-1] += f",{piece}"
        else:
            found.append(piece)
    if not found:
        raise ValueError("--methods is empty; write e.g. mle,threshold:margin=1")
    for method in found:
        if found.count(method) > 1:
            raise ValueError(f"--methods names {method!r} twice; keep one")
    return found


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

    def jobs(self) -> list[Job]:
        """All runs; seeds go outermost, so that a partly finished comparison is paired."""
        jobs = []
        for seed in self.seeds:
            for method in self.methods:
                config = RunConfig.build({**self.config.model_dump(), "method": method, "seed": seed})
                jobs.append(Job(f"{method} seed {seed}", config, self.folder(method, seed)))
        return jobs

    def folder(self, method: str, seed: int) -> Path:
        """The folder of one run."""
        return self.out / "runs" / slug(method) / f"seed-{seed}"

    def claim(self) -> None:
        """Takes the output folder, or finds it taken by this very comparison (more methods or seeds may be added).

        Raises:
            ValueError: the folder holds something else, or what the runs need is not here; then nothing is written.
        """
        shared = json.loads(json.dumps(self.config.model_dump(exclude=RUN_ONLY)))
        plan = _read_plan(self.out) if (self.out / PLAN).exists() else None
        if plan is None:
            vacant(self.out)
        elif plan["config"] != shared:
            raise ValueError(f"{self.out} holds a comparison with other settings; choose another --out")
        self.jobs()  # a method or seed that cannot be is refused here
        digest = inputs.check(self.config).corpus.sha256
        if plan is not None and plan.get("corpus", digest) != digest:
            raise ValueError(
                f"{self.config.corpus.name} has changed since the comparison in {self.out} began; choose another --out"
            )
        writable(self.out)
        content = {"config": shared, "corpus": digest, "methods": list(self.methods), "seeds": list(self.seeds)}
        write_text(self.out / PLAN, json.dumps(content, indent=1) + "\n")

    def run(self, processes: int = 0, watch: Watch | None = None, done: Watch | None = None) -> Results:
        """Carries out what is missing and gathers all results; see `pool.run_all`."""
        found = run_all(self.jobs(), processes, watch, done)
        results: dict[str, dict[int, dict[str, Any]]] = {method: {} for method in self.methods}
        for method in self.methods:
            for seed in self.seeds:
                result = found[self.folder(method, seed)]
                results[method][seed] = result
                write_text(self.result_path(method, seed), json.dumps(result, indent=1) + "\n")
        return results

    def result_path(self, method: str, seed: int) -> Path:
        """Where the study keeps one run's result."""
        path = self.out / "results" / f"{slug(method)}-seed-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def table(self, results: Results) -> Table:
        """The comparison's table."""
        name = self.config.corpus.name
        name = name if name == corpora.DEFAULT or name in corpora.PUBLISHED else Path(name).name
        title = f"{len(self.methods)} methods, {len(self.seeds)} seeds, {self.config.steps} steps on {name}"
        return build(title, results, self.config.evaluation.select)

    def exhibits(self) -> list[Exhibit]:
        """The first finished seed's model of every method."""
        chosen = []
        for method in self.methods:
            folders = [self.folder(method, seed) for seed in self.seeds]
            finished = [folder for folder in folders if (folder / "result.json").exists()]
            chosen += [(method, folder) for folder in finished[:1]]
        return exhibits(chosen)


def reopen(folder: Path) -> tuple[Comparison, Results]:
    """A comparison from its folder with the results that are there.

    Raises:
        ValueError: the folder holds no comparison, or no run of it is finished.
    """
    plan = _read_plan(folder)
    comparison = Comparison(RunConfig.build(plan["config"]), plan["methods"], plan["seeds"], folder)
    results: dict[str, dict[int, dict[str, Any]]] = {method: {} for method in comparison.methods}
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
        plan = json.loads(path.read_text(encoding="utf-8"))
        RunConfig.build(plan["config"])
        if not plan["methods"] or not all(isinstance(method, str) for method in plan["methods"]):
            raise ValueError("no methods")
        if not plan["seeds"] or not all(isinstance(seed, int) for seed in plan["seeds"]):
            raise ValueError("no seeds")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); choose another --out") from None
    found: dict[str, Any] = plan
    return found


def exhibits(runs: Sequence[tuple[str, Path]]) -> list[Exhibit]:
    """Loads runs with their token counts for a page; each is a label and a folder."""
    found = []
    for label, folder in runs:
        run = Run.open(folder)
        tokenizer = run.tokenizer()
        assert tokenizer is not None  # a finished run has one
        ids = tokenizer.encode(corpora.load(run.config.corpus.name).text)
        train, _ = split(ids, run.config.corpus.validation, run.config.model.context)
        found.append(exhibit(label, run, count_tokens(train, tokenizer.size).tolist()))
    return found
