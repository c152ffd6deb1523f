"""A number of a table that a scan computes and shows, and all such numbers, found by file.

A new metric is one file in this folder with one class derived from `TableMetric`, its test, and a row in
docs/metrics.md. It computes from the survey of a table, whose two readings all metrics share. It then stands in the
JSON (`tables.*.metrics`), on the page, in the terminal, in markdown, with a `comparison` also beside the reference of
`--against`, and can be limited by `--check NAME=LIMIT`. No other file is edited.

A view shows them so:

    for metric in table_metrics():
        if metric.per_group:                       # a column of the grid of groups, headed metric.label
            cells = [metric.text(metric.value(facts, group)) for group in groups]
        else:                                      # a pair of the line below that grid
            pair = metric.label, metric.text(metric.value(facts))
    tiles = [metric for metric in table_metrics() if metric.key]   # large numbers: metric.key, metric.hint(model)
"""

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from functools import cache
from typing import ClassVar, Literal

from decone.diagnosis.result import ModelFacts, TableFacts
from decone.document.numbers import number, proportion, significant
from decone.files.foreign import quoted
from decone.metrics.table_survey import TableSurvey

_PACKAGE = "decone.diagnosis.table_metrics"


class TableMetric(ABC):
    """A number of a table, or one number per frequency group and "all".

    Attributes:
        name: key in the JSON; with hyphens for underscores also the name of a limit in `--check`.
        label: short heading of a column or a value.
        meaning: one sentence for readers who do not know the metric.
        format: "significant" digits, "signed" with three decimals, a "share" in percent, or "integer".
        better: a higher number is better, a lower one, or neither; `--check` limits the worse side.
        per_group: one number for each group.
        key: title among the few large numbers of a page; empty for none.
        comparison: name beside the reference of `--against`; empty leaves the metric out.
        position: order among all metrics.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    meaning: ClassVar[str]
    format: ClassVar[Literal["significant", "signed", "share", "integer"]] = "significant"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "neither"
    per_group: ClassVar[bool] = False
    key: ClassVar[str] = ""
    comparison: ClassVar[str] = ""
    position: ClassVar[int] = 100

    @abstractmethod
    def measure(self, survey: TableSurvey) -> float | dict[str, float | None] | None:
        """Computes the number, or by group and for "all"; None where it cannot be determined."""

    def value(self, facts: TableFacts, group: str = "all") -> float | None:
        """The number of a group in a result; of the table where the metric is not per group. None for unknown."""
        values = facts.metrics.get(self.name)
        return values.get(group) if isinstance(values, dict) else values

    def text(self, value: float | None) -> str:
        """A value as a view writes it; a dash for None."""
        match self.format:
            case "share":
                return proportion(value)
            case "signed" if value is not None:
                return number(value, 3, signed=True)
            case "integer" if value is not None:
                return number(value, 0)
        return significant(value)

    def hint(self, model: ModelFacts) -> str:
        """A few words below the large number of a page."""
        return self.meaning


@cache
def table_metrics() -> tuple[TableMetric, ...]:
    """All metrics of tables, in the order in which views show them.

    Example:
        >>> [metric.label for metric in table_metrics()][:2]
        ['I(W)', 'I(W) ±']
    """
    package = importlib.import_module(_PACKAGE)
    modules = [importlib.import_module(f"{_PACKAGE}.{file.name}") for file in pkgutil.iter_modules(package.__path__)]
    metrics = [
        member()
        for module in modules
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, TableMetric) and member.__module__ == module.__name__ and not inspect.isabstract(member)
    ]
    return tuple(sorted(metrics, key=lambda metric: (metric.position, metric.name)))


def metric(name: str) -> TableMetric:
    """The metric of a name.

    Raises:
        ValueError: there is none; the message lists them.

    Example:
        >>> metric("isoscore").better
        'higher'
    """
    metrics = {metric.name: metric for metric in table_metrics()}
    if name not in metrics:
        raise ValueError(f"no metric is called {quoted(name)}; choose one of {', '.join(metrics)}")
    return metrics[name]
