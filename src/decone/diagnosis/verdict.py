"""From numbers to words: the findings of a scan, and the limits a user sets on it."""

from collections.abc import Callable, Mapping

from decone.diagnosis.findings_behaviour import behaviour_findings
from decone.diagnosis.findings_rows import row_findings, undertrained
from decone.diagnosis.findings_tables import output_table, table_findings
from decone.diagnosis.limits import SEVERITIES
from decone.diagnosis.result import Check, Finding, ScanResult, Severity


def findings(result: ScanResult) -> list[Finding]:
    """All verdicts on a result, the most severe first."""
    found = [*table_findings(result), *row_findings(result), *behaviour_findings(result)]
    return sorted(found, key=lambda finding: -SEVERITIES.index(finding.severity))


def worst(found: list[Finding]) -> Severity:
    """The highest severity among findings; good without any."""
    return max((finding.severity for finding in found), key=SEVERITIES.index, default="good")


def _count(kind: str) -> Callable[[ScanResult], float | None]:
    return lambda result: float(sum(found.count for found in result.rows if found.kind == kind))


def _rare_cone(result: ScanResult) -> float | None:
    return output_table(result).cosine.get("rare", {}).get("rare")


# What `--check` can limit; each is worse the higher it is.
CHECKS: dict[str, tuple[str, Callable[[ScanResult], float | None]]] = {
    "cone": ("mean cosine between rows of the output table", lambda result: output_table(result).cosine["all"]["all"]),
    "rare-cone": ("mean cosine between its rare rows", _rare_cone),
    "first-direction": (
        "share of its squared singular values in the first",
        lambda result: output_table(result).spectrum.energy_first,
    ),
    "undertrained": ("tokens with a suspicion score above 3.5", lambda result: float(undertrained(result))),
    "unreachable": ("rows no text leads to", _count("unreachable")),
    "identical": ("rows equal to another row", _count("identical")),
    "zero": ("rows of zeros", _count("zero")),
    "non-finite": ("rows with NaN or infinity", _count("non-finite")),
    "padded": ("rows beyond the tokenizer's last id", lambda result: float(result.model.padded)),
    "repetition": (
        "Rep-3 of greedy continuations (needs --text)",
        lambda result: (
            result.behaviour.decoding["greedy"].rep.get("3")
            if result.behaviour and "greedy" in result.behaviour.decoding
            else None
        ),
    ),
    "perplexity": (
        "lowest perplexity over temperatures (needs --text)",
        lambda result: result.behaviour.best_perplexity if result.behaviour else None,
    ),
}


def parse_limits(text: str) -> dict[str, float]:
    """Reads limits such as "cone=0.2,undertrained=50".

    Raises:
        ValueError: an unknown name, or a limit that is no number; the message lists the names.

    Example:
        >>> parse_limits("cone=0.2,undertrained=50")
        {'cone': 0.2, 'undertrained': 50.0}
    """
    limits = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if name not in CHECKS:
            raise ValueError(f"--check knows no {name!r}; it knows {', '.join(CHECKS)}")
        try:
            limits[name] = float(value)
        except ValueError:
            raise ValueError(f"--check {part}: write {name}=NUMBER, e.g. {name}=0.2") from None
        if limits[name] != limits[name]:
            raise ValueError(f"--check {part}: the limit must be a number")
    return limits


def checks(result: ScanResult, limits: Mapping[str, float]) -> list[Check]:
    """Whether the numbers stay within the limits.

    A number that could not be determined fails: a build must not pass because a text was forgotten.
    """
    made = []
    for name, limit in limits.items():
        value = CHECKS[name][1](result)
        made.append(Check(name=name, limit=limit, value=value, passed=value is not None and value <= limit))
    return made
