"""Results as a table: which seeds count, what is paired with what, where there is nothing."""

import math
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from decone.document import markdown, terminal
from decone.studies.table import MEASURES, Measure, StudyTable, build, build_scores, value
from decone.studies.view import table_document

KEYS = [measure.key for measure in MEASURES]
NAN = pytest.approx(math.nan, nan_ok=True)


def scores(number: float) -> dict[str, Any]:
    plain = {measure.key: number for measure in MEASURES}
    return {**plain, "recall": {"5": number + 5}, "isotropy": {"raw": number + 7, "plus_minus": 0.0}}


def result(high: float, low: float | None = None, alignment: float | None = None) -> dict[str, Any]:
    languages = {"HR": scores(high)} | ({} if low is None else {"LR": scores(low)})
    chosen = {"languages": languages} | ({} if alignment is None else {"alignment": alignment})
    return {"measured": {"best": chosen, "last": {"languages": {"HR": scores(100.0)}}}}


def test_cells_hold_every_seed_and_the_mean() -> None:
    table = build("title", {"a": {2: result(4.0), 1: result(1.0), 3: result(4.0)}}, "best")
    (row,) = table.rows
    cell = row.cells["perplexity"]
    assert (table.title, table.select, row.label, row.language) == ("title", "best", "a", "HR")
    assert list(cell.seeds.items()) == [(1, 1.0), (2, 4.0), (3, 4.0)]
    # t for 2 degrees of freedom is 4.3027, the sample deviation is sqrt(3), n is 3: the reach is 4.3027.
    assert (cell.mean.mean, cell.mean.count) == (3.0, 3)
    assert (cell.mean.low, cell.mean.high) == pytest.approx((3 - 4.30265, 3 + 4.30265), abs=1e-4)
    assert cell.difference is None
    assert cell.published is None
    assert row.cells["recall"].mean.mean == 8.0
    assert row.cells["isotropy"].mean.mean == 10.0
    assert list(row.cells) == [measure.key for measure in MEASURES]


def test_the_other_checkpoint_may_be_chosen() -> None:
    table = build("title", {"a": {1: result(4.0)}}, "last")
    assert table.rows[0].cells["perplexity"].seeds == {1: 100.0}


def test_differences_are_paired_by_seed_with_the_first_method() -> None:
    first = {1: result(10.0), 2: result(20.0), 3: result(30.0)}
    second = {2: result(21.0), 3: result(33.0), 9: result(1000.0)}
    table = build("title", {"first": first, "second": second}, "best")
    difference = table.rows[1].cells["perplexity"].difference
    assert difference is not None
    assert (difference.mean, difference.count) == (2.0, 2)
    assert table.rows[0].cells["perplexity"].difference is None
    apart = build("title", {"first": first, "second": {9: result(1.0)}}, "best")
    assert apart.rows[1].cells["perplexity"].difference is None
    assert table.labels == ["first", "second"]


def test_languages_are_rows_and_alignment_is_counted() -> None:
    results = {"a": {1: result(1.0, 2.0, 0.5), 2: result(3.0, 4.0, 0.51), 3: result(5.0, 6.0, 1.0)}}
    table = build("title", results, "best")
    assert [(row.label, row.language) for row in table.rows] == [("a", "HR"), ("a", "LR")]
    alignment = table.alignment["a"]
    assert alignment.seeds == {1: 0.5, 2: 0.51, 3: 1.0}
    assert alignment.share.mean == pytest.approx(2 / 3)
    assert 0 < alignment.share.low < 2 / 3 < alignment.share.high < 1


def test_published_numbers_stand_beside_ours() -> None:
    numbers = [float(index) for index in range(len(MEASURES))]
    rising, falling = (dict(zip(KEYS, order, strict=True)) for order in (numbers, numbers[::-1]))
    published = {"a": {"HR": rising, "LR": falling}, "b": {"LR": rising}}
    results = {"a": {}, "b": {1: result(1.0, 2.0, 0.9)}}
    table = build("title", results, "best", published, ["a note"])
    assert [(row.label, row.language) for row in table.rows] == [("a", "HR"), ("a", "LR"), ("b", "LR")]
    empty = table.rows[0].cells["perplexity"]
    assert (empty.seeds, empty.published, empty.mean.count, empty.mean.mean) == ({}, 0.0, 0, NAN)
    assert [cell.published for cell in table.rows[1].cells.values()] == numbers[::-1]
    assert table.rows[2].cells["perplexity"].seeds == {1: 2.0}
    assert table.alignment == {}, "one language alone has nothing to align with"
    assert table.notes == ["a note"]


def test_nothing_at_all_is_still_a_table() -> None:
    assert [row.language for row in build("title", {"a": {}}, "best").rows] == ["all"]
    published = {"a": {"HR": dict.fromkeys(KEYS, 1.0), "LR": dict.fromkeys(KEYS, 1.0)}}
    assert [row.language for row in build("title", {"a": {}}, "best", published).rows] == ["HR", "LR"]


def test_a_language_that_was_not_measured_has_no_value() -> None:
    assert value(result(1.0)["measured"]["best"], "LR", "perplexity") is None
    table = build("title", {"a": {1: result(1.0, 2.0), 2: result(3.0)}}, "best")
    assert table.rows[1].cells["perplexity"].seeds == {1: 2.0}


COLUMNS = (Measure("a", "A", True, 2), Measure("b", "B", True, 2), Measure("fixed", "F", True, 2, seeded=False))
BASE = {1: {"a": 1.0, "b": 5.0, "fixed": 7.0}, 2: {"a": 2.0, "fixed": 7.0}, 3: {"a": 4.0, "fixed": 7.0}}
OTHER = {1: {"a": 3.0, "fixed": 6.0}, 2: {"a": 3.0, "fixed": 6.0}, 9: {"a": 100.0, "fixed": 6.0}}


@pytest.fixture
def table() -> StudyTable:
    return build_scores("Demo", "development sets", {"x": BASE, "y": OTHER, "z": {}}, COLUMNS, ["a note"], "none found")


def test_cells(table: StudyTable) -> None:
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


def test_a_table_says_that_no_number_was_found(table: StudyTable) -> None:
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
