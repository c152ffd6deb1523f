"""What the commands of `decone repair` have in common: where a delta may go, what is measured, what is told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from decone.cli import repair_shown
from decone.cli.console import out, print_json
from decone.frequencies import token_texts
from decone.models.tables import ModelTables
from decone.repair.delta import Change, vacant, write_delta
from decone.repair.measure import measure, warnings
from decone.repair.result import REPAIR, Report


@contextmanager
def nothing_written() -> Iterator[None]:
    """Says what Ctrl-C means here: a repair is written whole at its end, so there is nothing to go on from."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; nothing was written, and the same command begins anew") from None


def require_place(delta: Path | None, model_tables: ModelTables, dry_run: bool) -> None:
    """Refuses early what could not be written late."""
    if delta is None and not dry_run:
        raise ValueError("say where the delta goes, --out NAME.safetensors, or measure only with --dry-run")
    if delta is not None:
        vacant(delta, model_tables)


def finish(
    method: str,
    model_tables: ModelTables,
    changes: list[Change],
    delta: Path | None,
    settings: dict[str, Any],
    found: dict[str, Any],
    notes: list[str],
    tokens: int,
    seed: int,
    dry_run: bool,
    as_json: bool,
    progress: Callable[[str, int, int], None],
) -> None:
    """Measures what a method made, writes the delta unless it is a dry run, and tells both."""
    texts, tables = token_texts(model_tables), []
    for change in changes:
        progress(f"geometry of the {change.target.role} table", 0, 1)
        tables.append(measure(change, texts, tokens, seed))
    said = [*model_tables.notes, *notes, *(sentence for table in tables for sentence in warnings(table))]
    if not dry_run and delta is not None:
        progress("writing", 0, 1)
        write_delta(delta, model_tables, method, settings, changes, found, said)
    report = Report(
        schema=REPAIR,
        model=model_tables.name,
        method=method,
        settings=settings,
        found=found,
        tables=tables,
        notes=said,
        delta=None if dry_run else str(delta),
        bytes=None if dry_run or delta is None else delta.stat().st_size,
    )
    tell(report, repair_shown.report(report), as_json)


def tell(document: BaseModel, shown: Any, as_json: bool) -> None:
    """Prints a result, as data or for eyes."""
    if as_json:
        print_json(document.model_dump(mode="json", by_alias=True))
    else:
        out.print(shown)
