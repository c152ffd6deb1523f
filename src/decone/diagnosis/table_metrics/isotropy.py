"""Isotropy I(W) by group, under both rules for the sign of an eigenvector."""

from decone.diagnosis.result import TableFacts
from decone.diagnosis.table_metrics.base import TableMetric


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

    def read(self, facts: TableFacts) -> dict[str, float | None]:
        """I(W) by group."""
        return {group: values.get("raw") for group, values in facts.isotropy.items()}


class IsotropyPlusMinus(TableMetric):
    """I(W) with each eigenvector in both directions."""

    name = "isotropy_plus_minus"
    label = "I(W) ±"
    meaning = "1 is even in all directions, each of them taken both ways"
    better = "higher"
    per_group = True
    comparison = "isotropy, plus and minus"
    position = 11

    def read(self, facts: TableFacts) -> dict[str, float | None]:
        """I(W) of both signs by group."""
        return {group: values.get("plus_minus") for group, values in facts.isotropy.items()}
