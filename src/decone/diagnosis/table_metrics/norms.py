"""Metrics of the lengths of rows and of the direction they share."""

from decone.diagnosis.result import TableFacts
from decone.diagnosis.table_metrics.base import TableMetric


class MeanDirection(TableMetric):
    """Length of the mean row over the mean length of rows."""

    name = "mean_direction"
    label = "mean direction"
    meaning = "length of the mean row over the mean length: 0 cancels out, 1 is one direction"
    better = "lower"
    comparison = "mean direction"
    position = 40

    def read(self, facts: TableFacts) -> float:
        """Mean direction of the table."""
        return facts.mean_direction


class MedianNorm(TableMetric):
    """Median length of rows."""

    name = "median_norm"
    label = "median norm"
    meaning = "length of the median row"
    comparison = "median norm"
    position = 41

    def read(self, facts: TableFacts) -> float | None:
        """Median length of the rows."""
        return facts.norms.quantiles.get("0.5")


class NormRankCorrelation(TableMetric):
    """Spearman correlation of norm and frequency rank."""

    name = "norm_rank_correlation"
    label = "correlation of norm and frequency rank"
    meaning = "Spearman correlation: positive where rare rows are longer"
    format = "signed"
    position = 42

    def read(self, facts: TableFacts) -> float | None:
        """Rank correlation of norm and frequency."""
        return facts.norms.rank_correlation
