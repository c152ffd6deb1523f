"""Functions of the package: a script of some ten lines for each, on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import decone

TINY: dict[str, Any] = {
    "steps": 4,
    "corpus": {"name": "tiny.txt"},
    "model": {"width": 8, "layers": 1, "heads": 1, "context": 8},
    "batch": {"size": 8},
    "evaluation": {"every": 2, "batches": 1},
    "machine": {"threads": 1, "device": "cpu"},
}


def is_json(result: Any) -> dict[str, Any]:
    content: dict[str, Any] = result.to_dict()
    json.dumps(content)
    return content


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text named by a relative path."""
    path = tmp_path / "tiny.txt"
    path.write_text("the cat sat on the mat and then the dog ran over the hill.\n" * 60)
    return path


def test_every_door_is_a_function_with_types_and_words() -> None:
    names = [name for name in decone.__all__ if not name.startswith("_")]
    assert names == sorted(names)
    assert set(names) <= set(dir(decone))
    for name in names:
        function = getattr(decone, name)
        assert function.__name__ == name
        assert "return" in get_type_hints(function), name
        assert function.__doc__, name
        assert getattr(decone, name) is function, "imported once"


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'decone' has no attribute 'mend'"):
        decone.mend  # noqa: B018


def test_no_submodule_hides_a_door() -> None:
    names = [name for name in decone.__all__ if not name.startswith("_")]
    code = f"""
import pkgutil, importlib, decone
for module in pkgutil.iter_modules(decone.__path__):
    if module.name != "__main__":
        importlib.import_module(f"decone.{{module.name}}")
print([name for name in {names} if not callable(getattr(decone, name))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_train_and_evaluate(text: Path) -> None:
    result = decone.train(TINY, out="run", settings={"method": "threshold:margin=1"})
    assert is_json(result)["method"] == "threshold:margin=1"
    assert "threshold:margin=1" in result._repr_html_()
    evaluation = decone.evaluate(result, text, device="cpu")
    assert is_json(evaluation)["languages"].keys() == result.scores.keys()
    assert "tiny.txt" in evaluation._repr_html_()


def test_methods() -> None:
    catalogue = decone.methods()
    assert "threshold" in [card["name"] for card in is_json(catalogue)["methods"]]
    assert "threshold" in catalogue._repr_html_()


def test_doctor() -> None:
    environment = decone.doctor()
    assert is_json(environment)["engine"]["name"] == "chunked"
    assert "chunked" in environment._repr_html_()
