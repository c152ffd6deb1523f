"""The published tables: the runs they ask for, and the numbers as they stand in the paper."""

import pytest

from decone.studies.stop_jostling import TABLES
from decone.studies.table import MEASURES
from decone.training.config import RunConfig

ROWS = [(table, row) for table in TABLES.values() for row in table.rows]


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda item: item.name)
def test_every_row_can_be_run(table, row) -> None:  # type: ignore[no-untyped-def]
    config = table.config(row, 1337, "cpu")
    assert config.method == row.method
    assert config.seed == 1337
    assert (config.optimizer.warmup, config.steps) in ((100, 8000), (2, 160))
    # The defaults are the paper's setting, so a row's configuration differs from them only where it must.
    values = {"method": row.method, "corpus": {"name": "shakespeare"}}
    if "untied" in row.name:
        values["model"] = {"tied": False}
    if row.name == "monolingual":
        values |= {"language": {"low_resource": 1.0}, "steps": 160, "optimizer": {"warmup": 2}}
    assert config.identity() == RunConfig.build(values).identity()


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda item: item.name)
def test_published_numbers_make_sense(table, row) -> None:  # type: ignore[no-untyped-def]
    for numbers in row.published.values():
        found = dict(zip((measure.key for measure in MEASURES), numbers, strict=True))
        assert 1 < found["best_perplexity"] <= found["perplexity"] < 25
        assert 0.3 < found["best_temperature"] < 1.2
        assert 0 < found["accuracy"] < found["mrr"] < found["recall"] < 1
        assert 0 < found["isotropy"] < 1
    assert list(row.published) == (["LR"] if row.name == "monolingual" else ["HR", "LR"])


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_rows_have_names_of_their_own(table) -> None:  # type: ignore[no-untyped-def]
    for names in ([row.name for row in table.rows], [row.label for row in table.rows]):
        assert len(set(names)) == len(names)
    assert len({table.config(row, 1).identity() for row in table.rows}) == len(table.rows)


def test_a_run_is_not_made_twice_for_two_tables() -> None:
    """Rows of different tables share a folder of results by name, so equal names must be equal runs."""
    found: dict[tuple[str, str], str] = {}
    for table, row in ROWS:
        identity = table.config(row, 1).identity()
        assert found.setdefault((table.study, row.name), identity) == identity
