"""Reports of growing and trimming as documents."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from decone.document.blocks import ContentBlock, Document, Grid, GridColumn, Note, Section, Styled, Title, Token
from decone.files.foreign import join_names, plain
from decone.repair.vocabulary.result import (
    Divergence,
    GrowthReport,
    NewToken,
    NormComparison,
    TrimReport,
    VocabularyReport,
)

TOKEN_LENGTH, NEIGHBOURS = 20, 3  # characters of a token; neighbours in a row
NAMES = 8  # files or pieces in a list
QUANTILES = {"mean": "mean", "0.05": "5%", "0.5": "50%", "0.95": "95%"}  # keys of the norms, and their headings


def growth_document(report: GrowthReport) -> Document:
    """The report of `decone grow`: counts, lengths of the new rows, new tokens, outputs, files."""
    counts = (
        f"{report.added:,} new tokens, {report.in_padding:,} of them in rows that were free; tokens "
        f"{report.tokens_before:,} → {report.tokens_after:,}, rows {report.rows_before:,} → {report.rows_after:,}"
    )
    sections = [Section("counts", "Counts", (Note(counts),)), Section("rows", "Rows", (_norms(report.norms),))]
    if report.tokens:
        sections.append(Section("tokens", "New tokens", (_tokens(report.tokens),)))
    if report.divergence is not None:
        sections.append(Section("outputs", "Outputs", (Note(_divergence(report.divergence)),)))
    return _document("Grown vocabulary", report, sections)


def trim_document(report: TrimReport) -> Document:
    """The report of `decone trim`: counts, reasons, a sample of dropped tokens, files."""
    share = 1 - report.rows_after / report.rows_before
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.retained.items() if count)
    blocks = [
        Note(
            f"tokens {report.tokens_before:,} → {report.tokens_after:,}, rows {report.rows_before:,} → "
            f"{report.rows_after:,}: {share:.0%} less, {report.bytes_of_rows:,} bytes"
        ),
        Note(f"stay: {reasons}"),
        Note(f"{report.checked:,} tokens of text are cut as before"),
    ]
    if report.dropped:
        blocks.append(Note(("go, among others: ", *_token_list(report.dropped)), "hint"))
    return _document("Trimmed vocabulary", report, [Section("counts", "Counts", tuple(blocks))])


def _document(kicker: str, report: VocabularyReport, sections: Sequence[Section]) -> Document:
    title = Title(report.model, kicker=kicker, about=_settings(report.settings))
    details = tuple(_details(report))
    middle = (Section("details", "Tensors and notes", details),) if details else ()
    return Document(title, (*sections, *middle, Section("files", "Files", tuple(_files(report)))))


def _settings(settings: Mapping[str, Any]) -> str:
    values = {key: value for key, value in settings.items() if value not in (None, [], False)}
    return ", ".join(
        f"{key} {join_names(value) if isinstance(value, list) else plain(value, 60)}" for key, value in values.items()
    )


def _norms(norms: Sequence[NormComparison]) -> Grid:
    columns: tuple[GridColumn | str, ...] = (GridColumn("", wrap=True), *QUANTILES.values())
    rows = [
        (
            f"{name}, {', '.join(plain(tensor, 60) for tensor in table.tensors)}",
            *(f"{values[key]:.4g}" for key in QUANTILES),
        )
        for table in norms
        for name, values in (("old", table.old), ("new", table.new))
    ]
    return Grid(columns, tuple(rows), caption="lengths of rows")


def _tokens(tokens: Sequence[NewToken]) -> Grid:
    text = [GridColumn(heading, align="left") for heading in ("pieces before", "nearest tokens")]
    columns: tuple[GridColumn | str, ...] = (GridColumn("new token", wrap=False), "id", "length", *text)
    rows = [
        (
            Token(token.token, TOKEN_LENGTH),
            str(token.id),
            f"{token.norm:.4g}",
            _token_list(token.pieces[:NAMES]),
            _token_list([neighbour.token for neighbour in token.neighbours[:NEIGHBOURS]]),
        )
        for token in tokens
    ]
    return Grid(columns, tuple(rows))


def _token_list(tokens: Sequence[str]) -> tuple[str | Token, ...]:
    items = [(" ", Token(token, TOKEN_LENGTH)) for token in tokens]
    return tuple(span for item in items for span in item)[1:]


def _divergence(outputs: Divergence) -> str:
    change = "bit for bit the same" if outputs.largest_change == 0 else f"changed by up to {outputs.largest_change:.3g}"
    return (
        f"outputs on {plain(outputs.text, 60)}, {outputs.positions:,} predictions: logits of old tokens {change}; KL "
        f"over them {outputs.kl_mean:.3g} nats, at most {outputs.kl_max:.3g}; new tokens get {outputs.mass_mean:.3g} "
        f"of the probability, at most {outputs.mass_max:.3g}"
    )


def _details(report: VocabularyReport) -> Iterator[ContentBlock]:
    for table in report.tables:
        tensors = ", ".join(plain(name, 100) for name in table.tensors)
        yield Note(f"{tensors} {table.dtype} {table.shape_before} → {table.shape_after}", "hint")
    for note in report.notes:
        yield Note(plain(note), "hint")


def _files(report: VocabularyReport) -> Iterator[ContentBlock]:
    files = report.written
    if files is None:
        yield Note("a dry run: nothing was written")
        return
    yield Note(Styled(files.folder, "strong"))
    for verb, names in (("written", files.rewritten), ("copied", files.copied), ("linked", files.linked)):
        if names:
            more = f" and {len(names) - NAMES:,} more" if len(names) > NAMES else ""
            yield Note(f"{verb}: {', '.join(plain(name, 100) for name in names[:NAMES])}{more}")
