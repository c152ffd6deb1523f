"""The parts of a scan's page that say what is wrong and how it was made: verdicts, checks, key numbers, facts."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

from decone.diagnosis.result import Check, Finding, ScanResult, TableFacts
from decone.files.foreign import code_spans, shorten, terminal_text
from decone.report.format import DASH, count, number
from decone.report.made import flat
from decone.report.scan_strings import sentence
from decone.report.scan_style import TABLES
from decone.report.scan_words import (
    ORDER,
    SOURCES,
    SYMBOLS,
    amount,
    groups,
    headline,
    keys,
    model_line,
    ordered,
    share,
    significant,
    tally,
)
from decone.report.sections import grid

EVIDENCE = 300  # characters of one piece of evidence
PIECES = 60  # pieces of evidence shown


def top(result: ScanResult) -> str:
    """Headline: the worst finding, how many more there are, and what was scanned."""
    severity, said = headline(result)
    amounts = tally(result)
    name = sentence(result.model.name, 120)
    said_more = [f"{amounts[:1].upper()}{amounts[1:]}."] if amounts else []
    failed = sum(not check.passed for check in result.checks)
    if failed:
        said_more.append(f'<b class="bad">{failed} of {count(len(result.checks), "check")} failed.</b>')
    counts = f'<p class="tally">{" ".join(said_more)}</p>' if said_more else ""
    return (
        f'<p class="kicker">decone scan</p><p class="model"><b>{name}</b><br>{html.escape(model_line(result))}</p>'
        f'<h1 class="{severity}">{badge(severity)}{html.escape(said)}</h1>{counts}'
    )


def badge(severity: str) -> str:
    """A severity as a sign and a word."""
    return f'<span class="badge {severity}"><span aria-hidden="true">{SYMBOLS[severity]}</span> {severity}</span> '  # type: ignore[index]


def verdicts(result: ScanResult) -> str:
    """Findings as cards, the worst first; good ones in short at the end."""
    findings = ordered(result.findings)
    if not findings:
        return "<p>This scan holds no verdicts, only the numbers below.</p>" + checks(result.checks)
    bad = [_card(finding) for finding in findings if finding.severity != "good"]
    good = [_card(finding) for finding in findings if finding.severity == "good"]
    fine = f'<div class="fine">{"".join(good)}</div>' if good else ""
    return checks(result.checks) + "".join(bad) + fine


def checks(found: Iterable[Check]) -> str:
    """Limits of the user, passed or failed."""
    chips = [
        f'<li class="chip {"better" if check.passed else "worse"}">{sentence(check.name, 60)} '
        f"{amount(check.value)} "
        f"(limit {amount(check.limit)}): <b>{'passed' if check.passed else 'failed'}</b></li>"
        for check in found
    ]
    return f'<ul class="chips" aria-label="Checks">{"".join(chips)}</ul>' if chips else ""


def numbers(result: ScanResult) -> str:
    """A few large numbers, then every group of every table."""
    tiles = "".join(
        f'<div class="tile"><h3>{key.name}</h3>{"".join(_value(name, value) for name, value in key.values.items())}'
        f"<p>{key.hint}</p></div>"
        for key in keys(result)
    )
    said = [*result.model.notes, *([result.frequencies.warning] if result.frequencies.warning else [])]
    notes = "".join(f'<p class="notice">{sentence(note)}</p>' for note in said)
    tables = "".join(_groups(name, facts, result) for name, facts in result.tables.items())
    how = (
        "I(W) is the isotropy of Mu and Viswanath: 1 when all directions are used alike; ± lets directions point "
        "either way. Mean cosines are between different rows."
    )
    return f'{notes}<div class="tiles">{tiles}</div>{tables}<p class="how">{how}</p>'


def made(result: ScanResult) -> str:
    """What was read, where frequencies come from, versions, machine, date."""
    model, frequencies = result.model, result.frequencies
    facts: list[tuple[str, object]] = [
        ("Model", f"{terminal_text(model.name)}: {model_line(result)}"),
        ("Embedding", model.embedding),
        ("Head", model.head or ("the embedding (tied)" if model.tied else "none")),
    ]
    counted = "" if frequencies.tokens is None else f", {frequencies.tokens:,} occurrences"
    counted += "" if frequencies.types is None else f" of {frequencies.types:,} different tokens"
    facts.append(("Frequencies", f"{SOURCES[frequencies.source]}{counted}"))
    sizes = ", ".join(f"{name} {size:,}" for name, size in frequencies.sizes.items())
    facts += [("Groups", sizes)] if sizes else []
    if result.behaviour is not None:
        text = result.behaviour
        facts.append(("Text", f"{terminal_text(text.text, 200)}, {text.tokens:,} tokens, {text.bytes:,} bytes"))
    facts += [("Time", f"{number(result.seconds, 1)} seconds"), ("Schema", result.schema_)]
    folded = ""
    if result.provenance:
        folded = f"<details><summary>Versions and machine</summary>{pairs(flat(result.provenance))}</details>"
    return pairs(facts) + folded


def pairs(facts: Iterable[tuple[str, object]]) -> str:
    """Names and values as a list."""
    lines = [f"<dt>{sentence(key, 120)}</dt><dd>{sentence(value, 600)}</dd>" for key, value in facts]
    return f"<dl>{''.join(lines)}</dl>"


def _card(finding: Finding) -> str:
    remedy = "".join(_code(piece) if code else sentence(piece) for piece, code in code_spans(shorten(finding.remedy)))
    evidence = list(_evidence(finding.evidence))
    folded = ""
    if evidence or finding.source:
        source = f'<p class="source">Threshold: {sentence(finding.source)}</p>' if finding.source else ""
        listed = pairs(evidence) if evidence else ""
        folded = f"<details><summary>Evidence</summary>{listed}{source}</details>"
    assert finding.severity in ORDER
    return (
        f'<article class="card finding {finding.severity}"><h3>{badge(finding.severity)}'
        f"{sentence(finding.title, 200)}</h3><p>{sentence(finding.meaning)}</p>"
        f"{f'<p class=remedy><b>What to do:</b> {remedy}</p>' if remedy else ''}{folded}</article>"
    )


def _code(piece: str) -> str:
    kind = "command" if piece.startswith("decone ") else "name"
    words = " ".join(f"<span>{sentence(one, 200)}</span>" for one in shorten(piece, 400).split(" "))
    return f'<code class="{kind}">{words}</code>'


def _evidence(evidence: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    found = list(flat(evidence))
    for key, value in found[:PIECES]:
        try:
            said = significant(float(value)) if "." in value or "e" in value else value
        except ValueError:
            said = value
        yield key.replace("_", " "), shorten(said, EVIDENCE)
    if len(found) > PIECES:
        yield "…", f"{len(found) - PIECES:,} more in the JSON"


def _value(name: str, value: str) -> str:
    which = f' <span class="which">{"output" if name == "head" else "embedding"}</span>' if name else ""
    return f'<div class="large{" two" if name else ""}">{html.escape(value)}{which}</div>'


def _groups(name: str, facts: TableFacts, result: ScanResult) -> str:
    names = groups(facts)
    lines = []
    for group in [*names, "all"]:
        isotropy, cosine = facts.isotropy.get(group, {}), facts.cosine.get(group, {})
        size = result.frequencies.sizes.get(group) if group != "all" else sum(result.frequencies.sizes.values())
        cells = [significant(isotropy.get("raw")), significant(isotropy.get("plus_minus"))]
        cells += [_cosine(cosine.get(other)) for other in [*names, "all"]]
        lines.append([swatch(group), f"{size:,}" if size else DASH, *cells])
    heads = ["Group", "Rows", "I(W)", "I(W) ±", *(f"cosine to {html.escape(other)}" for other in [*names, "all"])]
    spectrum, norms = facts.spectrum, facts.norms
    more = [
        ("IsoScore", significant(spectrum.isoscore)),
        ("energy in the first ten directions", share(spectrum.energy_ten)),
        ("mean direction", significant(facts.mean_direction)),
        ("correlation of norm and frequency rank", significant(norms.rank_correlation, signed=True)),
    ]
    middle = norms.quantiles.get("0.5")
    if middle is not None:
        ends = f"{significant(norms.quantiles.get('0'))} to {significant(norms.quantiles.get('1'))}"
        more.append(("norm of a row", f"median {significant(middle)}, {ends}"))
    facts_line = " · ".join(f"{key} <b>{html.escape(value)}</b>" for key, value in more)
    title = TABLES[name]
    caption = f"Groups of the {title}" if len(result.tables) > 1 else "Frequency groups"
    return f'{grid(heads, lines, caption, "numbers")}<p class="more">{facts_line}</p>'


def _cosine(value: float | None) -> str:
    return DASH if value is None else number(value, 3, signed=True)


def swatch(group: str) -> str:
    """A group's name with the dot of its colour."""
    known = f"own-{group}" if group.isalnum() and group.isascii() else "own-none"
    return f'<span class="swatch {known}"></span>{sentence(group, 40)}'
