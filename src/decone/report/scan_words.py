"""What page, terminal and markdown say alike: the headline, the order of the findings, the key numbers."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from decone.diagnosis.result import Finding, ScanResult, Severity, TableFacts
from decone.files.foreign import terminal_text
from decone.report.format import DASH, count, number, percent

ORDER: tuple[Severity, ...] = ("serious", "warning", "note", "good")
NOUNS: dict[Severity, str] = {"serious": "serious finding", "warning": "warning", "note": "note", "good": "good"}
SYMBOLS: dict[Severity, str] = {"serious": "✗", "warning": "!", "note": "i", "good": "✓"}
GROUPS = ("frequent", "medium", "rare", "special")
UNUSUAL = 3.5  # a suspect's score above this is unusual
LISTED = 500  # suspects that a result holds at most
KINDS = {
    "zero": "all entries are 0",
    "non-finite": "holds NaN or infinity",
    "identical": "the same as another row",
    "padded": "beyond the tokenizer's last id",
    "reserved": "set aside by the tokenizer, never in a text",
    "unreachable": "no text is ever split into this token",
    "partial": "a piece of a character, only inside others",
    "untrained": "lies where rows lie that were never trained",
}
SOURCES = {
    "text": "counted in the given text",
    "counts": "from the given counts",
    "training": "counted in training",
    "merges": "guessed from the tokenizer's order",
    "none": "not known",
}


@dataclass(frozen=True)
class Key:
    """A key number: its name, its value in each table (or one under "") and what a good value is."""

    name: str
    values: dict[str, str]
    hint: str


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Findings, the worst first; equal ones in their given order."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))


def tally(result: ScanResult) -> str:
    """How many findings of each severity there are, in words; empty without findings."""
    amounts = {severity: sum(one.severity == severity for one in result.findings) for severity in ORDER}
    said = [
        f"{amount} good" if severity == "good" else count(amount, NOUNS[severity])
        for severity, amount in amounts.items()
        if amount
    ]
    return ", ".join(said)


def headline(result: ScanResult) -> tuple[Severity, str]:
    """The worst severity and what it is about, in one sentence; "good" where nothing is wrong."""
    findings = ordered(result.findings)
    if not findings:
        return "note", "Measured, but not judged: this scan holds no verdicts."
    worst = findings[0]
    if worst.severity == "good":
        return "good", f"Nothing wrong was found in {count(len(findings), 'verdict')}."
    return worst.severity, f"{claim(worst)}."


def claim(finding: Finding) -> str:
    """The first clause of what a finding means; its title where there is no meaning.

    Example:
        >>> claim(Finding(code="cone", severity="note", title="Cone", meaning="Rows lean: 0.2. So what.", remedy="",
        ...     evidence={}, source=""))
        'Rows lean'
    """
    said = terminal_text(finding.meaning or finding.title, 300)
    clause = re.split(r"[:;.](?: |↵|$)", said, maxsplit=1)[0].strip()
    return re.sub(r" \([^()]*\)$", "", clause) or terminal_text(finding.title, 300)


def significant(value: float | int | None, signed: bool = False) -> str:
    """A number with about three digits that say something; a dash for None.

    Example:
        >>> significant(73.14), significant(0.5), significant(0.00002), significant(None), significant(30522)
        ('73.1', '0.500', '2.0e−05', '—', '30,522')
    """
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value) or value == 0:
        return number(float(value), 0, signed)
    size = abs(value)
    if size >= 1e7 or size < 5e-4:
        return f"{value:{'+' if signed else ''}.1e}".replace("-", "−")
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:{'+' if signed else ''},.{digits}f}".replace("-", "−")


def amount(value: float | None) -> str:
    """A number that may be a count: without a point where it is whole.

    Example:
        >>> amount(60.0), amount(0.45), amount(None)
        ('60', '0.450', '—')
    """
    return f"{value:,.0f}" if value is not None and value.is_integer() and abs(value) < 1e15 else significant(value)


def share(part: float, whole: float | int = 1.0) -> str:
    r"""A share in percent; small ones with a digit more, and never 0 for something.

    Example:
        >>> share(1.0, 3000), share(0.0, 3000), share(0.2)
        ('0.033\xa0%', '0\xa0%', '20\xa0%')
    """
    if not whole or not math.isfinite(part):
        return DASH
    amount = 100 * part / whole
    if amount == 0 or amount >= 10:
        return percent(part / whole)
    return f"{amount:.2g}\N{NO-BREAK SPACE}%" if amount >= 0.001 else "<\N{NO-BREAK SPACE}0.001\N{NO-BREAK SPACE}%"


def groups(facts: TableFacts) -> list[str]:
    """Groups of a table in order, without "all"."""
    found = [name for name in GROUPS if name in facts.isotropy or name in facts.cosine]
    return found + sorted((facts.isotropy.keys() | facts.cosine.keys()) - {*found, "all"})


def suspects(result: ScanResult) -> str:
    """How many suspects are unusual, as far as the list tells."""
    unusual = sum(suspect.score > UNUSUAL for suspect in result.suspects)
    return f"{unusual}+" if unusual >= LISTED else str(unusual)


def keys(result: ScanResult) -> list[Key]:
    """The few numbers that say most, each for every table."""

    def each(name: str, hint: str, value: dict[str, str]) -> Key:
        return Key(name, value if len(value) > 1 else {"": next(iter(value.values()), DASH)}, hint)

    tables = {str(name): facts for name, facts in result.tables.items()}
    full = min(result.model.rows, result.model.width)
    cosine = {name: significant(facts.cosine.get("all", {}).get("all")) for name, facts in tables.items()}
    isotropy = {name: significant(facts.isotropy.get("all", {}).get("raw")) for name, facts in tables.items()}
    rank = {name: number(facts.spectrum.effective_rank, 0) for name, facts in tables.items()}
    first = {name: share(facts.spectrum.energy_first) for name, facts in tables.items()}
    found = [
        each("Mean cosine", "0 is spread evenly, 1 is one direction", cosine),
        each("Isotropy I(W)", "1 is even in all directions", isotropy),
        each("Effective rank", f"of {full:,} directions", rank),
        each("First direction", "of the energy; even would be " + share(1.0, full), first),
        Key("Suspects", {"": suspects(result)}, f"tokens with a score above {UNUSUAL}"),
    ]
    behaviour = result.behaviour
    if behaviour is not None:
        found += [
            Key("Perplexity", {"": significant(behaviour.perplexity)}, f"{behaviour.tokens:,} tokens of text"),
            Key("Bits per byte", {"": significant(behaviour.bits_per_byte)}, "compares different vocabularies"),
            Key("Best temperature", {"": number(behaviour.best_temperature, 2)}, "1 is a right scale of logits"),
        ]
    return found


def model_line(result: ScanResult) -> str:
    """What was scanned, in one line."""
    model = result.model
    said = [
        f"{terminal_text(model.family, 40)}, {model.kind}",
        f"{model.rows:,} × {model.width:,} {terminal_text(model.dtype, 20)}",
    ]
    said.append("embedding and head" if "head" in result.tables else "tied head" if model.tied else "embedding only")
    if model.vocabulary is not None:
        said.append(f"{model.vocabulary:,} tokens")
    if model.padded:
        said.append(f"{count(model.padded, 'padded row')}")
    if model.softcap is not None:
        said.append(f"softcap {model.softcap:g}")
    if model.logit_scale != 1:
        said.append(f"logit scale {model.logit_scale:g}")
    if model.bias:
        said.append("bias")
    return " · ".join(said)
