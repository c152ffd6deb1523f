"""A scan as one HTML file: the verdict first, then the numbers and plots that it rests on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from decone.diagnosis.drawing import Drawing
from decone.diagnosis.result import ScanResult, TableFacts
from decone.report import scan_plots
from decone.report.format import count
from decone.report.frame import Canvases, Plot, Section, document, read, save
from decone.report.scan_behaviour import behaviour
from decone.report.scan_beside import against, similarity
from decone.report.scan_blame import blame
from decone.report.scan_rows import never_trained, suspects
from decone.report.scan_sections import made, numbers, top, verdicts
from decone.report.scan_strings import sentence
from decone.report.scan_style import GROUP, TABLES, colours, swatches

RANK = "frequency rank, 1 is the most frequent"
RANKS = {"merges": "frequency rank, guessed from the ids", "none": "id + 1"}


def write(path: Path, result: ScanResult, drawings: Sequence[Drawing]) -> Path:
    """Writes the page beside its place and renames it, so that a kill leaves the old page or the new one.

    Args:
        path: the file, by custom scan.html; its folder is there.
        result: what the scan found; every string in it is treated as hostile.
        drawings: coordinates of some rows of each table; may be empty.

    Returns:
        The path.

    Raises:
        ValueError: plotly is missing, or the file cannot be written.
    """
    return save(path, _page(result, drawings))


def _page(result: ScanResult, drawings: Sequence[Drawing]) -> str:
    canvases = Canvases()
    sections = [
        Section("findings", "Verdicts", "", verdicts(result)),
        Section("numbers", "Numbers", "", numbers(result)),
        Section("tables", "Shape of the table", _lede(result), canvases.grid(list(_plots(result, drawings)))),
        Section("suspects", "Suspects", "Tokens that texts can hold but that seem never trained.", suspects(result)),
        Section("rows", "Rows never trained", "Rows that cannot carry meaning, by kind.", never_trained(result)),
    ]
    if result.behaviour is not None:
        lede = f"What it makes of {sentence(result.behaviour.text, 80)}, {result.behaviour.tokens:,} tokens."
        sections.append(Section("behaviour", "Behaviour", lede, behaviour(result.behaviour, canvases)))
    if result.blame is not None:
        lede = f"What moves the rows of the output table, over {count(result.blame.steps, 'step')} of training."
        sections.append(Section("blame", "Gradients", lede, blame(result.blame, canvases)))
    if result.words:
        lede = "Cosine of rows against what people say of the same words."
        sections.append(Section("words", "Word similarity", lede, similarity(result.words, canvases)))
    if result.against is not None:
        lede = f"Beside {sentence(result.against.reference, 120)}, which counts as before."
        sections.append(Section("against", "Before and after", lede, against(result.against)))
    sections.append(Section("made", "How it was made", "", made(result)))
    title = f"{sentence(result.model.name, 80)}: decone scan"
    styles = read("scan.css") + swatches(list(GROUP))
    return document(title, top(result), sections, canvases, colours(), styles, ["scan.js"])


def _lede(result: ScanResult) -> str:
    said = "Colours are frequency groups; point at a dot to see its token."
    return said if len(result.tables) == 1 else f"Embedding and output table side by side. {said}"


def _plots(result: ScanResult, drawings: Sequence[Drawing]) -> Iterator[Plot]:
    by_table = {drawing.table: drawing for drawing in drawings}
    tables: list[tuple[str, TableFacts]] = [(name, facts) for name, facts in result.tables.items()]

    def which(name: str) -> str:
        return f" <small>{TABLES[name]}</small>" if len(tables) > 1 else ""

    for name, _ in tables:
        if name in by_table:
            how = f"{len(by_table[name].ids):,} rows on their two main components; crosses are suspects. "
            how += "Groups that lie apart are told apart by frequency, not by meaning."
            yield Plot(f"Do rare tokens lie apart?{which(name)}", how, scan_plots.plane(by_table[name]))
    for name, facts in tables:
        how = "Pairs of rows by group, each lane as high as its own peak; tick and number are the mean. "
        how += "Around 0 is healthy; a hill to the right is a cone."
        drawn = scan_plots.cosines(facts.histograms, facts.cosine)
        if facts.histograms:
            yield Plot(f"Do rows point the same way?{which(name)}", how, drawn)
    for name, facts in tables:
        how = "The line is the median, the band the middle half, a dot a row. "
        how += "A slope means that length tells frequency; a heap at the right end was hardly trained."
        drawn = scan_plots.norms(facts.norms, by_table.get(name), RANKS.get(result.frequencies.source, RANK))
        yield Plot(f"Does length give frequency away?{which(name)}", how, drawn)
    if not tables:
        return
    how = "A slow fall uses many directions; a cliff after the first is a narrow cone. Dashed is the effective rank."
    yield Plot("How many directions are used?", how, scan_plots.spectrum(dict(tables)), wide=len(tables) > 1)
