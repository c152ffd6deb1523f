"""A scan as a section of a model card: verdicts, key numbers, where they come from."""

from collections.abc import Iterable, Sequence

from decone.diagnosis.result import Finding, ScanResult
from decone.files.foreign import code_spans, markdown_code, markdown_text
from decone.report.format import count
from decone.report.scan_style import TABLES
from decone.report.scan_words import SOURCES, SYMBOLS, amount, headline, keys, model_line, ordered, share, tally


def render(result: ScanResult) -> str:
    """Draws a result as GitHub-flavoured markdown, ending in a newline.

    Example:
        >>> from decone.diagnosis.result import ModelFacts
        >>> from decone.frequencies import FrequencyFacts
        >>> model = ModelFacts(name="<m>", family="gpt2", kind="causal", embedding="wte", head=None, tied=True,
        ...     rows=10, width=4, dtype="float32", vocabulary=None)
        >>> result = ScanResult(model=model, frequencies=FrequencyFacts(source="none"), tables={}, rows=[], suspects=[])
        >>> print(render(result).splitlines()[0])
        ## Embedding health
    """
    severity, said = headline(result)
    more = tally(result)
    blocks = [
        "## Embedding health",
        f"**{SYMBOLS[severity]} {markdown_text(said)}**" + (f" {markdown_text(more)}." if more else ""),
    ]
    verdicts = [_verdict(finding) for finding in ordered(result.findings)]
    blocks += ["\n".join(verdicts)] if verdicts else []
    lines = [
        [
            markdown_text(key.name),
            " / ".join(_value(name, value) for name, value in key.values.items()),
            markdown_text(key.hint),
        ]
        for key in keys(result)
    ]
    blocks.append(_grid(["Measure", "Value", "How to read it"], lines))
    rows = [
        [found.kind, f"{found.count:,}", share(float(found.count), result.model.rows)]
        for found in result.rows
        if found.count
    ]
    blocks += [_grid(["Rows", "Count", "Share"], rows)] if rows else []
    checks = [
        [markdown_text(check.name, 60), amount(check.value), amount(check.limit), _passed(check.passed)]
        for check in result.checks
    ]
    blocks += [_grid(["Check", "Value", "Limit", ""], checks)] if checks else []
    blocks += [f"> {markdown_text(note)}" for note in (*result.model.notes, result.frequencies.warning) if note]
    blocks.append(_provenance(result))
    return "\n\n".join(blocks) + "\n"


def _verdict(finding: Finding) -> str:
    line = f"- {SYMBOLS[finding.severity]} **{finding.severity}** {markdown_text(finding.title, 200)}"
    line += f": {markdown_text(finding.meaning)}" if finding.meaning else ""
    if finding.remedy and finding.severity != "good":
        said = "".join(
            markdown_code(piece, 400) if code else markdown_text(piece)
            for piece, code in code_spans(finding.remedy[:2000])
        )
        line += f" *What to do:* {said}"
    return line


def _value(name: str, value: str) -> str:
    return markdown_text(value) + (f" ({TABLES[name]})" if name else "")


def _passed(passed: bool) -> str:
    return "passed" if passed else "**failed**"


def _provenance(result: ScanResult) -> str:
    facts = [f"{markdown_code(result.model.name, 120)} ({markdown_text(model_line(result))})"]
    facts.append(f"frequencies {SOURCES[result.frequencies.source]}")
    versions = result.provenance.get("versions")
    if isinstance(versions, dict):
        facts += [markdown_text(f"{name} {version}", 60) for name, version in versions.items() if version]
    if result.provenance.get("date"):
        facts.append(markdown_text(str(result.provenance["date"])[:10]))
    taken = count(round(result.seconds), "second")
    return f"Scanned with decone in {taken}: {'; '.join(facts)}."


def _grid(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = [":--"] + ["--:"] + [":--"] * (len(headings) - 2)
    return "\n".join(f"| {' | '.join(line)} |" for line in [headings, rule, *lines])
