"""Results of many runs as one table: every seed, mean with interval, paired difference, published number."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from decone.metrics.statistics import Interval, mean_interval, paired_difference, share_interval

MAIN = ("best_perplexity", "accuracy")  # measures whose change against the first method is shown
EMPTY = Interval(math.nan, math.nan, math.nan, 0)
ALIGNED = 0.5  # a run's languages count as aligned when more than this share of rows meets its own translation

Scores = Mapping[str, Mapping[int, Mapping[str, float]]]  # label of a row -> seed -> key of a measure -> number
Results = Mapping[str, Mapping[int, dict[str, Any]]]  # label of a method -> seed -> content of result.json


@dataclass(frozen=True)
class Measure:
    """A column: its key, its heading, whether higher is better (None: neither), digits shown, whether seeds matter."""

    key: str
    heading: str
    higher: bool | None
    digits: int
    seeded: bool = True


MEASURES = (
    Measure("perplexity", "PPL", False, 2),
    Measure("best_perplexity", "PPL best", False, 2),
    Measure("best_temperature", "T best", None, 2),
    Measure("accuracy", "Accuracy", True, 4),
    Measure("recall", "Recall@5", True, 4),
    Measure("mrr", "MRR", True, 4),
    Measure("isotropy", "I(W)", True, 4),
)


@dataclass(frozen=True)
class StudyCell:
    """One number of a method in a language.

    Attributes:
        seeds: value of every seed.
        mean: mean over seeds with its 95 % interval.
        difference: mean paired difference against the table's first method, None for that method itself.
        published: the number in the paper, None if there is none.
    """

    seeds: dict[int, float]
    mean: Interval
    difference: Interval | None = None
    published: float | None = None


@dataclass(frozen=True)
class StudyRow:
    """A method in a language; `cells` by the measure's key."""

    label: str
    language: str
    cells: dict[str, StudyCell]


@dataclass(frozen=True)
class LanguageAlignment:
    """Share of low-resource rows that meet their own translation, of each run, and the share of runs above one half."""

    seeds: dict[int, float]
    share: Interval


@dataclass(frozen=True)
class StudyTable:
    """A comparison ready to be drawn, in a terminal, in markdown or on a page.

    Attributes:
        title: heading.
        measures: columns.
        rows: methods by language; what is no language is a heading of its own.
        alignment: by method, where two languages were simulated.
        select: which state of a run counts, "best" or "last".
        notes: sentences under the table.
        main: keys of the measures whose change against the first method is shown.
        absent: stands where the paper's number would, if there is a paper but none of its numbers was found.
    """

    title: str
    measures: tuple[Measure, ...]
    rows: list[StudyRow]
    alignment: dict[str, LanguageAlignment]
    select: str
    notes: list[str] = field(default_factory=list)
    main: tuple[str, ...] = MAIN
    absent: str = ""

    @property
    def labels(self) -> list[str]:
        """The methods, in order."""
        return list(dict.fromkeys(row.label for row in self.rows))


def value(measured: Mapping[str, Any], language: str, measure: str) -> float | None:
    """One number of a result's `measured["best"]` or `measured["last"]`; None where the language was not measured."""
    scores = measured["languages"].get(language)
    if scores is None:
        return None
    if measure == "recall":
        return float(scores["recall"]["5"])
    if measure == "isotropy":
        return float(scores["isotropy"]["raw"])
    return float(scores[measure])


def build(
    title: str,
    results: Results,
    select: str,
    published: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    notes: Sequence[str] = (),
) -> StudyTable:
    """Gathers results into a table.

    Args:
        title: heading of the table.
        results: by method and seed; the first method is the one the others are compared with.
        select: "best" or "last", the checkpoint of each run that counts.
        published: by method, language and key of a measure.
        notes: sentences to stand under the table.

    Returns:
        The table; methods without any finished run have rows whose cells hold no seed (and NaN means).
    """
    languages = list(
        dict.fromkeys(
            language
            for seeds in results.values()
            for result in seeds.values()
            for language in result["measured"][select]["languages"]
        )
    ) or (["HR", "LR"] if published else ["all"])
    first = next(iter(results))
    rows, alignment = [], {}
    for label, seeds in results.items():
        measured = {seed: result["measured"][select] for seed, result in sorted(seeds.items())}
        by_language = (published or {}).get(label)
        for language in languages:
            if by_language is not None and language not in by_language:
                continue  # the paper measures this row in another language only
            numbers = by_language[language] if by_language is not None else None
            cells = {}
            for measure in MEASURES:
                values = _values(results[label], select, language, measure.key)
                base = _values(results[first], select, language, measure.key)
                paired = label != first and len(values.keys() & base.keys()) > 0
                cells[measure.key] = StudyCell(
                    seeds=values,
                    mean=mean_interval(values.values()) if values else EMPTY,
                    difference=paired_difference(values, base) if paired else None,
                    published=numbers[measure.key] if numbers else None,
                )
            rows.append(StudyRow(label, language, cells))
        shares = {seed: float(m["alignment"]) for seed, m in measured.items() if m.get("alignment") is not None}
        if shares and (by_language is None or len(by_language) > 1):
            aligned = sum(share > ALIGNED for share in shares.values())
            alignment[label] = LanguageAlignment(shares, share_interval(aligned, len(shares)))
    return StudyTable(title, MEASURES, rows, alignment, select, list(notes))


def _values(seeds: Mapping[int, dict[str, Any]], select: str, language: str, measure: str) -> dict[int, float]:
    numbers = {seed: value(result["measured"][select], language, measure) for seed, result in sorted(seeds.items())}
    return {seed: number for seed, number in numbers.items() if number is not None}


def build_scores(
    title: str, heading: str, scores: Scores, measures: Sequence[Measure], notes: Sequence[str] = (), absent: str = ""
) -> StudyTable:
    """Gathers numbers into a table.

    Args:
        title: of the table.
        heading: of its only block.
        scores: by row and seed; a number that is not there counts nowhere. The first row is what others are compared
            with.
        measures: columns; differences are shown of those that depend on the seed.
        notes: sentences to stand under the table.
        absent: what stands in place of published numbers.

    Example:
        >>> measure = Measure("a", "A", True, 1)
        >>> table = build_scores("Demo", "dev", {"x": {1: {"a": 1.0}}, "y": {1: {"a": 3.0}, 2: {"a": 9.0}}}, [measure])
        >>> table.rows[1].cells["a"].mean.mean, table.rows[1].cells["a"].difference.mean
        (6.0, 2.0)
    """
    first = next(iter(scores))
    rows = []
    for label in scores:
        cells = {}
        for measure in measures:
            values, base = _numbers(scores[label], measure.key), _numbers(scores[first], measure.key)
            mean = mean_interval(values.values()) if values else EMPTY
            if not measure.seeded:  # the same number at every seed has no interval over them
                mean = Interval(mean.mean, math.nan, math.nan, mean.count)
            paired = label != first and measure.seeded and bool(values.keys() & base.keys())
            cells[measure.key] = StudyCell(
                seeds=values, mean=mean, difference=paired_difference(values, base) if paired else None
            )
        rows.append(StudyRow(label, heading, cells))
    main = tuple(measure.key for measure in measures if measure.seeded)
    return StudyTable(title, tuple(measures), rows, {}, "last", list(notes), main, absent)


def _numbers(seeds: Mapping[int, Mapping[str, float]], key: str) -> dict[int, float]:
    return {seed: numbers[key] for seed, numbers in sorted(seeds.items()) if key in numbers}
