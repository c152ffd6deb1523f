"""Metrics of the singular values and of the covariance of a table."""

from decone.diagnosis.result import ModelFacts, TableFacts
from decone.diagnosis.table_metrics.base import TableMetric
from decone.document.numbers import proportion


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

    def read(self, facts: TableFacts) -> float:
        """Effective rank of the table."""
        return facts.spectrum.effective_rank

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

    def read(self, facts: TableFacts) -> float:
        """IsoScore of the table."""
        return facts.spectrum.isoscore


class EnergyFirst(TableMetric):
    """Share of the squared singular values in the first."""

    name = "energy_first"
    label = "energy in the first direction"
    meaning = "share of the squared singular values in the first"
    format = "share"
    better = "lower"
    key = "First direction"
    position = 32

    def read(self, facts: TableFacts) -> float:
        """Energy of the first direction."""
        return facts.spectrum.energy_first

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

    def read(self, facts: TableFacts) -> float:
        """Energy of the first ten directions."""
        return facts.spectrum.energy_ten
