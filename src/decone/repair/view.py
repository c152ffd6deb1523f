"""Repairs, deltas and the coverage of a lexicon as documents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decone.document.blocks import (
    CellContent,
    ContentBlock,
    Document,
    Facts,
    Grid,
    GridCell,
    GridColumn,
    Note,
    Phrase,
    Section,
    Styled,
    Title,
    Token,
    joined,
    spans,
)
from decone.document.numbers import DASH, number
from decone.files.foreign import plain
from decone.repair.alignment.result import LexiconCoverage
from decone.repair.result import DeltaFacts, GeometryComparison, RepairReport, TableRepair, WrittenCheckpoint

TOKEN_LENGTH, NEIGHBOURS = 20, 3  # characters of a token; neighbours shown
FILES = 8  # listed by name
GLOSS = 70  # characters of a definition
SCORED = ("held_out", "frozen")  # rows that were not learned from: scores, and those of the model before training
SCORES = {
    "tokens": "tokens",
    "r2": "R2 against the mean row",
    "cosine": "cosine with the row",
    "norm_ratio": "length of the row",
    "nearest": "own row nearest",
    "top10": "own row among 10 nearest",
    "median_rank": "median rank of the own row",
    "unrelated": "rows unrelated to definitions",
}
GEOMETRY = {
    "isotropy": "I(W)",
    "isotropy_plus_minus": "I(W), both signs",
    "mean_cosine": "mean cosine",
    "mean_direction": "mean direction",
    "effective_rank": "effective rank",
}
MATCHES = {
    "exact": "written as in the lexicon",
    "normalised": "as the tokenizer writes a word of the lexicon",
    "folded": "differ from a word in case only",
    "inflection": "forms of a defined word",
    "number": "numbers spelled out",
    "host": "pieces of a defined word",
}


def repair_document(report: RepairReport) -> Document:
    """Effect of a repair on the tables of a model."""
    sections = [
        Section(f"table-{index}", ", ".join(table.tensors), _table_blocks(table, report.results.get(table.role, {})))
        for index, table in enumerate(report.tables)
    ]
    if report.notes:
        sections.append(Section("notes", "Notes", _notes(report.notes)))
    end = "a dry run: nothing was written" if report.delta is None else f"{report.delta}, {report.bytes:,} bytes"
    sections.append(Section("delta", "Delta", (Note(end),)))
    about = f"{report.method}  {_settings_text(report.settings)}"
    return Document(Title(report.model, kicker="repair", about=about), tuple(sections))


def delta_document(facts: DeltaFacts, path: Path | None = None) -> Document:
    """Description of a delta: its method, its tables, its results."""
    blocks: list[ContentBlock] = [_facts(facts.settings)]
    for table in facts.tables:
        size = f"{table.changed:,} of {table.shape[0]:,} rows × {table.shape[1]} {table.dtype}"
        blocks.append(Note(f"{size}: {', '.join(table.tensors)}"))
        blocks += [Note(f"  before {table.before}", kind="hint"), Note(f"  after  {table.after}", kind="hint")]
    for role, values in facts.results.items():
        text = _settings_text(values) if isinstance(values, dict) else plain(values)
        blocks.append(Note(f"{plain(role, 60)}: {text}", kind="hint"))
    blocks += [*_notes(facts.notes), Note(f"decone {facts.decone}, {facts.date}", kind="hint")]
    name = facts.model if path is None else str(path)
    title = Title(name, kicker="delta", about=f"{plain(facts.method, 60)} for {facts.model}")
    return Document(title, (Section("delta", "Delta", tuple(blocks)),))


def checkpoint_document(checkpoint: WrittenCheckpoint) -> Document:
    """Files of a new checkpoint."""
    blocks: list[ContentBlock] = []
    for verb in ("rewritten", "copied", "linked"):
        names: list[str] = getattr(checkpoint, verb)
        if names:
            more = f" and {len(names) - FILES:,} more" if len(names) > FILES else ""
            blocks.append(Note(f"{verb}: {', '.join(plain(name, 100) for name in names[:FILES])}{more}"))
    title = Title(checkpoint.folder, kicker="checkpoint")
    return Document(title, (Section("files", "Files", (*blocks, *_notes(checkpoint.notes))),))


def coverage_document(report: LexiconCoverage) -> Document:
    """Tokens of a model that a lexicon defines."""
    sources = [
        Note(
            f"{source.name}: {source.format}, {source.senses:,} senses, {source.licence}"
            + (f"; left out {_counts(source.skipped)}" if source.skipped else ""),
            kind="hint",
        )
        for source in report.sources
    ]
    shares = Grid(
        ("", "count", "defined", "share"),
        tuple(
            (
                name,
                f"{share.tokens:,}",
                f"{share.covered:,}",
                f"{share.covered / share.tokens:.1%}" if share.tokens else "",
            )
            for name, share in [*report.kinds.items(), *(report.groups or {}).items()]
        ),
        caption="Tokens",
    )
    matches = Grid(
        ("", "count", GridColumn("how", align="left")),
        tuple((match, f"{count:,}", MATCHES[match]) for match, count in report.matches.items()),
        caption="Matched",
    )
    sharing = report.sharing
    summary: list[ContentBlock] = [
        Note(
            f"{report.senses:,} senses, {report.several:,} tokens with several · {report.self_mentions:,} first "
            f"glosses name their token · {sharing.tokens:,} tokens in {sharing.groups:,} groups share all their glosses"
        )
    ]
    if report.inner:
        summary.append(Note(f"{report.inner:,} of the tokens defined can also stand inside other words"))
    if report.unused:
        summary.append(Note(f"senses of no token, and others: {_counts(report.unused)}", kind="hint"))
    for example in report.examples:
        gloss = example.gloss if len(example.gloss) <= GLOSS else f"{example.gloss[:GLOSS]}…"
        summary.append(Note(("  ", Token(example.token), f"  {plain(example.word, 40)}: {gloss}")))
    tokens = joined([Token(token) for token in report.missing.tokens], ", ")
    missing: Phrase = (f"{report.missing.count:,} tokens have none and stay as they are: ", *spans(tokens))
    summary.append(Note(missing))
    about = f"{report.covered:,} of {report.rows:,} tokens have a definition, {report.words:,} of them whole words"
    return Document(
        Title(report.model, kicker="lexicon", about=about),
        (
            Section("sources", "Sources", tuple(sources)),
            Section("tokens", "Tokens", (shares, matches)),
            Section("definitions", "Definitions", tuple(summary)),
        ),
    )


def _table_blocks(table: TableRepair, results: Mapping[str, Any]) -> tuple[ContentBlock, ...]:
    size = f"{table.changed:,} of {table.shape[0]:,} rows × {table.shape[1]} {table.dtype} change"
    names = ", ".join(plain(name, 100) for name in table.tensors)
    blocks: list[ContentBlock] = [
        Note((Styled(names, "strong"), f"  {size}")),
        _facts({key: value for key, value in results.items() if key not in SCORED}),
    ]
    if SCORED[0] in results:
        blocks.append(_score_grid({key: results[key] for key in SCORED if key in results}))
    for name, comparison in table.groups.items():
        ratio = DASH if comparison.norm_ratio is None else f"{comparison.norm_ratio:.3f}"
        blocks.append(_geometry_grid(f"{name} {comparison.before.rows:,}", comparison))
        blocks.append(
            Note(
                f"cosine of a row with its old one {comparison.cosine:.3f}, length {ratio} of the old; control: the "
                "original rows at the repaired lengths, for I(W) rises by mere shrinkage",
                kind="hint",
            )
        )
    return (*blocks, _token_grid(table)) if table.tokens else tuple(blocks)


def _geometry_grid(name: str, comparison: GeometryComparison) -> Grid:
    columns = (comparison.before, comparison.after, comparison.control)
    rows = [(label, *(_measure(getattr(column, key)) for column in columns)) for key, label in GEOMETRY.items()]
    for key in comparison.before.norms:
        label = "mean norm" if key == "mean" else f"norm, {float(key):.0%} of rows"
        if key in ("mean", "0.05", "0.5", "0.95"):
            rows.append((label, *(_measure(column.norms[key]) for column in columns)))
    return Grid((GridColumn("", wrap=False), "before", "after", "control"), tuple(rows), caption=name)


def _score_grid(scores: Mapping[str, Mapping[str, Any]]) -> Grid:
    return Grid(
        (GridColumn("", wrap=False), *(key.replace("_", " ") for key in scores)),
        tuple((label, *(_score(column.get(key)) for column in scores.values())) for key, label in SCORES.items()),
        caption="rows that were not learned from",
    )


def _token_grid(table: TableRepair) -> Grid:
    rows: list[tuple[CellContent, ...]] = []
    for token in table.tokens:
        neighbours = [
            GridCell(joined([Token(near.token, TOKEN_LENGTH) for near in nearest[:NEIGHBOURS]], " "))
            for nearest in (token.neighbours_before, token.neighbours_after)
        ]
        numbers = (str(token.id), f"{token.norm_before:.3f}", f"{token.norm_after:.3f}", f"{token.cosine:.3f}")
        rows.append((Token(token.token, TOKEN_LENGTH), *numbers, *neighbours))
    return Grid(
        (
            GridColumn("token", wrap=False),
            *("id", "norm", "after", "cosine"),
            GridColumn("neighbours before", align="left"),
            GridColumn("after", align="left"),
        ),
        tuple(rows),
    )


def _facts(values: Mapping[str, Any]) -> Facts:
    return Facts(
        tuple((plain(key, 60), _text(value)) for key, value in values.items() if value is not None), inline=True
    )


def _settings_text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{plain(key, 60)} {_text(value)}" for key, value in values.items() if value is not None)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_text(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else plain(value, 200)


def _score(value: Any) -> str:
    if isinstance(value, list):
        mean, low, high = value
        return f"{mean:.3f} ({low:.3f} to {high:.3f})"
    return f"{value:,}" if isinstance(value, int) else DASH if value is None else f"{value:.3f}"


def _measure(value: float | None) -> str:
    return DASH if value is None else number(value, 4 if abs(value) < 100 else 1)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {plain(reason, 60)}" for reason, count in counts.items())


def _notes(notes: list[str]) -> tuple[Note, ...]:
    return tuple(Note(note, kind="hint") for note in notes)
