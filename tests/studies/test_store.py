"""Cells and their files; requests: numbers of seeds, lists of names, options that a table does not take."""

from pathlib import Path
from typing import Any

import pytest

from decone.studies.reproduce import EXHIBITS
from decone.studies.store import (
    NO_FINETUNING,
    CellKey,
    FinetuneRequest,
    Reproducible,
    ResultStore,
    Study,
    StudyRequest,
    parse_seeds,
    select_names,
)


def test_cells_are_stored_and_missing_ones_are_named() -> None:
    store = ResultStore(Path("results"), lambda key, path: {"row": key.row, "file": path.name})
    Path("results").mkdir()
    keys = [CellKey(row, seed, task) for row, seed, task in (("a", 1, "x"), ("a", 10, "x"), ("a", 2, "y"))]
    for key in keys:
        assert store.get(key) is None
        store.save(key, {"seed": key.seed})
        assert store.path(key).read_text() == f'{{\n "seed": {key.seed}\n}}\n'
    for name in ("a-x-seed-y.json", "a-x-seed-.json", "a-seed-3.json", "a-x.md"):
        (Path("results") / name).touch()
    assert store.seeds("a", ["x", "y"]) == [1, 2, 10]
    assert store.results("a", ["x", "y"]) == {
        1: {"x": {"row": "a", "file": "a-x-seed-1.json"}},
        2: {"y": {"row": "a", "file": "a-y-seed-2.json"}},
        10: {"x": {"row": "a", "file": "a-x-seed-10.json"}},
    }
    assert store.missing(["a", "b"], [1, 2], ["x"]) == [
        CellKey("b", 1, "x"),
        CellKey("a", 2, "x"),
        CellKey("b", 2, "x"),
    ], "seeds go outermost and rows innermost"


def test_seeds_may_be_numbers() -> None:
    assert parse_seeds(2) == [1337, 1]
    assert parse_seeds([7]) == [7]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", [1337]),
        (" 3 ", [1337, 1, 2]),
        ("7,", [7]),
        ("1337, 7", [1337, 7]),
        ("0,5", [0, 5]),
        ("5,,6", [5, 6]),
    ],
)
def test_a_number_or_a_list(text: str, expected: list[int]) -> None:
    assert parse_seeds(text) == expected


def test_many_seeds_differ() -> None:
    numbers = parse_seeds("2000")
    assert len(numbers) == len(set(numbers)) == 2000
    assert numbers[0] == 1337


@pytest.mark.parametrize("text", ["0", "-1", "x", "", ",", "1.5", "3 4", "1,1", "1,-2", "1,x"])
def test_what_is_no_number_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=f"--seeds {text!r}") as error:
        parse_seeds(text)
    assert "\n" not in str(error.value)


def request(select: str | None = None) -> StudyRequest:
    return StudyRequest(None, [1], Path("results"), Path("runs"), select=select)


def test_every_table_keeps_to_the_interface() -> None:
    for name, table in EXHIBITS.items():
        assert isinstance(table, Reproducible)
        assert table.title
        assert table.row_names
        study = table.plan(request(), NO_FINETUNING)
        assert isinstance(study, Study)
        assert study.page.suffix == ".md"
        assert study.page.parts[:2] == ("results", name.partition(":")[0])
        assert not any(study.documents().values())
        assert study.render().rows


@pytest.mark.parametrize(
    ("values", "option"),
    [({"model": "x"}, "--model"), ({"tasks": "x"}, "--tasks"), ({"deltas": {"a": Path("b")}}, "--delta")],
)
def test_a_table_of_trained_models_takes_no_options_of_fine_tuning(values: dict[str, Any], option: str) -> None:
    with pytest.raises(ValueError, match=f"stop-jostling:table1 takes no {option}; its runs are those of the paper"):
        EXHIBITS["stop-jostling:table1"].plan(request(), FinetuneRequest(**values))
    with pytest.raises(ValueError, match="unknown --select 'x'; choose best or last"):
        EXHIBITS["stop-jostling:table1"].plan(request("x"), NO_FINETUNING)


def test_names() -> None:
    assert select_names(" b ,a,b", ["a", "b"], "task", "study:table") == ["b", "a"]
    with pytest.raises(ValueError, match="study:table has no task 'c'; its tasks: a, b"):
        select_names("a,c", ["a", "b"], "task", "study:table")
    with pytest.raises(ValueError, match="--tasks is empty; study:table has a, b"):
        select_names(",", ["a", "b"], "task", "study:table")
