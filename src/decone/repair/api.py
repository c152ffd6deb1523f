"""Repairs of a table as functions: make a delta, apply it, undo it; and the coverage of a lexicon.

`decone repair` and `decone lexicon` parse their options, call these, and print the result.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decone.files.atomic import write_text
from decone.files.settings import Progress
from decone.frequencies import read_counts, token_texts
from decone.models.find_tables import find_tables
from decone.repair.alignment.align import align_model, open_lexicons
from decone.repair.alignment.result import AlignmentSettings, LexiconCoverage, coverage
from decone.repair.checkpoint import apply_delta, undo_delta
from decone.repair.comparison import measure_repair, repair_warnings
from decone.repair.delta import read_delta, require_vacant_delta, write_delta
from decone.repair.methods.base import TableChoice, build_method
from decone.repair.methods.directions import Centre, Statistics
from decone.repair.result import REPAIR, RepairReport

__all__ = [
    "apply_delta",
    "lexicon_coverage",
    "read_delta",
    "rebuild_definitions",
    "repair_directions",
    "repair_rows",
    "repair_with",
    "undo_delta",
]


def repair_with(
    method: str,
    model: str | os.PathLike[str],
    *,
    out: str | Path | None = None,
    tokens: int = 10,
    seed: int = 0,
    dry_run: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> RepairReport:
    """Repairs a table of a model by a method of any name; the model stays as it is.

    Args:
        method: name of a repair, see `decone.repair.methods.base.method_names`.
        model: a folder of transformers, a hub name, a .safetensors file, or a run of decone.
        out: the delta to write, a .safetensors file; without it the repair is only measured.
        tokens: number of changed rows in the report.
        seed: of everything random.
        dry_run: measure only, although `out` is given.
        progress: called with a stage, the steps done and their number.
        settings: of the method.

    Returns:
        The tables before and after, with the method's results and notes.

    Raises:
        ValueError: the method, a setting, the model or `out` cannot be; nothing is written.
    """
    progress, delta_path = progress or _silent, _path(out)
    repair = build_method(method, settings)
    progress("tables", 0, 1)
    model_tables = repair.find_tables(os.fspath(model))
    if delta_path is not None:
        require_vacant_delta(delta_path, model_tables)
    repaired = repair.repair(model_tables, seed, progress)
    texts, tables = token_texts(model_tables), []
    for delta in repaired.deltas:
        if delta.target.role == "bias":
            continue
        progress(f"geometry of the {delta.target.role} table", 0, 1)
        tables.append(measure_repair(delta, texts, tokens, seed))
    notes = [
        *model_tables.notes,
        *repaired.notes,
        *(note for table in tables if repair.controlled for note in repair_warnings(table)),
    ]
    written = None if dry_run else delta_path
    if written is not None:
        progress("writing", 0, 1)
        write_delta(written, model_tables, method, repaired.settings, repaired.deltas, repaired.results, notes)
    return RepairReport(
        schema=REPAIR,
        model=model_tables.name,
        method=method,
        settings=repaired.settings,
        found=repaired.results,
        tables=tables,
        notes=notes,
        delta=None if written is None else str(written),
        bytes=None if written is None else written.stat().st_size,
    )


def repair_directions(
    model: str | os.PathLike[str],
    *,
    components: int | None = None,
    centre: Centre = "mean",
    rows: str = "all",
    counts: str | Path | None = None,
    statistics: Statistics = "all",
    table: TableChoice = "input",
    embedding: str | None = None,
    head: str | None = None,
    tokens: int = 10,
    seed: int = 0,
    out: str | Path | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairReport:
    """Takes the mean and the strongest principal components out of rows of a table.

    All-but-the-top (Mu and Viswanath 2018); with centre "released" DelDirection.

    Args:
        model: a folder of transformers, a hub name, a .safetensors file, or a run of decone; it stays as it is.
        components: taken out; None is a hundredth of the width, 0 the mean alone.
        centre: name of the formula, see `decone.repair.directions`.
        rows: that change: all, rare, rare:SHARE, seen:SHARE, last:SHARE, or a list or file of ids and tokens.
        counts: file of token frequencies, for rare and seen.
        statistics: mean and components of all rows, or of the chosen ones.
        table: of two; tied ones are one.
        embedding: name of the input table in the file.
        head: name of the output table in the file.
        tokens: number of changed rows in the report.
        seed: of the rows in the report.
        out: the delta to write, a .safetensors file; without it the repair is only measured.
        dry_run: measure only, although `out` is given.
        progress: called with a stage, the steps done and their number.

    Returns:
        The tables before and after.

    Raises:
        ValueError: an argument cannot be, or a row is not finite; nothing is written.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> path = Path(tempfile.mkdtemp()) / "tiny.safetensors"
        >>> save_file({"embedding.weight": torch.randn(50, 8) + 3}, path)
        >>> report = repair_directions(path, components=1)
        >>> comparison = report.tables[0].groups["all"]
        >>> comparison.before.mean_direction > 0.9, comparison.after.mean_direction < 0.01
        (True, True)
    """
    return repair_with("directions", **locals())


def repair_rows(
    model: str | os.PathLike[str],
    ids: str | Sequence[int | str] = "untrained",
    *,
    init: str = "mean",
    neighbours: int = 10,
    table: TableChoice = "both",
    embedding: str | None = None,
    head: str | None = None,
    tokens: int = 10,
    seed: int = 0,
    out: str | Path | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairReport:
    """Gives new rows to tokens that exist but were never trained, such as chat tokens of a base model.

    Args:
        model: a folder of transformers, a hub name, a .safetensors file, or a run of decone; it stays as it is.
        ids: "untrained", each table judged by itself; or ids and tokens, as text also ranges and names like last:0.1.
        init: how rows are made: mean, like=TOKEN, pieces, neighbours or sample, see
            `decone.repair.vocabulary.initialisations`.
        neighbours: rows for "neighbours".
        table: of two; tied ones are one.
        embedding: name of the input table in the file.
        head: name of the output table in the file.
        tokens: number of changed rows in the report.
        seed: of "sample", of the states that logits are compared at, and of the rows in the report.
        out: the delta to write, a .safetensors file; without it the repair is only measured.
        dry_run: measure only, although `out` is given.
        progress: called with a stage, the steps done and their number.

    Returns:
        The tables before and after; `results` has lengths and ranks of logits.

    Raises:
        ValueError: no row is untrained, a row or token does not exist, or an argument cannot be; nothing is written.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> path = Path(tempfile.mkdtemp()) / "tiny.safetensors"
        >>> table = torch.randn(50, 8) + 3
        >>> table[[7, 8]] = 0
        >>> save_file({"embedding.weight": table}, path)
        >>> report = repair_rows(path)
        >>> report.tables[0].changed, report.results["input"]["length_before"]
        (2, 0.0)
    """
    arguments = locals() | {"ids": ids if isinstance(ids, str) else ",".join(map(str, ids))}
    return repair_with("rows", **arguments)


def rebuild_definitions(
    model: str | os.PathLike[str],
    lexicon: str | Path | Sequence[str | Path],
    *,
    rows: str = "doubtful",
    counts: str | Path | None = None,
    preset: str = "decone",
    settings: Mapping[str, Any] | None = None,
    format: str = "auto",
    language: str = "en",
    case: str = "auto",
    forms: str = "follow",
    inflections: bool = False,
    numbers: bool = False,
    pieces: bool = False,
    mask: str | None = None,
    embedding: str | None = None,
    device: str = "auto",
    tokens: int = 10,
    seed: int = 0,
    out: str | Path | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairReport:
    """Rebuilds rows of a table from the definitions of their tokens (DefinitionEMB), where these were lost.

    Args:
        model: an encoder, or an encoder with a decoder: folder or hub name; it stays as it is.
        lexicon: file, or WordNet's folder; of several, earlier ones go first.
        rows: that are rebuilt: doubtful, rare, rare:SHARE, seen:SHARE, last:SHARE, all, or a list or
            file of ids and tokens.
        counts: file of token frequencies, for rare and seen.
        preset: "decone", or "paper" as released.
        settings: of the method, over those of the preset; see `decone.repair.definitions.recipe`.
        format: of the lexicon; "auto" looks at the content.
        language: of Wiktionary: the code of the entries to read, or "all".
        case: "auto", "exact", or "fold", which adds words that differ in case.
        forms: senses like "plural of X": "follow", "keep" or "skip".
        inflections: undo English suffixes.
        numbers: spell out numbers without a definition.
        pieces: define word pieces as parts of words.
        mask: the token that stands for the defined one; without it the usual one.
        embedding: name of the table in the file.
        device: by name.
        tokens: number of changed rows in the report.
        seed: of training, folds and the rows in the report.
        out: the delta to write, a .safetensors file; without it the repair is only measured.
        dry_run: measure only, although `out` is given.
        progress: called with a stage, the steps done and their number.

    Returns:
        The table before and after, and the scores of predicted rows that were not learned from.

    Raises:
        ValueError: an argument cannot be, the model cannot read definitions, nothing is defined, or nothing seems lost;
            nothing is written.
    """
    arguments = locals() | {"lexicon": _paths(lexicon)}
    arguments["settings"] = [f"{key}={_text(value)}" for key, value in (settings or {}).items()]
    return repair_with("definitions", **arguments)


def lexicon_coverage(
    model: str | os.PathLike[str],
    lexicon: str | Path | Sequence[str | Path],
    *,
    format: str = "auto",
    language: str = "en",
    case: str = "auto",
    senses: str = "all",
    forms: str = "follow",
    inflections: bool = False,
    numbers: bool = False,
    pieces: bool = False,
    counts: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> LexiconCoverage:
    """Aligns the tokens of a model with a lexicon, and counts those that it defines.

    Args:
        model: folder, hub name, or a run of decone.
        lexicon: file, or WordNet's folder; of several, earlier ones go first.
        format: of the lexicon; "auto" looks at the content.
        language: of Wiktionary: the code of the entries to read, or "all".
        case: "auto", "exact", or "fold", which adds words that differ in case.
        senses: "all" of a word, or the "first".
        forms: senses like "plural of X": "follow", "keep" or "skip".
        inflections: undo English suffixes.
        numbers: spell out numbers without a definition.
        pieces: define word pieces as parts of words.
        counts: file of token frequencies; splits the tokens into groups.
        out: JSON file to write the report to.
        progress: called with a stage, the steps done and their number.

    Raises:
        ValueError: an argument cannot be, the model has no tokenizer, or no token is defined.
    """
    progress, file = progress or _silent, _path(out)
    if file is not None and not (file.absolute().parent.is_dir() and not file.is_dir()):
        raise ValueError(f"cannot write {file}; name a file in a folder that exists")
    settings = AlignmentSettings(case, senses, forms == "follow", inflections, numbers, pieces)
    entries = open_lexicons(_paths(lexicon), format, language, forms)
    progress("reading the vocabulary", 0, 1)
    model_tables = find_tables(os.fspath(model))
    frequencies = None if counts is None else read_counts(Path(counts), model_tables)
    alignment = align_model(model_tables, entries, settings, progress)
    report = coverage(alignment, model_tables.name, frequencies)
    if file is not None:
        write_text(file, report.model_dump_json(by_alias=True, indent=1, ensure_ascii=True) + "\n")
    return report


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _paths(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _silent(stage: str, done: int, total: int) -> None:
    """Reports no progress."""
