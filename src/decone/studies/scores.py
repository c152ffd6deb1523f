"""Numbers of rows over seeds as a table: means with intervals, differences paired by seed."""

import math
from collections.abc import Mapping, Sequence

from decone.metrics.statistics import Interval, mean_interval, paired_difference
from decone.studies.table import Cell, Measure, Row, Table

EMPTY = Interval(math.nan, math.nan, math.nan, 0)
Scores = Mapping[str, Mapping[int, Mapping[str, float]]]  # label of a row -> seed -> key of a measure -> number


def build(
    title: str, heading: str, scores: Scores, measures: Sequence[Measure], notes: Sequence[str] = (), absent: str = ""
) -> Table:
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
        >>> table = build("Demo", "dev", {"x": {1: {"a": 1.0}}, "y": {1: {"a": 3.0}, 2: {"a": 9.0}}}, [measure])
        >>> table.rows[1].cells["a"].mean.mean, table.rows[1].cells["a"].difference.mean
        (6.0, 2.0)
    """
    first = next(iter(scores))
    rows = []
    for label in scores:
        cells = {}
        for measure in measures:
            values, base = _values(scores[label], measure.key), _values(scores[first], measure.key)
            mean = mean_interval(values.values()) if values else EMPTY
            if not measure.seeded:  # the same number at every seed has no interval over them
                mean = Interval(mean.mean, math.nan, math.nan, mean.count)
            paired = label != first and measure.seeded and bool(values.keys() & base.keys())
            cells[measure.key] = Cell(
                seeds=values, mean=mean, difference=paired_difference(values, base) if paired else None
            )
        rows.append(Row(label, heading, cells))
    main = tuple(measure.key for measure in measures if measure.seeded)
    return Table(title, tuple(measures), rows, {}, "last", list(notes), main, absent)


def _values(seeds: Mapping[int, Mapping[str, float]], key: str) -> dict[int, float]:
    return {seed: numbers[key] for seed, numbers in sorted(seeds.items()) if key in numbers}
