"""Metrics of the singular values and of the covariance of a table."""

from decone.diagnosis.result import ModelFacts
from decone.diagnosis.table_metrics.base import TableMetric
from decone.document.numbers import proportion
from decone.metrics.table_geometry import effective_rank_of, energy_share, isoscore_of
from decone.metrics.table_survey import TableSurvey


class EffectiveRank(TableMetric):
    """Effective rank (Roy and Vetterli 2007)."""

    name = "effective_rank"
    label = "effective rank"
    meaning = "exp of the entropy of the singular values: how many directions the table uses"
    format = "integer"
    better = "higher"
    key = "Effective rank"
    comparison = "effective rank"
    position = 30

    def measure(self, survey: TableSurvey) -> float:
        """Effective rank of the singular values."""
        return effective_rank_of(survey.singular_values)

    def hint(self, model: ModelFacts) -> str:
        """Highest possible rank."""
        return f"of {min(model.rows, model.width):,} directions"


class IsoScore(TableMetric):
    """IsoScore (Rudman et al. 2022)."""

    name = "isoscore"
    label = "IsoScore"
    meaning = "1 is a variance that is equal in all directions"
    better = "higher"
    comparison = "isoscore"
    position = 31

    def measure(self, survey: TableSurvey) -> float:
        """IsoScore of the covariance."""
        return isoscore_of(survey.covariance)


class EnergyFirst(TableMetric):
    """Share of the squared singular values in the first."""

    name = "energy_first"
    label = "energy in the first direction"
    meaning = "share of the squared singular values in the first"
    format = "share"
    better = "lower"
    key = "First direction"
    position = 32

    def measure(self, survey: TableSurvey) -> float:
        """Energy of the first direction."""
        return energy_share(survey.singular_values, 1)

    def hint(self, model: ModelFacts) -> str:
        """Share of a table that uses all directions evenly."""
        return "of the energy; even would be " + proportion(1.0, min(model.rows, model.width))


class EnergyTen(TableMetric):
    """Share of the squared singular values in the first ten."""

    name = "energy_ten"
    label = "energy in the first ten directions"
    meaning = "share of the squared singular values in the first ten"
    format = "share"
    better = "lower"
    position = 33

    def measure(self, survey: TableSurvey) -> float:
        """Energy of the first ten directions."""
        return energy_share(survey.singular_values, 10)
