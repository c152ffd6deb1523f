"""A comparison in plain words: the effect of each method, seed by seed, and what is clear over all seeds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from decone.document.numbers import bounds, count, number, percent
from decone.files.foreign import visible
from decone.metrics.statistics import Interval
from decone.studies.table import ALIGNED, MAIN, Measure, StudyCell, StudyRow, StudyTable

LANGUAGES = {"HR": "high-resource language", "LR": "low-resource language", "all": "whole text"}
NAMES = {"best_perplexity": "best perplexity", "accuracy": "accuracy"}
LEVEL = "95\N{NO-BREAK SPACE}%"
NOT_RUN = "not run"
ALIGNMENT = Measure("alignment", "alignment", True, 2)


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
