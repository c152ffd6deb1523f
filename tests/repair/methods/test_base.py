"""A new file in the folder of repairs is a command, a door and a row of the studies."""

import importlib
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.repair.checkpoints import V, llama

from decone.repair.api import repair_with
from decone.repair.methods.base import find_method, method_names, repair_variants
from decone.studies.downstream import make_delta

FOLDER = importlib.import_module("decone.repair.methods")

SCALING = '''
from dataclasses import dataclass
from typing import Annotated

import torch

from decone.models.tables import MemoryTable
from decone.repair.delta import RowDelta
from decone.repair.methods.base import RepairedRows, RepairMethod, RepairVariant, Setting
from decone.repair.delta import repair_targets


@dataclass(frozen=True)
class Scaling(RepairMethod):
    """Multiply all rows.

    Each by the same.
    """

    variants = (RepairVariant("scaling", "Twice the length", lambda: {"factor": 2.0}),)

    factor: Annotated[float, Setting("Factor of each row.")] = 1.0

    def repair(self, model_tables, seed, progress):
        (target,) = repair_targets(model_tables)
        rows = target.table.read()
        delta = RowDelta(target, torch.arange(len(rows)), MemoryTable("new", self.factor * rows))
        return RepairedRows([delta], {"factor": self.factor}, {})
'''


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "scaling.py").write_text(SCALING)
    monkeypatch.setattr(FOLDER, "__path__", [*FOLDER.__path__, str(folder)])


def test_names_are_files() -> None:
    files = {path.stem for path in Path(str(FOLDER.__file__)).parent.glob("*.py")} - {"__init__", "base", "registry"}
    assert files >= {"definitions", "directions"}
    assert set(method_names()) == {file.replace("_", "-") for file in files}
    assert {find_method(name).__module__ for name in method_names()} == {f"decone.repair.methods.{x}" for x in files}
    assert set(repair_variants()) >= {"directions", "directions-mean", "definitions"}


@pytest.mark.usefixtures("scaling")
def test_a_new_file_is_a_door_and_a_row_of_the_studies() -> None:
    model = llama(Path("m"))
    report = repair_with("scaling", model, factor=0.25)
    assert report.settings == {"factor": 0.25}
    assert "rows have 25% of their length" in " ".join(report.notes)
    make_delta("scaling", str(model), Path("d.safetensors"))
    rows = load_file("d.safetensors")
    assert len(rows["0.ids"]) == V
    assert rows["0.new"].equal(2 * rows["0.old"])


@pytest.mark.usefixtures("scaling")
def test_a_new_file_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    from decone.cli.main import main

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            main(list(arguments))
        return " ".join(capsys.readouterr().out.split())

    llama(Path("m"))
    assert "DELTA.safetensors Multiply all rows. [--factor FACTOR] [--dry-run]" in run("repair", "--help")
    assert "Factor of each row. [default: 1.0]" in run("repair", "scaling", "--help")
    assert '"factor": 2.0' in run("repair", "scaling", "m", "--factor", "2", "--out", "d.safetensors", "--json")
    assert Path("d.safetensors").is_file()


def test_help_of_the_repairs(capsys: pytest.CaptureFixture[str]) -> None:
    from decone.cli.main import main

    expected: dict[str, tuple[str, ...]] = {
        "directions": ("[default: (width / 100); x>=0]", "<mean|released|kept|origin>", "-o, --out"),
        "definitions": (
            "-l, --lexicon",
            "[required]",
            "--set",
            "--inflections",
            "An encoder, or an encoder with a decoder",
        ),
    }
    for name, pieces in expected.items():
        with pytest.raises(SystemExit):
            main(["repair", name, "--help"])
        out = " ".join(capsys.readouterr().out.split())
        for piece in pieces:
            assert piece in out
        assert "--no-" not in out


def test_a_file_without_a_repair_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    monkeypatch.setattr(FOLDER, "__path__", [*FOLDER.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match="defines no repair"):
        find_method("empty")
