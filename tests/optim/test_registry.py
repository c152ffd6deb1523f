"""Optimisers by name: files of the folder, and entry points of other packages."""

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import torch

from decone import optim
from decone.optim import registry

ROOT = Path(__file__).parents[2]


def test_names_are_those_of_the_files_that_build_one() -> None:
    files = (ROOT / "src/decone/optim").glob("*.py")
    builders = {path.stem.replace("_", "-") for path in files if "\ndef build(" in path.read_text()} - {"registry"}
    assert set(optim.names()) == builders == {"adamw", "row-adamw"}


@pytest.mark.parametrize("name", optim.names())
def test_an_optimiser_has_a_row_in_the_docs(name: str) -> None:
    rows = (ROOT / "docs/objectives.md").read_text().splitlines()
    assert any(row.startswith(f"| `{name}` |") for row in rows), f"add a row that begins with `{name}`"


def test_options_of_a_command_line() -> None:
    assert optim.options("row-adamw", {"decay": "always", "compiled": "true"}) == {"decay": "always", "compiled": True}
    assert optim.options("adamw", {}) == {}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adam", {}, "unknown optimiser 'adam'; did you mean 'adamw'"),
        ("adamw", {"decay": "always"}, "'adamw' has no setting 'decay'; it knows no settings"),
        ("row-adamw", {"decya": "always"}, "did you mean 'decay'"),
        ("row-adamw", {"decay": "sometimes"}, "row-adamw setting decay=sometimes"),
    ],
)
def test_mistakes_are_one_sentence(name: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optim.options(name, settings)


def slow_sgd(
    groups: list[dict[str, Any]], tables: Any, *, lr: float, betas: Any, fused: bool, factor: float = 1.0
) -> Any:
    """What another package offers."""
    return torch.optim.SGD([{"params": group["params"]} for group in groups], lr=lr * factor)


def test_other_packages_offer_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("slow-sgd", f"{__name__}:slow_sgd", "decone.optimizers")
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints([point]))
    table = torch.nn.Parameter(torch.ones(3, 2))
    groups = [{"params": [table], "weight_decay": 0.1}]
    settings = {"factor": "0.5"}
    built = optim.build("slow-sgd", groups, [table], lr=0.1, betas=(0.9, 0.99), fused=False, settings=settings)
    assert built.param_groups[0]["lr"] == pytest.approx(0.05)
