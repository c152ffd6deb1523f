"""Mean cosines between different rows: within each group, and from each group to others."""

from decone.diagnosis.table_metrics.base import TableMetric
from decone.metrics.table_survey import TableSurvey


class MeanCosine(TableMetric):
    """Mean cosine within a group; that of "all" is the anisotropy of Ethayarajh (2019)."""

    name = "cosine"
    label = "own cosine"
    meaning = "0 is spread evenly, 1 is one direction"
    format = "signed"
    better = "lower"
    per_group = True
    key = "Mean cosine"
    comparison = "mean cosine"
    position = 20

    def measure(self, survey: TableSurvey) -> dict[str, float | None]:
        """Mean cosine within each group."""
        return {group: cosines.get(group) for group, cosines in survey.cosine.items()}


class CosineToFrequent(TableMetric):
    """Mean cosine between the rows of a group and the frequent rows."""

    name = "cosine_to_frequent"
    label = "to frequent"
    meaning = "mean cosine to frequent rows"
    format = "signed"
    per_group = True
    position = 21

    def measure(self, survey: TableSurvey) -> dict[str, float | None]:
        """Mean cosine of each group to frequent rows."""
        return {group: cosines.get("frequent") for group, cosines in survey.cosine.items()}


class CosineToAll(TableMetric):
    """Mean cosine between the rows of a group and all rows."""

    name = "cosine_to_all"
    label = "to all"
    meaning = "mean cosine to all rows"
    format = "signed"
    better = "lower"
    per_group = True
    position = 22

    def measure(self, survey: TableSurvey) -> dict[str, float | None]:
        """Mean cosine of each group to all rows."""
        return {group: cosines.get("all") for group, cosines in survey.cosine.items()}
