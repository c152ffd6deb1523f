"""Limits that a user sets on a scan with `--check`: any metric of the output table, and counts of ill rows.

A number that could not be determined fails: a build must not pass because a text was forgotten.
"""

from collections.abc import Callable, Mapping

from decone.diagnosis.result import Check, ScanResult
from decone.diagnosis.table_metrics import table_metrics
from decone.diagnosis.verdicts import output_table, undertrained
from decone.files.foreign import quoted


def _count(kind: str) -> Callable[[ScanResult], float | None]:
    return lambda result: float(sum(rows.count for rows in result.rows if rows.kind == kind))


def _unreachable(result: ScanResult) -> float | None:
    return _count("unreachable")(result) if result.model.reach else None


def _greedy_repetition(result: ScanResult) -> float | None:
    greedy = result.behaviour.decoding.get("greedy") if result.behaviour else None
    return greedy.rep.get("3") if greedy else None


# Numbers with a name of their own beside the metrics of the table; each is worse the higher it is.
CHECKS: dict[str, tuple[str, Callable[[ScanResult], float | None]]] = {
    "cone": ("mean cosine between rows of the output table", lambda result: output_table(result).cosine["all"]["all"]),
    "rare-cone": (
        "mean cosine between its rare rows",
        lambda result: output_table(result).cosine.get("rare", {}).get("rare"),
    ),
    "first-direction": (
        "share of its squared singular values in the first",
        lambda result: output_table(result).spectrum.energy_first,
    ),
    "undertrained": ("tokens with a suspicion score above 3.5", lambda result: float(undertrained(result))),
    "unreachable": ("rows no text leads to", _unreachable),
    "beyond": ("tokens whose ids lie beyond the table", _count("beyond")),
    "chat": ("tokens of the chat template that look never trained", _count("chat")),
    "identical": ("rows equal to another row", _count("identical")),
    "zero": ("rows of zeros", _count("zero")),
    "non-finite": ("rows with NaN or infinity", _count("non-finite")),
    "padded": ("rows beyond the tokenizer's last id", lambda result: float(result.model.padded)),
    "repetition": ("Rep-3 of greedy continuations (needs --text)", _greedy_repetition),
    "perplexity": (
        "lowest perplexity over temperatures (needs --text)",
        lambda result: result.behaviour.best_perplexity if result.behaviour else None,
    ),
}


def check_names() -> dict[str, str]:
    """Everything that can be limited, with its meaning: `CHECKS`, then every metric of `table_metrics`.

    Example:
        >>> check_names()["isoscore"]
        'IsoScore of the output table, at least'
    """
    names = {name: meaning for name, (meaning, _) in CHECKS.items()}
    for metric in table_metrics():
        bound = "at least" if metric.better == "higher" else "at most"
        names[metric.name.replace("_", "-")] = f"{metric.label} of the output table, {bound}"
    return names


def parse_limits(text: str) -> dict[str, float]:
    """Reads limits such as "cone=0.2,undertrained=50".

    Raises:
        ValueError: an unknown name, or a limit that is no number; the message lists the names.

    Example:
        >>> parse_limits("cone=0.2,effective-rank=300")
        {'cone': 0.2, 'effective-rank': 300.0}
    """
    limits: dict[str, float] = {}
    names = check_names()
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, _, value = item.partition("=")
        if name not in names:
            raise ValueError(f"--check knows no {quoted(name)}; it knows {', '.join(names)}")
        try:
            limits[name] = float(value)
        except ValueError:
            raise ValueError(f"--check {item}: write {name}=NUMBER, e.g. {name}=0.2") from None
        if limits[name] != limits[name]:
            raise ValueError(f"--check {item}: the limit must be a number")
    return limits


def check_limits(result: ScanResult, limits: Mapping[str, float]) -> list[Check]:
    """Compares numbers with the limits: an upper limit, but a lower one of a metric of which more is better.

    Args:
        result: the scan.
        limits: by a name of `check_names`; a metric by frequency group is taken over all rows.
    """
    checks = []
    metrics = {metric.name.replace("_", "-"): metric for metric in table_metrics()}
    for name, limit in limits.items():
        if name in CHECKS:
            value, rising = CHECKS[name][1](result), False
        else:
            value, rising = metrics[name].value(output_table(result)), metrics[name].better == "higher"
        passed = value is not None and (value >= limit if rising else value <= limit)
        checks.append(Check(name=name, limit=limit, value=value, passed=passed))
    return checks
