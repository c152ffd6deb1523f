"""Verdicts on single rows: never trained, never used, not numbers."""

from collections.abc import Iterator

from decone.diagnosis import limits
from decone.diagnosis.result import Finding, RowFinding, ScanResult, Severity

UNUSUAL = 3.5  # modified z-score of an outlier: Iglewicz and Hoaglin 1993
FEW = 10  # suspects below which the verdict is no more than a note
TRAIN = (
    "Show the model text that holds these tokens, or rebuild the rows of an encoder from a dictionary: "
    "`decone repair definitions MODEL --lexicon FILE --dry-run`."
)
SHRINK = "`decone trim MODEL --unreachable --out FOLDER` leaves them out; `decone grow` takes free rows for new tokens."


def row_findings(result: ScanResult) -> Iterator[Finding]:
    """The verdicts on rows, most urgent kind first."""
    kinds = {found.kind: found for found in result.rows}
    rows = result.model.rows
    if "non-finite" in kinds:
        yield _not_numbers(kinds["non-finite"])
    yield _undertrained(result)
    never = [kinds[kind] for kind in ("zero", "identical", "untrained") if kind in kinds]
    if never:
        yield _never_trained(never, rows)
    if "unreachable" in kinds:
        yield _unreachable(kinds["unreachable"], rows)
    if result.model.padded:
        yield _padded(result.model.padded, rows)


def undertrained(result: ScanResult) -> int:
    """Number of tokens a tokenizer produces whose rows are outliers."""
    return sum(suspect.score > UNUSUAL for suspect in result.suspects)


def _not_numbers(found: RowFinding) -> Finding:
    return Finding(
        code="non-finite",
        severity="serious",
        title="Rows that are not numbers",
        meaning=f"{_rows(found.count)} NaN or infinite entries; a single such row turns every softmax into NaN.",
        remedy="Go back to the last checkpoint without them and look at the learning rate and the gradient norms.",
        evidence={"count": found.count, "ids": found.ids[:20]},
        source="a softmax over NaN is NaN",
    )


def _undertrained(result: ScanResult) -> Finding:
    count = undertrained(result)
    most = len(result.suspects) == count and count >= 500
    amount = f"{'At least ' if most else ''}{count:,} of {result.model.rows:,}"
    first = ", ".join(str(suspect.id) for suspect in result.suspects[: min(count, 5)])
    seem = f"{amount} tokens look as if they were never trained (ids {first}{', ...' if count > 5 else ''})"
    meanings: dict[Severity, str] = {
        "good": f"{amount} tokens of the tokenizer stand out as hardly trained.",
        "note": f"{seem}; a prompt with one of them may derail the model.",
        "warning": f"{seem}; prompts with them may derail the model.",
        "serious": f"{seem}: a large part of the vocabulary is dead weight, and prompts with it derail the model.",
    }
    # In a small vocabulary a handful is a large share, and may be chance.
    value = count / max(1, result.model.rows) if count >= FEW else min(count, 1) * limits.UNDERTRAINED.note
    evidence = {"count": count, "share": count / max(1, result.model.rows), "unusual_above": UNUSUAL}
    return limits.UNDERTRAINED.finding("undertrained", "Under-trained tokens", value, meanings, TRAIN, evidence)


def _never_trained(found: list[RowFinding], rows: int) -> Finding:
    names = {"zero": "all zeros", "identical": "equal to another row", "untrained": "like rows that were never used"}
    parts = ", ".join(f"{part.count:,} {names[part.kind]}" for part in found)
    count = max(part.count for part in found)
    severity: Severity = "warning" if count > 0.05 * rows else "note"
    return Finding(
        code="never-trained",
        severity=severity,
        title="Rows never trained",
        meaning=f"Rows that carry what they were initialised with: {parts}. As long as nothing produces them they cost "
        "memory and a little probability; one that does appear is noise.",
        remedy=TRAIN,
        evidence={part.kind: part.count for part in found},
        source=limits.OWN,
    )


def _unreachable(found: RowFinding, rows: int) -> Finding:
    value = found.count / rows
    unreachable = f"{_rows(found.count)} tokens that no text becomes ({value:.1%} of the vocabulary)"
    meanings: dict[Severity, str] = {
        "good": f"{unreachable}; that is few.",
        "note": f"{unreachable}; they only ever get pushed.",
        "warning": f"{unreachable}; they only ever get pushed, and drag others along.",
        "serious": f"{unreachable}; they only ever get pushed, drag others along, and cost time in every softmax.",
    }
    evidence = {"count": found.count, "share": value, "ids": found.ids[:20]}
    return limits.UNREACHABLE.finding("unreachable", "Unreachable tokens", value, meanings, SHRINK, evidence)


def _padded(count: int, rows: int) -> Finding:
    return Finding(
        code="padded",
        severity="note",
        title="Padded vocabulary",
        meaning=f"{_rows(count)} no token at all: the table was rounded up. New tokens land in them, and what stands "
        "there was never trained.",
        remedy="Initialise such a row before a new token uses it: `decone grow MODEL TOKENS --out FOLDER` does.",
        evidence={"count": count, "share": count / rows},
        source="rows beyond the tokenizer's last id",
    )


def _rows(count: int) -> str:
    return f"{count:,} row holds" if count == 1 else f"{count:,} rows hold"
