"""The registry of metrics: what is in it, and that one class is enough to be measured, read and limited."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from decone.diagnosis.checks import check_limits, check_names, parse_limits
from decone.diagnosis.result import ScanResult, TableFacts
from decone.diagnosis.scan import table_facts
from decone.diagnosis.table_metrics import TableMetric, base, metric, spectrum, table_metrics
from decone.metrics.table_survey import TableSurvey, survey_table
from decone.models.tables import MemoryTable


def facts() -> TableFacts:
    table = MemoryTable("weight", torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + 1)
    groups = {"frequent": torch.arange(20), "rare": torch.arange(20, 60)}
    return table_facts(survey_table(table, groups, torch.arange(1, 61)))


def test_metrics_equal_the_fields_of_the_schema() -> None:
    measured = facts()
    content = measured.model_dump()
    content["metrics"] = {}
    assert TableFacts.model_validate(content).metrics == measured.metrics  # results without `metrics` are read


def test_every_metric_is_in_the_docs() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`([a-z_]+)`", page.split("## Metrics that a scan shows")[1]))
    assert {entry.name for entry in table_metrics()} <= names


def test_values_of_a_group_and_of_a_table() -> None:
    measured = facts()
    assert metric("cosine").value(measured, "rare") == measured.cosine["rare"]["rare"]
    assert metric("isoscore").value(measured) == measured.spectrum.isoscore
    assert metric("isotropy").value(measured, "absent") is None
    assert metric("energy_first").text(0.25) == "25\N{NO-BREAK SPACE}%"
    with pytest.raises(ValueError, match="choose one of isotropy"):
        metric("nothing")


def test_a_class_in_a_file_of_the_folder_is_enough(
    monkeypatch: pytest.MonkeyPatch, make: Callable[..., ScanResult]
) -> None:
    class RowCount(TableMetric):
        name = "row_count"
        label = "rows"
        meaning = "rows of all groups"
        better = "higher"

        def measure(self, survey: TableSurvey) -> float:
            return float(survey.moments.count)

    RowCount.__module__ = spectrum.__name__
    module: ModuleType = spectrum
    monkeypatch.setattr(module, "RowCount", RowCount, raising=False)
    base.table_metrics.cache_clear()
    try:
        assert facts().metrics["row_count"] == 60
        assert "row-count" in check_names()
        result = make(tables={"embedding": facts()})
        low, high = (check_limits(result, parse_limits(f"row-count={limit}"))[0] for limit in (60, 61))
        assert low.passed
        assert not high.passed
    finally:
        base.table_metrics.cache_clear()
