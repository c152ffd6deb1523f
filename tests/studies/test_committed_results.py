"""Committed results are of the configurations they claim, and the pages show them as they are."""

import importlib.util
import json
from pathlib import Path

import pytest

from decone.studies.reproduce import EXHIBITS, PaperStudy, load_tables
from decone.studies.store import FinetuneRequest, StudyRequest

ROOT = Path(__file__).resolve().parents[2]
FINE_TUNED = sorted((ROOT / "results" / "definitionemb").glob("*/*/*.json"))
RESULTS = sorted((ROOT / "results" / "stop-jostling").glob("*-seed-*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_belongs_to_a_row_and_says_where_it_comes_from(path: Path) -> None:
    name, _, seed = path.stem.rpartition("-seed-")
    rows = {row.name: (table, row) for table in load_tables("stop_jostling").values() for row in table.rows}
    table, row = rows[name]
    found = PaperStudy(table, [row], [int(seed)], ROOT / "results", ROOT / "runs").results()
    assert set(found[row.label]) >= {int(seed)}  # reading refuses another configuration
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["seed"] == int(seed)
    assert result["versions"]["torch"]
    assert result["machine"]["processor"]
    assert result["date"]
    assert result["commit"]
    assert "dirty" not in result["commit"]


@pytest.mark.parametrize("path", FINE_TUNED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_fine_tuning_belongs_to_a_table_and_says_where_it_comes_from(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    study, table, model = path.relative_to(ROOT / "results").parts[:3]
    plan = EXHIBITS[f"{study}:{table}"].plan(
        StudyRequest(result["row"], [], ROOT / "results", ROOT / "runs"), FinetuneRequest(model, result["task"])
    )
    (found,) = plan.documents().values()  # reading refuses other settings
    assert result in found
    assert path.name == f"{result['row']}-{result['task']}-seed-{result['seed']}.json"
    assert result["versions"]["transformers"]
    assert result["machine"]["processor"]
    assert result["date"]
    assert result["commit"]
    assert "dirty" not in result["commit"]


def test_pages_show_the_committed_results() -> None:
    specification = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert specification is not None
    assert specification.loader is not None
    tables = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tables)
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text) == text, f"{page.name} is behind its results; run python docs/tables.py"
