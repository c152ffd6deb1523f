"""Objectives by name: found by file, built from strings, and refused with a hint."""

import math
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from decone import objectives
from decone.objectives import MLE, Threshold, registry


class Foreign(objectives.Objective):
    """Stands for an objective of another package."""


def test_the_file_name_is_the_name() -> None:
    names = objectives.names()
    assert names == sorted(set(names))
    assert {"mle", "threshold"} <= set(names)
    assert not {"base", "registry", "compose"} & set(names)
    assert objectives.find("mle") is MLE
    assert objectives.find("threshold") is Threshold


@pytest.mark.parametrize("name", objectives.names())
def test_every_method_says_what_it_is_and_has_its_test(name: str) -> None:
    found = objectives.find(name)
    assert found.paper
    assert found.cures
    assert found.cost
    assert found.__doc__
    assert (Path(__file__).parent / f"test_{name}.py").is_file()
    if found.identity is not None:
        hidden, weight, target = torch.randn(2, 4, 3).double(), torch.randn(7, 3).double(), torch.randint(7, (2, 4))
        same, plain = found(**found.identity)(hidden, weight, target), MLE()(hidden, weight, target)
        torch.testing.assert_close(same.mean(), plain.mean(), rtol=1e-12, atol=1e-12)


def test_settings_may_be_strings() -> None:
    built = objectives.get("threshold", margin="2", alpha="0.5", norms="hidden", softminus="5", detach="true")
    assert isinstance(built, Threshold)
    assert (built.margin, built.alpha, built.norms, built.softminus, built.detach) == (2.0, 0.5, "hidden", 5.0, True)
    assert objectives.get("threshold", margin="inf").margin == math.inf
    assert isinstance(objectives.get("mle"), MLE)


@pytest.mark.parametrize(
    ("name", "settings", "hint"),
    [
        ("treshold", {}, "unknown method 'treshold'; did you mean 'threshold'"),
        ("base", {}, "unknown method 'base'"),
        ("zzz", {}, "choose one of .*mle.*threshold"),
        ("threshold", {"magrin": 1.0}, "no setting 'magrin'; did you mean 'margin'"),
        ("threshold", {"zzz": 1.0}, "it knows margin, temperature, alpha"),
        ("mle", {"margin": 1.0}, "it knows no settings"),
        ("threshold", {"margin": "-1"}, "margin must be 0 or more, got -1.0"),
        ("threshold", {"margin": "nan"}, "margin must be 0 or more, got nan"),
        ("threshold", {"detach": "true"}, "detach acts on the threshold of softminus; add softminus"),
        ("threshold", {"norms": "target"}, "norms=target acts with alpha; add alpha"),
        ("threshold", {"margin": "wide"}, "setting margin=wide: .*number"),
        ("threshold", {"norms": "each"}, "setting norms=each: .*'both', 'target' or 'hidden'"),
        ("threshold", {"detach": "perhaps"}, "setting detach=perhaps: .*boolean"),
    ],
)
def test_mistakes_are_answered_with_a_hint(name: str, settings: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        objectives.get(name, **settings)


def test_other_packages_offer_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("foreign", f"{__name__}:Foreign", "decone.objectives")
    monkeypatch.setattr(EntryPoint, "load", lambda _: Foreign)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "decone.objectives" else [])
    assert "foreign" in objectives.names()
    assert objectives.find("foreign") is Foreign
    assert isinstance(objectives.get("foreign"), Foreign)


def test_a_file_without_an_objective_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda: ["hollow"])
    hollow = ModuleType("decone.objectives.hollow")
    monkeypatch.setattr(registry.importlib, "import_module", lambda _: hollow)
    with pytest.raises(ValueError, match="hollow defines no objective; add a class"):
        objectives.find("hollow")
