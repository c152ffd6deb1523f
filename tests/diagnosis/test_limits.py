"""The limits of the verdicts stand in docs/scan.md as they are in the code."""

import re
from pathlib import Path

import pytest

from decone.diagnosis import limits
from decone.diagnosis.verdict import CHECKS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scan.md").read_text(encoding="utf-8")
ROWS = {
    "cone": limits.CONE,
    "rare rows": limits.RARE_CONE,
    "main direction": limits.FIRST_DIRECTION,
    "width in use": limits.EFFECTIVE_RANK,
    "under-trained tokens": limits.UNDERTRAINED,
    "unreachable tokens": limits.UNREACHABLE,
    "rare tokens in text": limits.RARE_PERPLEXITY,
    "repetition": limits.REPETITION,
    "scale of the logits": limits.TEMPERATURE,
    "pull and push": limits.PULL,
}


@pytest.mark.parametrize("name", ROWS)
def test_the_page_tells_the_limits_of_the_code(name: str) -> None:
    found = re.search(rf"^\| {re.escape(name)} \|.*$", PAGE, re.MULTILINE)
    assert found, f"docs/scan.md has no row {name!r}"
    told = [float(cell) for cell in found[0].strip("| ").split("|")[-3:]]
    assert told == [ROWS[name].note, ROWS[name].warning, ROWS[name].serious]


def test_every_limit_is_on_the_page() -> None:
    known = {id(value) for value in vars(limits).values() if isinstance(value, limits.Limits)}
    assert known == {id(value) for value in ROWS.values()}


def test_the_page_names_checks_that_exist() -> None:
    named = re.findall(r"--check ([\w=.,-]+)", PAGE)
    assert named
    assert all(part.partition("=")[0] in CHECKS for text in named for part in text.split(","))
