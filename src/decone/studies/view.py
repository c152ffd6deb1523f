"""A comparison as a document: numbers for a terminal and for markdown; findings, plots and provenance for a page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from decone.document.blocks import (
    Card,
    CellContent,
    Chips,
    ContentBlock,
    Document,
    Figure,
    Folded,
    Grid,
    GridCell,
    GridColumn,
    Media,
    Note,
    Passage,
    Phrase,
    Section,
    Styled,
    Title,
    joined,
    spans,
)
from decone.document.figures import group
from decone.document.numbers import DASH, count, estimate, half, number, percent
from decone.files.foreign import visible, visible_token
from decone.studies import figures
from decone.studies.exhibits import ModelExhibit
from decone.studies.findings import (
    LANGUAGES,
    NOT_RUN,
    MethodFindings,
    SeedChange,
    aligned_runs,
    capitalized,
    compare_methods,
    is_clear,
    language_name,
    main_language,
    method_swatch,
    provenance_blocks,
    seed_range,
    verdict,
)
from decone.studies.table import ALIGNED, MAIN, Measure, Results, StudyCell, StudyRow, StudyTable

OPENED = 12  # seeds above which a list of seeds starts folded
ALIGNMENT = (
    "Alignment is the share of low-resource rows whose nearest high-resource row is their own translation; a run "
    f"counts as aligned above {percent(ALIGNED)}."
)
COSINES = "Each row against each row; orange points the same way, blue the opposite way."


def table_document(table: StudyTable) -> Document:
    """The numbers of a comparison.

    A terminal has the half-widths of intervals, the published numbers and the changes in lines of their own below the
    means, with a star where the interval of a change excludes 0; it is made for 100 columns.

    Example:
        >>> from decone.document import markdown
        >>> from decone.studies.table import build
        >>> print(markdown.render(table_document(build("Demo", {"mle": {}}, "best"))).splitlines()[0])
        ## Demo
    """
    lede, numbers = "Mean over seeds ± half a 95 % interval.", tuple(_page_numbers(table))
    page = Section("numbers", "Numbers", numbers, lede, media=Media.PAGE)
    return Document(Title(table.title, kicker="decone comparison"), (*_text_sections(table), page))


def comparison_document(
    table: StudyTable,
    results: Results,
    exhibits: Sequence[ModelExhibit],
    provenance: Mapping[str, Any],
) -> Document:
    """A comparison with everything that a page shows.

    Args:
        table: the comparison.
        results: what the table was built from; the plots need its curves.
        exhibits: trained tables and sample text of some runs; may be empty.
        provenance: versions, machine and date of the drawing, e.g. `training.machine.provenance()`.
    """
    subject = "low-resource language" if main_language(table) == "LR" else "text"
    switches = tuple((group(index), method_swatch(table.labels, label)) for index, label in enumerate(table.labels))
    sections: list[tuple[str, str, str, Iterable[ContentBlock]]] = [
        ("findings", "In short", f"What each method did to the {subject}.", _findings(table)),
        ("numbers", "Numbers", "Mean over seeds ± half a 95 % interval.", _page_numbers(table)),
        ("seeds", "Every seed", "A mean can hide two kinds of runs; here is each one.", _seed_figures(table)),
        ("training", "Training", "The course of each run, and its temperature.", _training_figures(table, results)),
    ]
    if exhibits:
        lede = "Where the rows of the output table lie, in one run of a method."
        tables = [*_table_figures(table, exhibits), *_neighbour_grids(table, exhibits)]
        sections.append(("tables", "Embeddings", lede, tables))
        lede = "What the models write on their own, each at its best temperature."
        sections.append(("samples", "Sample text", lede, _samples(table, exhibits)))
    sections.append(("made", "How it was made", "", provenance_blocks(table, results, provenance)))
    page = [
        Section(name, heading, tuple(blocks), lede, switches if name == "seeds" else (), media=Media.PAGE)
        for name, heading, lede, blocks in sections
    ]
    return Document(Title(table.title, kicker="decone comparison"), (*_text_sections(table), *page))


def _text_sections(table: StudyTable) -> Iterator[Section]:
    for language in _languages(table):
        rows = [row for row in table.rows if row.language == language]
        heading = capitalized(language_name(language))
        names = [measure.heading for measure in table.measures]
        terminal = Grid(
            ("Method", GridColumn("n"), *names),
            tuple(line for row in rows for line in _lines(table, row, stacked=True)),
            heading,
            media=Media.TERMINAL,
        )
        markdown = Grid(
            ("Method", GridColumn("Seeds"), *names),
            tuple(line for row in rows for line in _lines(table, row, stacked=False)),
            media=Media.MARKDOWN,
        )
        yield Section(f"numbers-{language}", heading, (terminal, markdown), media=Media.TEXT)
    if table.alignment:
        grids = _alignment_grid(table, Media.TERMINAL), _alignment_grid(table, Media.MARKDOWN)
        yield Section("alignment", "Alignment", grids, media=Media.TEXT)
    seeds = _seed_rows(table)
    if seeds:
        headings = [heading for _, _, heading, _ in _main_columns(table)] + ["Alignment"] * bool(table.alignment)
        grid = Grid(("Method", "Seed", *headings), tuple(seeds))
        yield Section("every-seed", "Every seed", (grid,), media=Media.MARKDOWN)
    yield Section("legend", "", tuple(_legend(table)), media=Media.TEXT)


def _lines(table: StudyTable, row: StudyRow, stacked: bool) -> Iterator[tuple[GridCell | Phrase, ...]]:
    """Lines of one method: its means, the published numbers, its changes; stacked, intervals have their own lines."""
    cells = [(measure, row.cells[measure.key]) for measure in table.measures]
    runs = [cell.mean.count for _, cell in cells]
    means = [number(c.mean.mean, m.digits) if stacked else estimate(c.mean, m.digits) for m, c in cells]
    yield Styled(row.label, "strong"), seed_range(runs), *(Styled(x, "strong") if stacked else x for x in means)
    if stacked and max(runs) > 1:
        yield _dim("  ± 95 %", "", [half(cell.mean, measure.digits) for measure, cell in cells])
    indent = "  " if stacked else ""
    published = [DASH if c.published is None else number(c.published, m.digits) for m, c in cells]
    if any(cell.published is not None for _, cell in cells):
        yield _dim(f"{indent}paper", "", published, dim=stacked)
    elif table.absent:
        yield _dim(f"{indent}paper: {table.absent}", "", published, dim=stacked)
    changes = [(m, cell.difference if m.key in table.main else None) for m, cell in cells]
    counts = [change.count for _, change in changes if change is not None]
    if not counts:
        return
    texts: list[Phrase] = []
    for measure, change in changes:
        if change is None:
            texts.append("")
        elif stacked:
            text = number(change.mean, measure.digits, signed=True) + ("*" if is_clear(change) else " ")
            tone = _tone(verdict(measure, change))
            texts.append(Styled(text, tone) if tone else text)
        else:
            word = verdict(measure, change)
            emphasized = Styled(word, "strong") if is_clear(change) else word
            texts.append((f"{estimate(change, measure.digits, signed=True)} ", emphasized))
    yield Styled(f"{indent}change", "dim") if stacked else "change", seed_range(counts), *texts
    if stacked and max(counts) > 1:
        yield _dim("  ± 95 %", "", ["" if c is None else f"{half(c, m.digits)} " for m, c in changes])


def _dim(heading: str, runs: str, texts: Sequence[str], dim: bool = True) -> tuple[Phrase, ...]:
    return tuple(Styled(text, "dim") if dim else text for text in (heading, runs, *texts))


def _alignment_grid(table: StudyTable, media: Media) -> Grid:
    rows: list[tuple[Phrase, ...]] = []
    for label in table.labels:
        name = method_swatch(table.labels, label) if media & Media.SCREEN else label
        alignment = table.alignment.get(label)
        if alignment is None:
            rows.append((name, NOT_RUN, DASH, DASH))
            continue
        aligned, runs = aligned_runs(alignment.seeds.values())
        interval = f"{percent(alignment.share.low)} to {percent(alignment.share.high)}"
        shares: list[Phrase] = [
            (f"{seed}:\N{NO-BREAK SPACE}", Styled(percent(share), "good") if share > ALIGNED else percent(share))
            if media & Media.SCREEN
            else f"{seed}: {percent(share)}"
            for seed, share in alignment.seeds.items()
        ]
        rows.append((name, f"{aligned} of {runs}", interval, joined(shares, ", ")))
    columns = (GridColumn("Runs aligned", "left", wrap=False), GridColumn("95 % interval", "left", wrap=False))
    caption = "Alignment" if media & Media.SCREEN else ""  # of markdown it is the heading
    return Grid(("Method", *columns, GridColumn("Every seed", "left")), tuple(rows), caption, media=media)


def _seed_rows(table: StudyTable) -> list[tuple[str, ...]]:
    rows = {(row.label, row.language): row for row in table.rows}
    lines = []
    for label in table.labels:
        cells = [cell for (owner, _), row in rows.items() if owner == label for cell in row.cells.values()]
        shares = table.alignment[label].seeds if label in table.alignment else {}
        for seed in sorted({seed for cell in cells for seed in cell.seeds}):
            numbers = []
            for language, key, _, digits in _main_columns(table):
                row = rows.get((label, language))
                value = row.cells[key].seeds.get(seed) if row else None
                numbers.append(DASH if value is None else number(value, digits))
            if table.alignment:
                numbers.append(percent(shares[seed]) if seed in shares else DASH)
            lines.append((label, str(seed), *numbers))
    return lines


def _main_columns(table: StudyTable) -> list[tuple[str, str, str, int]]:
    """Language, key, heading and digits of every column of the table of seeds."""
    languages = _languages(table)
    measures = [measure for measure in table.measures if measure.key in table.main]
    # One group that is no language, as of the development sets of tasks, need not be told from another.
    alone = len(languages) == 1 and languages[0] not in LANGUAGES
    prefixes = {name: "" if alone else f"{visible(name)} " for name in languages}
    return [(name, m.key, f"{prefixes[name]}{m.heading}", m.digits) for name in languages for m in measures]


def _legend(table: StudyTable) -> Iterator[Note]:
    first = visible(table.labels[0])
    changed = any(row.cells[key].difference for row in table.rows for key in table.main)
    terminal = ["n seeds; ± is half a 95 % interval over seeds."]
    markdown = ["± is half a 95 % interval over seeds."]
    if changed:
        terminal.append(f"change: mean difference to {first}, paired by seed; * its interval excludes 0.")
        markdown.append(f"Changes are paired by seed against {first}.")
    if table.alignment:
        terminal.append(ALIGNMENT.replace("Alignment is the", "Alignment:"))
        markdown.append(ALIGNMENT)
    yield Note(" ".join(terminal), "hint", media=Media.TERMINAL)
    yield Note(" ".join(markdown), "hint", media=Media.MARKDOWN)
    yield from (Note(note, "hint") for note in table.notes)


def _findings(table: StudyTable) -> Iterator[ContentBlock]:
    findings = compare_methods(table)
    yield from (_card(table, item) for item in findings if item.runs)
    waiting = [method_swatch(table.labels, item.label) for item in findings if not item.runs]
    if waiting:
        yield Note(("Not run yet: ", *spans(joined(waiting, ", ")), "."))
    if not findings:
        yield Note("One method only: there is nothing to compare it with.")


def _card(table: StudyTable, item: MethodFindings) -> Card:
    blocks: list[ContentBlock] = []
    if item.verdicts:
        chips = [((f"{name}: ", Styled(word, "strong")), _tone(word)) for name, word in item.verdicts]
        blocks.append(Chips(tuple(chips)))
    blocks += [Note(sentence) for sentence in item.sentences]
    if item.seeds:
        headings = [change.name for change in max(item.seeds.values(), key=len)]
        rows = tuple((str(seed), *map(_change, changes)) for seed, changes in item.seeds.items())
        summary = f"Seed by seed, {language_name(item.language)}"
        blocks.append(Folded(summary, (Grid(("Seed", *headings), rows),), opened=len(rows) <= OPENED))
    heading = (method_swatch(table.labels, item.label), " ", Styled(f"against {table.labels[0]}", "dim"))
    return Card(heading, tuple(blocks))


def _change(change: SeedChange) -> Phrase:
    return f"{change.before} → {change.after} ", Styled(change.word, _tone(change.word) or "dim")


def _page_numbers(table: StudyTable) -> Iterator[ContentBlock]:
    """Mean, interval, published number and change, one grid per language; then alignment."""
    for language in _languages(table):
        rows = [row for row in table.rows if row.language == language]
        lines: list[tuple[CellContent, ...]] = []
        for row in rows:
            cells = [_page_cell(measure, row.cells[measure.key]) for measure in table.measures]
            runs = max(row.cells[measure.key].mean.count for measure in table.measures)
            lines.append((method_swatch(table.labels, row.label), str(runs) if runs else NOT_RUN, *cells))
        headings = ("Method", "Seeds", *(measure.heading for measure in table.measures))
        yield Grid(headings, tuple(lines), capitalized(language_name(language)))
    if table.alignment:
        yield _alignment_grid(table, Media.PAGE)
        yield Note(ALIGNMENT, "hint")
    yield from (Note(note, "hint") for note in table.notes)


def _page_cell(measure: Measure, cell: StudyCell) -> GridCell:
    mean, _, reach = estimate(cell.mean, measure.digits).partition(" ")
    below: list[Phrase] = []
    if cell.published is not None:
        below.append(f"paper {number(cell.published, measure.digits)}")
    if cell.difference is not None and measure.key in MAIN:
        word = verdict(measure, cell.difference)
        tone = _tone(word) or "dim"
        below += [Styled(estimate(cell.difference, measure.digits, signed=True), tone), Styled(word, tone)]
    return GridCell((mean, Styled(f" {reach}", "dim")) if reach else mean, below=tuple(below))


def _seed_figures(table: StudyTable) -> Iterator[Figure]:
    published = any(cell.published is not None for row in table.rows for cell in row.cells.values())
    for language in sorted(_languages(table), key=lambda name: name != main_language(table)):
        for measure in (measure for measure in table.measures if measure.key in MAIN):
            side = "right" if measure.higher else "left"
            reading = f"One dot per seed, further {side} is better; the line below is the 95 % interval around the mean"
            reading += ", the dashed mark the published number." if published else "."
            heading = f"{measure.heading}, {language_name(language)}"
            yield Figure(heading, reading, partial(figures.seed_dots, table, measure, language))


def _training_figures(table: StudyTable, results: Results) -> Iterator[Figure]:
    rule = "the lowest of its run" if table.select == "best" else "the last"
    reading = "Plain cross-entropy for all methods, one line per seed, lower is better. "
    reading += f"The dot is the measured checkpoint, {rule}."
    yield Figure("Validation loss", reading, partial(figures.loss_curves, table, results))
    if figures.has_alignment(table, results):
        reading = (
            "One line per seed; above the dashed line the two languages count as aligned, often after a sudden rise."
        )
        yield Figure("Alignment", reading, partial(figures.alignment_curves, table, results))
    for language in sorted(_languages(table), key=lambda name: name != main_language(table)):
        if figures.has_temperatures(table, results, language):
            reading = "Lower is better; thick is the mean, thin is each seed, a diamond its best. "
            reading += "A best far from T = 1 means logits of the wrong scale."
            heading = f"Temperature, {language_name(language)}"
            yield Figure(heading, reading, partial(figures.temperature_curves, table, results, language))


def _table_figures(table: StudyTable, exhibits: Sequence[ModelExhibit]) -> Iterator[Figure]:
    for exhibit in exhibits:
        run = (method_swatch(table.labels, exhibit.label), f" · seed {exhibit.seed}")
        excerpt = ""
        if len(exhibit.tokens) > figures.LARGE:
            excerpt = f" Drawn are the {figures.PLOTTED} most frequent of {len(exhibit.tokens):,} tokens of a language."
        reading = COSINES + (
            " A diagonal line in the upper right block means that translations found each other."
            if exhibit.languages.simulated
            else " A table that is orange all over points one way."
        )
        yield Figure(("Cosines · ", *run), reading + excerpt, partial(figures.cosine_map, exhibit))
        reading = f"Rows on their two main components; crosses are the {count(figures.RAREST, 'rarest token')}"
        reading += (
            " of each language, thin lines join translations: short ones are good."
            if exhibit.languages.simulated
            else "."
        )
        yield Figure(("Main plane · ", *run), reading + excerpt, partial(figures.main_plane, exhibit))
    reading = "The slower the fall, the more directions a table uses; a cliff after the first is a narrow cone."
    yield Figure("Singular values", reading, partial(figures.singular_values, exhibits, table.labels))


def _neighbour_grids(table: StudyTable, exhibits: Sequence[ModelExhibit]) -> Iterator[Grid]:
    """Nearest rows of two tokens in every language, one line per method; translations stand out."""
    groups: dict[tuple[tuple[str, str], ...], list[ModelExhibit]] = {}
    for exhibit in exhibits:
        probes = figures.probe_ids(exhibit)
        words = tuple((name, exhibit.tokens[index]) for name in exhibit.languages.offsets() for index in probes)
        groups.setdefault(words, []).append(exhibit)
    for words, members in groups.items():
        headings = [Styled(_word(*word), "mono") for word in words]
        lines = []
        for exhibit in members:
            cells: list[GridCell | Phrase] = [method_swatch(table.labels, exhibit.label)]
            for (name, index), neighbours in figures.nearest_rows(exhibit).items():
                nearest, *following = (
                    Styled(
                        f"{_word(language, exhibit.tokens[neighbour])} {number(cosine, 2)}",
                        "mark" if neighbour == index and language != name else "mono",
                    )
                    for language, neighbour, cosine in neighbours
                )
                cells.append(GridCell(nearest, below=tuple(following)))
            lines.append(tuple(cells))
        yield Grid(("Method", *headings), tuple(lines), "Nearest neighbours")


def _word(language: str, token: str) -> str:
    return visible_token(token) if language == "all" else f"{visible_token(token)} {language}"


def _samples(table: StudyTable, exhibits: Sequence[ModelExhibit]) -> Iterator[Passage]:
    for exhibit in exhibits:
        for language, text in exhibit.samples.items():
            reading = f"{capitalized(language_name(language))}, seed {exhibit.seed}"
            reading += f", T {exhibit.temperatures[language]:.2f}"
            yield Passage(method_swatch(table.labels, exhibit.label), reading, text)


def _languages(table: StudyTable) -> list[str]:
    return list(dict.fromkeys(row.language for row in table.rows))


def _tone(word: str) -> Literal["good", "bad", ""]:
    return "good" if word == "better" else "bad" if word == "worse" else ""
