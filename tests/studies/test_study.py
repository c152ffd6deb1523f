"""Wishes: lists of names, and options that a table does not take."""

from pathlib import Path

import pytest

from decone.studies.catalogue import TABLES
from decone.studies.study import Reproducible, Study, Wish, chosen


def wish(**values: object) -> Wish:
    return Wish(**{"rows": None, "seeds": [1], "out": Path("results"), "runs": Path("runs"), **values})  # type: ignore[arg-type]


def test_every_table_keeps_to_the_interface() -> None:
    for name, table in TABLES.items():
        assert isinstance(table, Reproducible)
        assert table.title
        assert table.row_names
        study = table.plan(wish())
        assert isinstance(study, Study)
        assert study.page.suffix == ".md"
        assert study.page.parts[:2] == ("results", name.partition(":")[0])
        assert not any(study.documents().values())
        assert study.render().rows


@pytest.mark.parametrize(
    ("values", "option"),
    [({"model": "x"}, "--model"), ({"tasks": "x"}, "--tasks"), ({"deltas": {"a": Path("b")}}, "--delta")],
)
def test_a_table_of_trained_models_takes_no_options_of_fine_tuning(values: dict[str, object], option: str) -> None:
    with pytest.raises(ValueError, match=f"stop-jostling:table1 takes no {option}; its runs are those of the paper"):
        TABLES["stop-jostling:table1"].plan(wish(**values))
    with pytest.raises(ValueError, match="unknown --select 'x'; choose best or last"):
        TABLES["stop-jostling:table1"].plan(wish(select="x"))


def test_names() -> None:
    assert chosen(" b ,a,b", ["a", "b"], "task", "study:table") == ["b", "a"]
    with pytest.raises(ValueError, match="study:table has no task 'c'; its tasks: a, b"):
        chosen("a,c", ["a", "b"], "task", "study:table")
    with pytest.raises(ValueError, match="--tasks is empty; study:table has a, b"):
        chosen(",", ["a", "b"], "task", "study:table")
