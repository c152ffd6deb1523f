"""A comparison as one HTML file that needs nothing else: no server, no network, no fonts."""

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decone.report import geometry, plots, style
from decone.report.format import MAIN, count, language
from decone.report.frame import Canvases, Plot, Section, document, save
from decone.report.made import made
from decone.report.sections import findings, method, neighbour_tables, numbers, samples, text
from decone.report.summary import focus
from decone.studies.exhibits import Exhibit
from decone.studies.table import Results, Table


def write(
    path: Path,
    table: Table,
    results: Results,
    exhibits: Sequence[Exhibit],
    provenance: Mapping[str, Any],
    sentences: Sequence[str] | None = None,
) -> Path:
    """Writes the page beside its place and renames it, so that a kill leaves the old page or the new one.

    Args:
        path: the file, by custom report.html; its folder is there.
        table: the comparison.
        results: what the table was built from; the plots need its curves.
        exhibits: trained tables and sample text of some runs; may be empty.
        provenance: versions, machine and date of the drawing, e.g. `training.machine.provenance()`.
        sentences: findings in words; None derives them from the table.

    Returns:
        The path.

    Raises:
        ValueError: plotly is missing, or the file cannot be written.
    """
    return save(path, _page(table, results, exhibits, provenance, sentences))


def _page(
    table: Table,
    results: Results,
    exhibits: Sequence[Exhibit],
    provenance: Mapping[str, Any],
    sentences: Sequence[str] | None,
) -> str:
    canvases = Canvases()
    about = "low-resource language" if focus(table) == "LR" else "text"
    seeds = canvases.grid(list(_seeds(table)))
    training = canvases.grid(list(_training(table, results)))
    sections = [
        Section("findings", "In short", f"What each method did to the {about}.", findings(table, sentences)),
        Section("numbers", "Numbers", "Mean over seeds ± half a 95 % interval.", numbers(table)),
        Section("seeds", "Every seed", "A mean can hide two kinds of runs; here is each one.", seeds, _legend(table)),
        Section("training", "Training", "The course of each run, and its temperature.", training),
    ]
    if exhibits:
        tables = canvases.grid(list(_geometry(table, exhibits))) + neighbour_tables(table, exhibits)
        lede = "Where the rows of the output table lie, in one run of a method."
        sections.append(Section("tables", "Embeddings", lede, tables))
        lede = "What the models write on their own, each at its best temperature."
        sections.append(Section("samples", "Sample text", lede, samples(table, exhibits)))
    sections.append(Section("made", "How it was made", "", made(table, results, provenance)))
    title = text(table.title)
    top = f'<p class="kicker">decone comparison</p><h1>{title}</h1>'
    return document(title, top, sections, canvases, style.exchange(), _swatches(table))


def _seeds(table: Table) -> Iterator[Plot]:
    measures = [measure for measure in table.measures if measure.key in MAIN]
    paper = any(cell.published is not None for row in table.rows for cell in row.cells.values())
    for name in sorted(dict.fromkeys(row.language for row in table.rows), key=lambda name: name != focus(table)):
        for measure in measures:
            side = "right" if measure.higher else "left"
            how = f"One dot per seed, further {side} is better; the line below is the 95 % interval around the mean"
            how += ", the dashed mark the published number." if paper else "."
            heading = f"{html.escape(measure.heading)}, {html.escape(language(name))}"
            yield Plot(heading, how, plots.seeds(table, measure, name))


def _training(table: Table, results: Results) -> Iterator[Plot]:
    rule = "the lowest of its run" if table.select == "best" else "the last"
    how = "Plain cross-entropy for all methods, one line per seed, lower is better. "
    how += f"The dot is the measured checkpoint, {rule}."
    yield Plot("Validation loss", how, plots.loss(table, results))
    meeting = plots.alignment(table, results)
    if meeting is not None:
        how = "One line per seed; above the dashed line the two languages count as aligned, often after a sudden rise."
        yield Plot("Alignment", how, meeting)
    for name in sorted(dict.fromkeys(row.language for row in table.rows), key=lambda name: name != focus(table)):
        drawn = plots.temperature(table, results, name)
        if drawn is not None:
            how = "Lower is better; thick is the mean, thin is each seed, a diamond its best. "
            how += "A best far from T = 1 means logits of the wrong scale."
            yield Plot(f"Temperature, {html.escape(language(name))}", how, drawn)


def _geometry(table: Table, exhibits: Sequence[Exhibit]) -> Iterator[Plot]:
    for exhibit in exhibits:
        who = f"{method(table, exhibit.label)} · seed {exhibit.seed}"
        few = len(exhibit.tokens) > geometry.MANY
        only = (
            f" Drawn are the {geometry.DRAWN} most frequent of {len(exhibit.tokens):,} tokens of a language."
            if few
            else ""
        )
        how = "Each row against each row; orange points the same way, blue the opposite way."
        if exhibit.languages.simulated:
            how += " A diagonal line in the upper right block means that translations found each other."
        else:
            how += " A table that is orange all over points one way."
        yield Plot(f"Cosines · {who}", how + only, geometry.cosine(exhibit))
        how = f"Rows on their two main components; crosses are the {count(geometry.RAREST, 'rarest token')}"
        how += (
            " of each language, thin lines join translations: short ones are good."
            if exhibit.languages.simulated
            else "."
        )
        yield Plot(f"Main plane · {who}", how + only, geometry.plane(exhibit))
    how = "The slower the fall, the more directions a table uses; a cliff after the first is a narrow cone."
    yield Plot("Singular values", how, geometry.decay(exhibits, table.labels))


def _legend(table: Table) -> str:
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-group="{style.group(index)}">{method(table, label)}</button>'
        for index, label in enumerate(table.labels)
    )
    return f'<div class="legend" role="group" aria-label="Methods shown in the plots">{buttons}</div>'


def _swatches(table: Table) -> str:
    light = "".join(
        f".own-{index}{{--own:{style.colour(index)}{'' if style.mark(index) == 'circle' else ';--inside:transparent'}}}"
        for index in range(len(table.labels))
    )
    dark = "".join(
        f".own-{index}{{--own:{style.exchange()[style.colour(index)]}}}" for index in range(len(table.labels))
    )
    return f"{light}@media (prefers-color-scheme:dark){{{dark}}}"
