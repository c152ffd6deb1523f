"""Metrics of the lengths of rows and of the direction they share."""

from decone.diagnosis.table_metrics.base import TableMetric
from decone.metrics.statistics import spearman
from decone.metrics.table_geometry import norm_quantiles
from decone.metrics.table_survey import TableSurvey


class MeanDirection(TableMetric):
    """Length of the mean row over the mean length of rows."""

    name = "mean_direction"
    label = "mean direction"
    meaning = "length of the mean row over the mean length: 0 cancels out, 1 is one direction"
    better = "lower"
    comparison = "mean direction"
    position = 40

    def measure(self, survey: TableSurvey) -> float:
        """Mean direction of all rows."""
        return survey.mean_direction


class MedianNorm(TableMetric):
    """Median length of rows."""

    name = "median_norm"
    label = "median norm"
    meaning = "length of the median row"
    comparison = "median norm"
    position = 41

    def measure(self, survey: TableSurvey) -> float:
        """Median length of the rows."""
        return norm_quantiles(survey.norms)["0.5"]


class NormRankCorrelation(TableMetric):
    """Spearman correlation of norm and frequency rank."""

    name = "norm_rank_correlation"
    label = "correlation of norm and frequency rank"
    meaning = "Spearman correlation: positive where rare rows are longer"
    format = "signed"
    position = 42

    def measure(self, survey: TableSurvey) -> float | None:
        """Rank correlation; None where frequencies are unknown."""
        return None if survey.rank is None else spearman(survey.norms.numpy(), survey.rank.double().numpy())
