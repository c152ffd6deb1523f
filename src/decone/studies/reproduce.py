"""Entry point of published tables: what is missing is run, then the paper's numbers stand beside ours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from decone.document import markdown
from decone.document.blocks import Document, DocumentModel
from decone.files.atomic import write_text
from decone.files.settings import Progress
from decone.studies import definitionemb
from decone.studies.paper import load_tables
from decone.studies.pool import StepCounter
from decone.studies.store import FinetuneRequest, Reproducible, StudyRequest, parse_seeds
from decone.studies.table import StudyTable
from decone.studies.view import table_document

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
        self.page.parent.mkdir(parents=True, exist_ok=True)
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
        Stopped: Ctrl-C; the same call resumes.
        ValueError: there is no such exhibit, row or setting, a result is damaged, or a run failed.

    Example:
        >>> result = reproduce("stop-jostling:table1", rows="baseline", out="nowhere", show=True)
        >>> result.to_dict(), result.table.rows[0].cells["perplexity"].published
        ({'Baseline': []}, 5.04)
    """
    if exhibit not in EXHIBITS:
        raise ValueError(f"nothing to reproduce under {exhibit!r}; choose one of {', '.join(EXHIBITS)}")
    request = StudyRequest(rows, parse_seeds(seeds), Path(out), Path(runs), device, select)
    files = {row: Path(file) for row, file in (deltas or {}).items()}
    study = EXHIBITS[exhibit].plan(request, FinetuneRequest(model, tasks, files, settings or {}))
    if not show:
        counter = StepCounter(progress, study.steps())
        study.run(jobs, counter.watch, counter.done)
    return ReproductionResult(table=study.render(), results=study.documents(), page=study.page)
