"""Verdicts: limits as in docs/scan.md, words, order, and the checks of a build."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decone.diagnosis import verdicts
from decone.diagnosis.checks import CHECKS, check_limits, parse_limits
from decone.diagnosis.result import Behaviour, Blame, Finding, Perplexities, Repetition, RowFinding, ScanResult, Suspect
from decone.diagnosis.verdicts import SeverityLimits, findings, worst
from decone.document.blocks import SEVERITIES

Make = Callable[..., ScanResult]
Table = Callable[..., Any]


def severities(result: ScanResult) -> dict[str, str]:
    return {finding.code: finding.severity for finding in findings(result)}


def suspects(count: int) -> list[Suspect]:
    return [Suspect(id=i, token="x", score=9.0, reasons=["r"], group="rare", norm=1.0) for i in range(count)]


def behaviour(**fields: Any) -> Behaviour:
    def share(value: float) -> Perplexities:
        return Perplexities(share=0.5, tokens=100, perplexity=value, accuracy=0.5)

    def repetition(rate: float) -> Repetition:
        return Repetition(rep={"3": rate}, uniq_words=5, uniq_tokens=5, continuations=2)

    given: dict[str, Any] = {
        "text": "t",
        "tokens": 20,
        "bytes": 40,
        "perplexity": 10.0,
        "best_perplexity": 9.0,
        "best_temperature": 1.0,
        "bits_per_byte": 2.0,
        "accuracy": 0.3,
        "recall5": 0.5,
        "mrr": 0.4,
        "groups": {"frequent": share(5.0), "rare": share(20.0)},
        "scripts": {},
        "rep_at": {},
        "rep_at_human": {},
        "uniq": {},
        "uniq_human": {},
        "decoding": {"greedy": repetition(0.02), "human": repetition(0.01)},
    }
    return Behaviour(**(given | fields))


def test_a_healthy_model_gets_only_good_verdicts(make: Make) -> None:
    found = findings(make(behaviour=behaviour()))
    assert {finding.severity for finding in found} == {"good"}
    assert all(finding.remedy == "" and finding.meaning and finding.source for finding in found)
    assert worst(found) == "good"
    assert worst([]) == "good"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"cosine": 0.5}, "cone:embedding"),
        ({"rare": 0.6}, "rare-cone:embedding"),
        ({"energy_first": 0.6}, "first-direction:embedding"),
        ({"effective_rank": 3.0}, "effective-rank:embedding"),
    ],
)
def test_each_disease_of_a_table_has_its_verdict(fields: dict[str, float], code: str, make: Make, table: Table) -> None:
    found = findings(make(tables={"embedding": table(**fields)}))
    assert found[0].code == code
    assert found[0].severity == "serious"
    assert found[0].remedy
    assert {finding.severity for finding in found[1:]} == {"good"}


def test_two_tables_are_told_apart(make: Make, table: Table) -> None:
    found = {finding.code: finding for finding in findings(make(tables={"embedding": table(), "head": table(0.5)}))}
    assert found["cone:head"].severity == "serious"
    assert "output table" in found["cone:head"].meaning
    assert found["cone:embedding"].severity == "good"
    assert "input table" in found["cone:embedding"].meaning


def test_guessed_frequencies_are_said_to_be_guessed(make: Make) -> None:
    for source, guessed in (("text", False), ("counts", False), ("training", False), ("merges", True), ("none", True)):
        found = {finding.code: finding for finding in findings(make(source=source))}
        assert ("guessed" in found["rare-cone:embedding"].meaning) == guessed


def test_without_groups_nothing_is_said_of_rare_rows(make: Make, table: Table) -> None:
    facts = table()
    facts.cosine = {"all": {"all": 0.0}, "rare": {"rare": None}}
    assert "rare-cone:embedding" not in severities(make(tables={"embedding": facts}))


def test_rows(make: Make) -> None:
    def row(kind: Any, count: int) -> RowFinding:
        return RowFinding(kind=kind, count=count, ids=list(range(min(count, 2000))), tokens=[])

    found = severities(make(rows=[row("non-finite", 1), row("zero", 3), row("unreachable", 60)], model={"padded": 24}))
    assert found["non-finite"] == "serious"
    assert found["unreachable"] == "serious"
    assert found["never-trained"] == "note"
    assert found["padded"] == "note"
    assert severities(make(rows=[row("zero", 60)]))["never-trained"] == "warning"
    assert "never-trained" not in severities(make())


@pytest.mark.parametrize(
    ("count", "severity"), [(0, "good"), (1, "note"), (4, "note"), (10, "warning"), (20, "serious")]
)
def test_undertrained_tokens_by_their_share(count: int, severity: str, make: Make) -> None:
    assert severities(make(suspects=suspects(count)))["undertrained"] == severity


def test_an_unsuspicious_candidate_is_not_counted(make: Make) -> None:
    calm = [suspect.model_copy(update={"score": 3.5}) for suspect in suspects(30)]
    assert severities(make(suspects=calm))["undertrained"] == "good"


def test_behaviour(make: Make) -> None:
    def ill(**fields: Any) -> dict[str, str]:
        return severities(make(behaviour=behaviour(**fields)))

    rare = Perplexities(share=0.1, tokens=50, perplexity=5e4, accuracy=0.0)
    frequent = behaviour().groups["frequent"]
    assert ill(groups={"frequent": frequent, "rare": rare})["rare-perplexity"] == "serious"
    assert "rare-perplexity" not in ill(groups={"frequent": frequent})
    few = rare.model_copy(update={"tokens": 5})
    assert "rare-perplexity" not in ill(groups={"frequent": frequent, "rare": few})
    loop = {name: part.model_copy(update={"rep": {"3": 0.9}}) for name, part in behaviour().decoding.items()}
    assert ill(decoding=loop)["repetition"] == "good"  # the text itself repeats as much
    assert ill(decoding=loop | {"human": behaviour().decoding["human"]})["repetition"] == "serious"
    assert "repetition" not in ill(decoding={})
    assert ill(best_temperature=0.5)["temperature"] == "serious"
    flat = next(f for f in findings(make(behaviour=behaviour(best_temperature=0.9))) if f.code == "temperature")
    assert flat.severity == "note"
    assert "too flat" in flat.meaning


def test_pull(make: Make) -> None:
    def seen(ratio: float | None) -> dict[str, str]:
        given = Blame(steps=1, tokens=1, ratio_of_average={"rare": ratio}, average_of_ratio={"rare": ratio}, rows=[])
        return severities(make(blame=given))

    assert (seen(2.0)["push"], seen(0.7)["push"], seen(0.05)["push"]) == ("good", "note", "serious")
    assert "push" not in seen(None)


def test_limits_rise_in_severity_and_name_their_source() -> None:
    known = {name: value for name, value in vars(verdicts).items() if isinstance(value, SeverityLimits)}
    assert len(known) >= 8
    for name, limit in known.items():
        sign = 1 if limit.rising else -1
        edges = [sign * value for value in (limit.note, limit.warning, limit.serious)]
        assert edges == sorted(edges), name
        assert len(set(edges)) == 3, name
        assert len(limit.source) > 20, name
        severities = [limit.severity(value) for value in dataclasses.astuple(limit)[:3]]
        assert severities == ["note", "warning", "serious"], name


def test_the_most_severe_comes_first(make: Make, table: Table) -> None:
    found = findings(make(tables={"embedding": table(cosine=0.25, rare=0.9)}, suspects=suspects(2)))
    order = [SEVERITIES[::-1].index(finding.severity) for finding in found]
    assert order == sorted(order, reverse=True)
    assert worst(found) == "serious"


def test_checks(make: Make) -> None:
    result = make(suspects=suspects(7))
    made = check_limits(result, parse_limits("cone=0.02,undertrained=6,perplexity=10"))
    assert [(check.name, check.value, check.passed) for check in made] == [
        ("cone", 0.02, True),
        ("undertrained", 7.0, False),
        ("perplexity", None, False),  # not measured: a build must not pass because the text was forgotten
    ]
    assert all(check.passed for check in check_limits(result, parse_limits("undertrained=7")))
    assert check_limits(result, {}) == []


def test_every_check_can_be_read_from_a_result(make: Make) -> None:
    found = {check.name: check.value for check in check_limits(make(behaviour=behaviour()), dict.fromkeys(CHECKS, 0.0))}
    assert found.keys() == CHECKS.keys()
    assert None not in found.values()
    assert found["repetition"] == 0.02
    assert found["perplexity"] == 9.0
    assert found["rare-cone"] == 0.03


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("cones=1", "it knows cone, rare-cone"),
        ("cone", "write cone=NUMBER"),
        ("cone=x", "e.g. cone=0.2"),
        ("cone=nan", "must be a number"),
    ],
)
def test_wrong_limits(text: str, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        parse_limits(text)


def test_a_finding_survives_json(make: Make) -> None:
    result = make()
    result.findings = findings(result)
    again = ScanResult.model_validate_json(result.model_dump_json(by_alias=True))
    assert again == result
    assert isinstance(again.findings[0], Finding)


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scan.md").read_text(encoding="utf-8")
ROWS = {
    "cone": verdicts.CONE,
    "rare rows": verdicts.RARE_CONE,
    "main direction": verdicts.FIRST_DIRECTION,
    "width in use": verdicts.EFFECTIVE_RANK,
    "under-trained tokens": verdicts.UNDERTRAINED,
    "unreachable tokens": verdicts.UNREACHABLE,
    "rare tokens in text": verdicts.RARE_PERPLEXITY,
    "repetition": verdicts.REPETITION,
    "scale of the logits": verdicts.TEMPERATURE,
    "pull and push": verdicts.PULL,
}


@pytest.mark.parametrize("name", ROWS)
def test_the_page_tells_the_limits_of_the_code(name: str) -> None:
    found = re.search(rf"^\| {re.escape(name)} \|.*$", PAGE, re.MULTILINE)
    assert found, f"docs/scan.md has no row {name!r}"
    told = [float(cell) for cell in found[0].strip("| ").split("|")[-3:]]
    assert told == [ROWS[name].note, ROWS[name].warning, ROWS[name].serious]


def test_every_limit_is_on_the_page() -> None:
    known = {id(value) for value in vars(verdicts).values() if isinstance(value, verdicts.SeverityLimits)}
    assert known == {id(value) for value in ROWS.values()}


def test_the_page_names_checks_that_exist() -> None:
    named = re.findall(r"--check ([\w=.,-]+)", PAGE)
    assert named
    assert all(part.partition("=")[0] in CHECKS for text in named for part in text.split(","))
