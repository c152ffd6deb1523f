"""A comparison in plain words: the effect of each method by seed and over all seeds, and the provenance of its runs.

Provenance is settings, corpus, checkpoint rule, versions, machines and dates.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from decone.document.blocks import ContentBlock, Facts, Folded, Grid, Note, Phrase, Swatch, dotted_pairs
from decone.document.figures import colour, mark
from decone.document.numbers import DASH, bounds, count, number, percent
from decone.files.foreign import visible
from decone.metrics.statistics import Interval
from decone.studies.table import ALIGNED, MAIN, Measure, Results, StudyCell, StudyRow, StudyTable

LANGUAGES = {"HR": "high-resource language", "LR": "low-resource language", "all": "whole text"}
NAMES = {"best_perplexity": "best perplexity", "accuracy": "accuracy"}
LEVEL = "95\N{NO-BREAK SPACE}%"
NOT_RUN = "not run"
ALIGNMENT = Measure("alignment", "alignment", True, 2)
IDENTITY = ("method", "seed")  # settings that the rows and dots say already
RULES = {
    "best": "the checkpoint with the lowest validation loss of each run, looked at every {every} steps",
    "last": "the last checkpoint of each run",
}


@dataclass(frozen=True)
class SeedChange:
    """One number of one seed as text, before (first method) and after (this method), and a word for the change."""

    name: str
    before: str
    after: str
    word: str


@dataclass(frozen=True)
class MethodFindings:
    """A method against the first one.

    Attributes:
        label: the method.
        runs: number of its finished runs.
        language: the language that `seeds` is about: the low-resource one, if there is one.
        seeds: changes of every common seed.
        verdicts: name of a measure and what is clear about it over all seeds, for every language.
        sentences: the same in words, with intervals; they do not name the method again.
    """

    label: str
    runs: int
    language: str
    seeds: dict[int, list[SeedChange]] = field(default_factory=dict)
    verdicts: list[tuple[str, str]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


def language_name(name: str) -> str:
    """A language in words.

    Example:
        >>> language_name("LR"), language_name("Maltese")
        ('low-resource language (LR)', 'Maltese')
    """
    if name not in LANGUAGES:
        return visible(name)
    return LANGUAGES[name] if name == "all" else f"{LANGUAGES[name]} ({name})"


def capitalized(text: str) -> str:
    """A text with a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def seed_range(counts: Iterable[int]) -> str:
    """The number of seeds behind the cells of a line, or the least and the most.

    Example:
        >>> seed_range([3, 3]), seed_range([2, 0, 3]), seed_range([0])
        ('3', '0–3', 'not run')
    """
    ordered = sorted(set(counts))
    if not ordered or ordered == [0]:
        return NOT_RUN
    return str(ordered[0]) if len(ordered) == 1 else f"{ordered[0]}–{ordered[-1]}"


def is_clear(difference: Interval) -> bool:
    """True where an interval excludes 0; one seed has no interval, so nothing is clear."""
    return difference.low > 0 or difference.high < 0


def verdict(measure: Measure, difference: Interval) -> str:
    """A difference in a word: better, worse, higher or lower; not clear while its interval includes 0.

    Example:
        >>> verdict(Measure("perplexity", "PPL", False, 2), Interval(-2.0, -3.0, -1.0, 3))
        'better'
        >>> verdict(Measure("perplexity", "PPL", False, 2), Interval(-2.0, -5.0, 1.0, 3))
        'not clear with 3 seeds'
    """
    if not is_clear(difference):
        return f"not clear with {count(difference.count, 'seed')}"
    if measure.higher is None:
        return "higher" if difference.mean > 0 else "lower"
    return "better" if (difference.mean > 0) == measure.higher else "worse"


def main_language(table: StudyTable) -> str:
    """The language a comparison is about: LR, or the first one."""
    languages = [row.language for row in table.rows]
    return "LR" if "LR" in languages else languages[0]


def compare_methods(table: StudyTable) -> list[MethodFindings]:
    """Compares each method after the first with the first; never claims a benefit whose interval includes 0.

    Example:
        >>> from decone.studies.table import build
        >>> compare_methods(build("Demo", {"mle": {}, "threshold": {}}, "best"))[0].sentences
        ['Not run yet.']
    """
    rows = {(row.label, row.language): row for row in table.rows}
    first, *labels = table.labels
    return [_findings(table, rows, label, first) for label in labels]


def _findings(table: StudyTable, rows: dict[tuple[str, str], StudyRow], label: str, first: str) -> MethodFindings:
    language = main_language(table)
    languages = [language, *(name for name in dict.fromkeys(key[1] for key in rows) if name != language)]
    measures = [measure for measure in table.measures if measure.key in MAIN]
    run = {seed for (owner, _), row in rows.items() if owner == label for seed in row.cells[MAIN[0]].seeds}
    if not run:
        return MethodFindings(label, 0, language, sentences=["Not run yet."])
    paragraphs: list[str] = []
    verdicts: list[tuple[str, str]] = []
    for name in languages:
        row = rows.get((label, name))
        compared = [(m, row.cells[m.key]) for m in measures if row and row.cells[m.key].difference]
        if compared:
            paragraphs.append(_sentence(language_name(name), compared))
        prefix = f"{visible(name)} " if len(languages) > 1 else ""
        verdicts += [(prefix + NAMES[m.key], verdict(m, cell.difference)) for m, cell in compared if cell.difference]
    if not paragraphs:
        reason = f"No seed in common with {visible(first)}, so there is nothing to compare."
        return MethodFindings(label, len(run), language, sentences=[reason])
    seeds = _seed_changes(table, rows.get((label, language)), rows.get((first, language)), measures)
    return MethodFindings(label, len(run), language, seeds, verdicts, paragraphs + _aligned(table, label, first))


def _seed_changes(
    table: StudyTable, row: StudyRow | None, reference: StudyRow | None, measures: Sequence[Measure]
) -> dict[int, list[SeedChange]]:
    seeds: dict[int, list[SeedChange]] = {}
    if row is None or reference is None:
        return seeds
    for measure in measures:
        after, before = row.cells[measure.key].seeds, reference.cells[measure.key].seeds
        for seed in sorted(after.keys() & before.keys()):
            seeds.setdefault(seed, []).append(_change(measure, before[seed], after[seed]))
    if row.label in table.alignment and reference.label in table.alignment:
        after, before = table.alignment[row.label].seeds, table.alignment[reference.label].seeds
        for seed in sorted(after.keys() & before.keys() & seeds.keys()):
            seeds[seed].append(_change(ALIGNMENT, before[seed], after[seed]))
    return seeds


def _sentence(language: str, compared: Sequence[tuple[Measure, StudyCell]]) -> str:
    runs = max(cell.difference.count for _, cell in compared if cell.difference is not None)
    clauses = "; ".join(_clause(measure, cell.difference) for measure, cell in compared if cell.difference is not None)
    return f"{capitalized(language)}, {count(runs, 'seed')}: {clauses}."


def _clause(measure: Measure, difference: Interval) -> str:
    mean = number(difference.mean, measure.digits, signed=True)
    word = verdict(measure, difference)
    if math.isnan(difference.low):
        return f"{NAMES[measure.key]} {mean}, {word}"
    interval = f"{LEVEL} interval {bounds(difference, measure.digits, signed=True)}"
    return f"{NAMES[measure.key]} {mean} ({interval}), {word}"


def _change(measure: Measure, before: float, after: float) -> SeedChange:
    old, new = (percent(x) if measure is ALIGNMENT else number(x, measure.digits) for x in (before, after))
    name = NAMES.get(measure.key, measure.heading)
    if old == new:
        return SeedChange(name, old, new, "no change")
    if math.isnan(before) or math.isnan(after):
        return SeedChange(name, old, new, "not comparable")
    return SeedChange(name, old, new, "better" if (after > before) == measure.higher else "worse")


def _aligned(table: StudyTable, label: str, first: str) -> list[str]:
    alignment = table.alignment.get(label)
    if alignment is None:
        return []
    aligned, runs = aligned_runs(alignment.seeds.values())
    interval = f"{LEVEL} interval {percent(alignment.share.low)} to {percent(alignment.share.high)}"
    text = f"The two languages aligned in {aligned} of {count(runs, 'run')} ({interval})"
    if first in table.alignment:
        text += ", in {} of {} with {}".format(*aligned_runs(table.alignment[first].seeds.values()), visible(first))
    if 0 < aligned < runs:
        return [f"{text}.", "The runs fall into two groups, and a mean describes neither: look at every seed."]
    return [f"{text}."]


def aligned_runs(shares: Iterable[float]) -> tuple[int, int]:
    """The number of runs whose languages aligned, and of all."""
    values = list(shares)
    return sum(share > ALIGNED for share in values), len(values)


def provenance_blocks(table: StudyTable, results: Results, provenance: Mapping[str, Any]) -> Iterator[ContentBlock]:
    """Blocks about the runs of a comparison; `provenance` describes the drawing of the page."""
    runs = [result for seeds in results.values() for result in seeds.values()]
    common, differing = split_settings(results)
    yield Facts(tuple(_run_facts(table, runs, common)))
    if differing:
        labels = [label for label in table.labels if results.get(label)]
        lines = [(key, *(values.get(label, DASH) for label in labels)) for key, values in differing.items()]
        yield Grid(
            ("Setting", *(method_swatch(table.labels, label) for label in labels)), tuple(lines), "Settings that differ"
        )
    elif len(runs) > 1:
        yield Note("Apart from method and seed, all runs have the same settings.")
    for heading, pairs in (("Settings of all runs", common), ("Drawn with", dict(dotted_pairs(provenance)))):
        if pairs:
            yield Folded(heading, (Facts(tuple(pairs.items())),))


def split_settings(results: Results) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Splits settings into those that all runs share and those that differ.

    Returns:
        Value by dotted key; and, for each key that is not the same in all runs, the values of each method. Method, seed
        and the machine's section are left out of both.
    """
    values: dict[str, dict[str, list[str]]] = {}
    for label, runs in results.items():
        for result in runs.values():
            for key, value in dotted_pairs(result["config"]):
                if key not in IDENTITY and not key.startswith("machine."):
                    distinct = values.setdefault(key, {}).setdefault(label, [])
                    distinct += [value] if value not in distinct else []
    labels = [label for label, runs in results.items() if runs]
    common: dict[str, str] = {}
    differing: dict[str, dict[str, str]] = {}
    for key, by_label in values.items():
        distinct = list(dict.fromkeys(value for texts in by_label.values() for value in texts))
        if len(distinct) == 1 and len(by_label) == len(labels):
            common[key] = distinct[0]
        else:
            differing[key] = {label: " or ".join(texts) for label, texts in by_label.items()}
    return common, differing


def _run_facts(
    table: StudyTable, runs: Sequence[Mapping[str, Any]], common: Mapping[str, str]
) -> Iterator[tuple[str, Phrase]]:
    if not runs:
        yield "Runs", "none is finished"
        return
    yield "Runs", f"{count(len(runs), 'run')} of {common.get('steps', 'differing')} steps"
    yield from (("Corpus", line) for line in _distinct(_corpus(run.get("corpus", {})) for run in runs))
    yield "What is measured", RULES[table.select].format(every=common.get("evaluation.every", "some"))
    yield from (("Model", line) for line in _distinct(map(_model, runs)))
    yield from (("Machine", line) for line in _distinct(_machine(run.get("machine", {})) for run in runs))
    yield from (("Versions", line) for line in _distinct(_versions(run.get("versions", {})) for run in runs))
    yield from (("Commit", line) for line in _distinct(str(run.get("commit") or "") for run in runs))
    days = sorted(str(run["date"])[:10] for run in runs if run.get("date"))
    if days:
        yield "Date", " to ".join(dict.fromkeys((days[0], days[-1])))
    seconds = sum(float(run.get("seconds", 0)) for run in runs)
    yield "Time", f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"


def _distinct(lines: Iterable[str]) -> list[str]:
    return [line for line in dict.fromkeys(lines) if line]


def _corpus(corpus: Mapping[str, Any]) -> str:
    if not corpus:
        return ""
    tokens = f", {corpus['tokens']:,} tokens" if isinstance(corpus.get("tokens"), int) else ""
    digest = f", SHA-256 {str(corpus['sha256'])[:12]}…" if corpus.get("sha256") else ""
    source = f" ({corpus['source']})" if corpus.get("source") else ""
    return f"{corpus.get('name')}{source}{tokens}{digest}"


def _model(run: Mapping[str, Any]) -> str:
    units = (("parameters", "parameters"), ("vocabulary", "token ids"))
    return ", ".join(f"{run[key]:,} {unit}" for key, unit in units if key in run)


def _machine(machine: Mapping[str, Any]) -> str:
    cores = count(machine["cores"], "core") if isinstance(machine.get("cores"), int) else ""
    items = (machine.get("accelerator"), machine.get("processor"), cores, machine.get("system"))
    return ", ".join(str(item) for item in items if item)


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items() if version)


def method_swatch(labels: Sequence[str], label: str) -> Swatch:
    """A method's name with the dot of its colour in figures; a method that is none of the labels comes after them."""
    index = labels.index(label) if label in labels else len(labels)
    return Swatch(label, colour(index), hollow=mark(index) != "circle", mono=True)
