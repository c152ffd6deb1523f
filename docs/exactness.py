"""Runs the oracle tests of the objectives and writes the worst differences they saw into docs/objectives.md.

python docs/exactness.py

Float64: largest absolute difference in any comparison held to 1e-10 or closer (value and gradients, against the naive
forms). Float32: largest difference from float64 relative to the largest number of a gradient.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "objectives.md"
PLACE = re.compile(r"(<!-- exactness -->\n).*?(<!-- end -->)", re.DOTALL)


class Spy:
    """A pytest plugin that keeps the worst difference of every test file and objective."""

    def __init__(self) -> None:
        self.double, self.single = defaultdict[str, float](float), defaultdict[str, float](float)
        self.name, self.compare = "", torch.testing.assert_close

    def pytest_collection_finish(self, session: Any) -> None:
        modules = {item.module for item in session.items if item.module.__name__.endswith("test_float32")}
        for module in modules:
            module.far = self.watched(module.far)

    def pytest_runtest_setup(self, item: Any) -> None:
        self.name = item.path.stem.removeprefix("test_").removesuffix("_autograd").removesuffix("_edges")
        if self.name == "float32":
            self.name = f"float32:{item.callspec.params['name']}"

    def watched(self, far: Any) -> Any:
        def seen(ours: Any, expected: Any) -> float:
            value: float = far(ours, expected)
            name = self.name.removeprefix("float32:")
            self.single[name] = max(self.single[name], value)
            return value

        return seen

    def assert_close(self, actual: Any, expected: Any, **options: Any) -> None:
        self.compare(actual, expected, **options)
        tensors = isinstance(actual, torch.Tensor) and isinstance(expected, torch.Tensor)
        if tensors and actual.dtype == torch.float64 and actual.numel() and options.get("atol", 1.0) <= 1e-10:
            difference = (actual - expected).detach().abs()
            worst = difference[difference.isfinite()].amax().item() if difference.isfinite().any() else 0.0
            self.double[self.name] = max(self.double[self.name], worst)


def main() -> None:
    """Runs the tests and writes the table."""
    spy = Spy()
    torch.testing.assert_close = spy.assert_close
    code = pytest.main(["-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "objectives")], plugins=[spy])
    if code:
        sys.exit(f"the tests failed with exit code {int(code)}; nothing is written")
    lines = ["| objective | float64, absolute | float32, relative |", "| --- | --- | --- |"]
    for name in sorted(spy.single):
        told = "held to 1e-6, relative"
        if name == "mle":
            told = "the last digits of `F.cross_entropy`; `reference` has its bits"
        double = f"{spy.double[name]:.0e}" if name in spy.double else told
        lines.append(f"| `{name}` | {double} | {spy.single[name]:.0e} |")
    table = "\n".join(lines)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(PLACE.sub(lambda place: f"{place[1]}\n{table}\n\n{place[2]}", text), encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
