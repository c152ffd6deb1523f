"""Metrics of a table that a scan shows; each file of this folder may define some, and is found by itself."""

from decone.diagnosis.table_metrics.base import TableMetric, metric, table_metrics

__all__ = ["TableMetric", "metric", "table_metrics"]
