"""Tables of scores: means and differences over the seeds that are there, none for what no seed changes."""

import math

import pytest
from rich.console import Console
from scipy import stats

from decone.document import markdown, terminal
from decone.studies.scores import build
from decone.studies.table import Measure, Table
from decone.studies.view import table_document

MEASURES = (Measure("a", "A", True, 2), Measure("b", "B", True, 2), Measure("fixed", "F", True, 2, seeded=False))
BASE = {1: {"a": 1.0, "b": 5.0, "fixed": 7.0}, 2: {"a": 2.0, "fixed": 7.0}, 3: {"a": 4.0, "fixed": 7.0}}
OTHER = {1: {"a": 3.0, "fixed": 6.0}, 2: {"a": 3.0, "fixed": 6.0}, 9: {"a": 100.0, "fixed": 6.0}}


@pytest.fixture
def table() -> Table:
    return build("Demo", "development sets", {"x": BASE, "y": OTHER, "z": {}}, MEASURES, ["a note"], "none found")


def test_cells(table: Table) -> None:
    x, y, z = table.rows
    low, high = stats.t.interval(0.95, 2, 7 / 3, stats.sem([1, 2, 4]))
    assert (x.cells["a"].mean.low, x.cells["a"].mean.high) == pytest.approx((low, high))
    assert x.cells["a"].difference is None
    assert x.cells["b"].mean.count == 1
    difference = y.cells["a"].difference
    assert difference is not None, "seeds 1 and 2, never 9"
    assert (difference.mean, difference.count) == (1.5, 2), "seeds 1 and 2, never 9"
    assert y.cells["b"].mean.count == 0
    assert y.cells["b"].difference is None
    fixed = y.cells["fixed"]
    assert fixed.mean.mean == 6.0
    assert fixed.mean.count == 3
    assert math.isnan(fixed.mean.low), "no interval over seeds that change nothing"
    assert fixed.difference is None, "no interval over seeds that change nothing"
    assert z.cells["a"].mean.count == 0
    assert table.main == ("a", "b")


def test_a_table_says_that_no_number_was_found(table: Table) -> None:
    console = Console(width=100)
    with console.capture() as shown:
        console.print(terminal.render(table_document(table)))
    for text in (shown.get(), markdown.render(table_document(table))):
        assert text.count("paper: none found") == 3
        assert "not run" in text
        assert "a note" in text
        assert "1–3" in text
        assert "0–3" in text
    lines = markdown.render(table_document(table)).splitlines()
    assert "| **x** | 1–3 | 2.33 ±3.79 | 5.00 | 7.00 |" in lines
    assert "| change | 2 | +1.50 ±6.35 not clear with 2 seeds |  |  |" in lines
    assert "| Method | Seed | A | B |" in lines, "one block needs no name in the table of seeds"
