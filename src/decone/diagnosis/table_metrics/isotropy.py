"""Isotropy I(W) by group, under both rules for the sign of an eigenvector."""

from decone.diagnosis.table_metrics.base import TableMetric
from decone.metrics.table_survey import TableSurvey


class IsotropyRaw(TableMetric):
    """I(W) with each eigenvector turned to the rows' mean."""

    name = "isotropy"
    label = "I(W)"
    meaning = "1 is even in all directions"
    better = "higher"
    per_group = True
    key = "Isotropy I(W)"
    comparison = "isotropy, raw"
    position = 10

    def measure(self, survey: TableSurvey) -> dict[str, float | None]:
        """I(W) by group."""
        return {group: value.raw for group, value in survey.isotropy.items()}


class IsotropyPlusMinus(TableMetric):
    """I(W) with each eigenvector in both directions."""

    name = "isotropy_plus_minus"
    label = "I(W) ±"
    meaning = "1 is even in all directions, each of them taken both ways"
    better = "higher"
    per_group = True
    comparison = "isotropy, plus and minus"
    position = 11

    def measure(self, survey: TableSurvey) -> dict[str, float | None]:
        """I(W) of both signs by group."""
        return {group: value.plus_minus for group, value in survey.isotropy.items()}
