"""A scan as a document: the verdict first, then the numbers and plots that it rests on."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from decone.diagnosis import figures
from decone.diagnosis.behaviour_view import BRIEF, behaviour_blocks, blame_blocks, diff_blocks, words_blocks
from decone.diagnosis.figures import GROUPS, TABLES, group_swatch
from decone.diagnosis.result import (
    SUSPECTS,
    Check,
    Finding,
    RowFinding,
    ScanResult,
    TableFacts,
)
from decone.diagnosis.table_metrics import table_metrics
from decone.document.blocks import (
    SEVERITIES,
    Card,
    Chips,
    Code,
    ContentBlock,
    Document,
    Facts,
    Figure,
    Folded,
    Grid,
    GridCell,
    GridColumn,
    Inline,
    KeyNumber,
    KeyNumbers,
    Media,
    Note,
    Phrase,
    Section,
    Severity,
    Styled,
    Title,
    Token,
    Verdict,
    Words,
    dotted_pairs,
)
from decone.document.numbers import DASH, amount, count, id_ranges, number, proportion, significant
from decone.files.foreign import shorten, terminal_text
from decone.frequencies import SOURCES
from decone.metrics.table_survey import TableSample
from decone.metrics.undertrained import UNUSUAL

TOKENS = 60  # tokens of a kind of rows that are shown
EVIDENCE = 60  # pieces of evidence shown
KINDS = {
    "zero": "all entries are 0",
    "non-finite": "holds NaN or infinity",
    "identical": "the same as another row",
    "padded": "beyond the tokenizer's last id",
    "gap": "no token has this id, though higher ones are used",
    "beyond": "a token, but its id lies beyond the table",
    "shared": "several tokens have this id",
    "chat": "the chat template writes it, and it looks never trained",
    "reserved": "set aside by the tokenizer, never in a text",
    "unreachable": "no text is ever split into this token",
    "partial": "a piece of a character, only inside others",
    "untrained": "lies where rows lie that were never trained",
}
NOUNS: dict[Severity, str] = {"serious": "serious finding", "warning": "warning", "note": "note"}
RANK = "frequency rank, 1 is the most frequent"
RANKS = {"merges": "frequency rank, guessed from the ids", "none": "id + 1"}


def scan_document(result: ScanResult, samples: Sequence[TableSample] = ()) -> Document:
    """The document of a scan, for a page, a terminal and a model card.

    Args:
        result: the scan; every string in it may come from a stranger.
        samples: some rows of each table for the plots; may be empty.

    Example:
        >>> from decone.diagnosis.result import ModelFacts
        >>> from decone.document import markdown
        >>> from decone.frequencies import FrequencyFacts
        >>> model = ModelFacts(name="<m>", family="gpt2", kind="causal", embedding="wte", head=None, tied=True,
        ...     rows=10, width=4, dtype="float32", vocabulary=None)
        >>> result = ScanResult(model=model, frequencies=FrequencyFacts(source="none"), tables={}, rows=[], suspects=[])
        >>> print(markdown.render(scan_document(result)).splitlines()[2])
        **i Measured, but not judged: this scan holds no verdicts.**
    """
    sections = [
        Section("findings", "Verdicts", tuple(_verdicts(result))),
        Section("numbers", "Numbers", tuple(_numbers(result))),
        Section("tables", "Shape of the table", tuple(_figures(result, samples)), _tables_lede(result)),
    ]
    lede = "Tokens that texts can hold but that seem never trained."
    sections.append(Section("suspects", "Suspects", tuple(_suspects(result)), lede))
    lede = "Rows that cannot carry meaning, by kind."
    sections.append(Section("rows", "Rows never trained", tuple(_rows(result)), lede))
    if result.behaviour is not None:
        lede = f"What it makes of {terminal_text(result.behaviour.text, 80)}, {result.behaviour.tokens:,} tokens."
        sections.append(Section("behaviour", "Behaviour", tuple(behaviour_blocks(result.behaviour)), lede))
    if result.blame is not None:
        lede = f"What moves the rows of the output table, over {count(result.blame.steps, 'step')} of training."
        sections.append(Section("blame", "Gradients", tuple(blame_blocks(result.blame)), lede))
    if result.words:
        lede = "Cosine of rows against what people say of the same words."
        sections.append(Section("words", "Word similarity", tuple(words_blocks(result.words)), lede))
    if result.against is not None:
        lede = f"Beside {terminal_text(result.against.reference, 120)}, which counts as before."
        sections.append(Section("against", "Before and after", tuple(diff_blocks(result.against)), lede))
    sections.append(Section("checks", "", tuple(_checks(result, Media.TEXT)), media=Media.TEXT))
    sections.append(Section("made", "How it was made", tuple(_provenance(result))))
    sections = [replace(section, heading_media=Media.PAGE) for section in sections]  # a card has one heading
    return Document(_title(result), sections, f"{terminal_text(result.model.name, 80)}: decone scan")


def headline(result: ScanResult) -> tuple[Severity, str]:
    """The worst severity and its claim, in one sentence; "good" where nothing is wrong."""
    findings = _by_severity(result.findings)
    if not findings:
        return "note", "Measured, but not judged: this scan holds no verdicts."
    worst = findings[0]
    if worst.severity == "good":
        return "good", f"Nothing wrong was found in {count(len(findings), 'verdict')}."
    return worst.severity, f"{claim(worst)}."


def claim(finding: Finding) -> str:
    """The first clause of a finding's meaning; its title where there is no meaning.

    Example:
        >>> claim(Finding(code="cone", severity="note", title="Cone", meaning="Rows lean: 0.2. So what.", remedy="",
        ...     evidence={}, source=""))
        'Rows lean'
    """
    meaning = terminal_text(finding.meaning or finding.title, 300)
    clause = re.split(r"[:;.](?: |↵|$)", meaning, maxsplit=1)[0].strip()
    return re.sub(r" \([^()]*\)$", "", clause) or terminal_text(finding.title, 300)


def _title(result: ScanResult) -> Title:
    severity, text = headline(result)
    amounts = {severity: sum(finding.severity == severity for finding in result.findings) for severity in SEVERITIES}
    findings = ", ".join(
        f"{size} good" if severity == "good" else count(size, NOUNS[severity])
        for severity, size in amounts.items()
        if size
    )
    tally: list[Inline] = [f"{findings}."] if findings else []
    failed = sum(not check.passed for check in result.checks)
    if failed:
        tally += [" ", Styled(f"{failed} of {count(len(result.checks), 'check')} failed.", "bad")]
    name = terminal_text(result.model.name, 120)
    return Title(text, "decone scan", name, model_line(result), severity, tuple(tally), card="Embedding health")


def model_line(result: ScanResult) -> str:
    """The scanned model in one line: family, shape, tables, tokenizer, peculiarities of its head."""
    model = result.model
    facts = [
        f"{terminal_text(model.family, 40)}, {model.kind}",
        f"{model.rows:,} × {model.width:,} {terminal_text(model.dtype, 20)}",
        "embedding and head" if "head" in result.tables else "tied head" if model.tied else "embedding only",
        f"{model.vocabulary:,} tokens" if model.vocabulary is not None else "",
        count(model.padded, "padded row") if model.padded else "",
        f"softcap {model.softcap:g}" if model.softcap is not None else "",
        f"states before the head times {model.state_scale:g}" if model.state_scale != 1 else "",
        f"logit scale {model.logit_scale:g}" if model.logit_scale != 1 else "",
        "bias" if model.bias else "",
    ]
    return " · ".join(filter(None, facts))


def _by_severity(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _verdicts(result: ScanResult) -> Iterator[ContentBlock]:
    yield from _checks(result, Media.PAGE)
    if not result.findings:
        yield Note("This scan holds no verdicts, only the numbers below.", media=Media.PAGE)
    for finding in _by_severity(result.findings):
        evidence = tuple(_evidence(finding.evidence))
        title = terminal_text(finding.title, 200)
        yield Verdict(finding.severity, title, finding.meaning, finding.remedy, evidence, finding.source)


def _evidence(evidence: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    pairs = list(dotted_pairs(evidence))
    for key, value in pairs[:EVIDENCE]:
        try:
            text = significant(float(value)) if "." in value or "e" in value else value
        except ValueError:
            text = value
        yield shorten(key.replace("_", " "), 120), shorten(text, 300)
    if len(pairs) > EVIDENCE:
        yield "…", f"{len(pairs) - EVIDENCE:,} more in the JSON"


def _checks(result: ScanResult, media: Media) -> Iterator[ContentBlock]:
    """Limits of the user, passed or failed; last in a text, where they stay on the screen."""
    if result.checks:
        yield Chips([_check(check) for check in result.checks], "Checks", media=media)


def _check(check: Check) -> tuple[Phrase, Literal["good", "bad"]]:
    value = "could not be determined" if check.value is None else amount(check.value)
    outcome = Styled("passed" if check.passed else "failed", "strong")
    line = (f"check {terminal_text(check.name, 60)} ", outcome, f": {value}, limit {amount(check.limit)}")
    return line, "good" if check.passed else "bad"


def _numbers(result: ScanResult) -> Iterator[ContentBlock]:
    for note in (*result.model.notes, result.frequencies.warning):
        if note:
            yield Note(note, "notice")
    yield KeyNumbers(tuple(_key_numbers(result)))
    for name, facts in result.tables.items():
        yield from _table(name, facts, result)
    reading = "I(W) is the isotropy of Mu and Viswanath: 1 when all directions are used alike; ± lets directions point "
    reading += "either way. Own cosine is the mean between different rows of a group, the others are means to rows of "
    yield Note(f"{reading}another group.", "hint", media=Media.PAGE)


def _key_numbers(result: ScanResult) -> Iterator[KeyNumber]:
    """The few numbers that say most, each for every table."""
    owners = {"embedding": "embedding", "head": "output"} if len(result.tables) > 1 else {}
    for metric in table_metrics():
        if metric.key:
            values = [(owners.get(name, ""), metric.text(metric.value(facts))) for name, facts in result.tables.items()]
            yield KeyNumber(metric.key, values or [("", DASH)], metric.hint(result.model))
    unusual = sum(suspect.score > UNUSUAL for suspect in result.suspects)
    suspects = f"{unusual}+" if unusual >= SUSPECTS else str(unusual)
    yield KeyNumber("Suspects", [("", suspects)], f"tokens with a score above {UNUSUAL}")
    behaviour = result.behaviour
    if behaviour is not None:
        perplexity, bits = significant(behaviour.perplexity), significant(behaviour.bits_per_byte)
        yield KeyNumber("Perplexity", [("", perplexity)], f"{behaviour.tokens:,} tokens of text")
        yield KeyNumber("Bits per byte", [("", bits)], "compares different vocabularies")
        best = number(behaviour.best_temperature, 2)
        yield KeyNumber("Best temperature", [("", best)], "1 is a right scale of logits")


def _table(name: str, facts: TableFacts, result: ScanResult) -> Iterator[ContentBlock]:
    """Metrics by group, and cosines between groups; then the metrics of the whole table in a line."""
    names = [group for group in GROUPS if group in facts.isotropy or group in facts.cosine]
    names += sorted((facts.isotropy.keys() | facts.cosine.keys()) - {*names, "all"})
    by_group = [metric for metric in table_metrics() if metric.per_group]
    peers = [group for group in names if group != "frequent"]  # cosines to frequent and to all rows are metrics
    sizes = result.frequencies.sizes
    rows = []
    for group in [*names, "all"]:
        size = sizes.get(group) if group != "all" else sum(sizes.values())
        cells = [metric.text(metric.value(facts, group)) for metric in by_group]
        cosines = [_cosine(facts.cosine.get(group, {}).get(peer)) for peer in peers]
        rows.append((group_swatch(group), size or None, *cells, *cosines))
    columns: list[str | GridColumn] = [
        *("Group", "Rows"),
        *(GridColumn(metric.label, tooltip=metric.meaning) for metric in by_group),
        *(GridColumn(f"to {peer}", media=Media.PAGE) for peer in peers),
    ]
    several = len(result.tables) > 1
    caption = f"Groups of the {TABLES[name]}" if several else "Frequency groups"
    yield Grid(columns, rows, caption, media=Media.SCREEN)
    pairs = [
        (metric.label, metric.text(metric.value(facts)))
        for metric in table_metrics()
        if not (metric.per_group or metric.key)
    ]
    quantiles = facts.norms.quantiles
    if "0" in quantiles and "1" in quantiles:
        pairs.append(("norms", f"{significant(quantiles['0'])} to {significant(quantiles['1'])}"))
    if several:
        pairs[0] = (f"{TABLES[name].capitalize()}: {pairs[0][0]}", pairs[0][1])
    yield Facts(pairs, inline=True)


def _cosine(value: float | None) -> str:
    return DASH if value is None else number(value, 3, signed=True)


def _tables_lede(result: ScanResult) -> str:
    lede = "Colours are frequency groups; point at a dot to see its token."
    return lede if len(result.tables) == 1 else f"Embedding and output table side by side. {lede}"


def _figures(result: ScanResult, samples: Sequence[TableSample]) -> Iterator[Figure]:
    by_table = {sample.table: sample for sample in samples}
    several = len(result.tables) > 1

    def heading(question: str, name: str) -> Phrase:
        return (f"{question} ", Styled(TABLES[name], "dim")) if several else question

    for name in result.tables:
        if name in by_table:
            reading = f"{len(by_table[name].ids):,} rows on their two main components; crosses are suspects. "
            reading += "Groups that lie apart are told apart by frequency, not by meaning."
            yield Figure(heading("Do rare tokens lie apart?", name), reading, partial(figures.plane, by_table[name]))
    for name, facts in result.tables.items():
        reading = "Pairs of rows by group, each lane as high as its own peak; tick and number are the mean. "
        reading += "Around 0 is healthy; a hill to the right is a cone."
        draw = partial(figures.cosines, facts.histograms, facts.cosine)
        if facts.histograms:
            yield Figure(heading("Do rows point the same way?", name), reading, draw)
    rank = RANKS.get(result.frequencies.source, RANK)
    for name, facts in result.tables.items():
        reading = "The line is the median, the band the middle half, a dot a row. "
        reading += "A slope means that length tells frequency; a heap at the right end was hardly trained."
        draw = partial(figures.norms, facts.norms, by_table.get(name), rank)
        yield Figure(heading("Does length give frequency away?", name), reading, draw)
    if result.tables:
        reading = "A slow fall uses many directions; a cliff after the first is a narrow cone. "
        reading += "Dashed is the effective rank."
        draw = partial(figures.spectrum, dict(result.tables))
        yield Figure("How many directions are used?", reading, draw, wide=several)


def _suspects(result: ScanResult) -> Iterator[ContentBlock]:
    suspects = result.suspects
    if not suspects:
        yield Note("None: no token that the tokenizer produces stands out.", media=Media.PAGE)
        return
    full = " The list ends there." if len(suspects) >= SUSPECTS else ""
    reading = f"A score above {UNUSUAL} is unusual. Listed are {len(suspects):,} tokens.{full}"
    yield Note(reading, "hint", media=Media.PAGE)
    counted = any(suspect.count is not None for suspect in suspects)
    columns = (
        "Token", "Id", "Score", GridColumn("Group", "left"), GridColumn("Norm", media=Media.PAGE),
        GridColumn("Count", media=Media.PAGE if counted else Media(0)), GridColumn("Why", "left", wrap=True),
    )  # fmt: skip
    rows = [
        (
            Token(suspect.token, code_points=True),
            GridCell(str(suspect.id), suspect.id),
            GridCell(suspect.score, format=lambda score: f"{score:.1f}" if score < 1000 else significant(score)),
            group_swatch(suspect.group),
            suspect.norm,
            suspect.count,
            " · ".join(shorten(reason, 160) for reason in suspect.reasons),
        )
        for suspect in suspects
    ]
    yield Grid(
        columns, rows, "Suspects", quiet=True, search="a token, an id, a reason", brief=BRIEF, media=Media.SCREEN
    )


def _rows(result: ScanResult) -> Iterator[ContentBlock]:
    """Rows of each kind: how many, what that means, which."""
    kinds = [finding for finding in result.rows if finding.count]
    if not kinds:
        yield Note("None: every row is its own, finite, reachable and looks trained.", media=Media.PAGE)
        return
    for finding in kinds:
        yield _kind(finding, result.model.rows)
    rows = []
    for finding in kinds:
        ids = f" ({id_ranges(finding.ids, 4)})" if finding.ids else ""
        share = proportion(finding.count, result.model.rows)
        rows.append((finding.kind, finding.count, share, (KINDS[finding.kind], Styled(ids, "dim"))))
    columns = ("Rows", "Count", "Share", GridColumn("What they are, and their first ids", "left", wrap=True))
    yield Grid(columns, rows, media=Media.TEXT)


def _kind(finding: RowFinding, rows: int) -> Card:
    share = f"{proportion(finding.count, rows)} of the rows"
    heading = (Styled(f"{finding.count:,}", "strong"), f" {finding.kind} ", Styled(share, "dim"))
    first = id_ranges(finding.ids, 4)
    ids = id_ranges(finding.ids)
    more = "" if finding.count <= len(finding.ids) or ids.endswith("…") else ", …"
    folded: list[ContentBlock] = [Note(f"ids {ids}{more}", "hint")] if finding.ids else []
    tokens = finding.tokens[:TOKENS]
    folded.append(Words(tokens, more=bool(tokens) and finding.count > len(tokens)))
    blocks: list[ContentBlock] = [Note(KINDS[finding.kind])]
    if finding.note:
        blocks.append(Note(shorten(finding.note, 300), "hint"))
    blocks.append(Folded(f"ids {first}" if first else "Which", folded))
    return Card(heading, blocks, narrow=True, media=Media.PAGE)


def _provenance(result: ScanResult) -> Iterator[ContentBlock]:
    """Model, source of the frequencies, text, versions, machine, date."""
    model, frequencies = result.model, result.frequencies
    counted = "" if frequencies.tokens is None else f", {frequencies.tokens:,} occurrences"
    counted += "" if frequencies.types is None else f" of {frequencies.types:,} different tokens"
    text = result.behaviour
    pairs = [
        ("Model", f"{shorten(model.name, 600)}: {model_line(result)}"),
        ("Embedding", shorten(model.embedding, 600)),
        ("Head", shorten(model.head or ("the embedding (tied)" if model.tied else "none"), 600)),
        ("Frequencies", f"{SOURCES[frequencies.source]}{counted}"),
        ("Groups", ", ".join(f"{name} {size:,}" for name, size in frequencies.sizes.items())),
        ("Text", f"{shorten(text.text, 200)}, {text.tokens:,} tokens, {text.bytes:,} bytes" if text else ""),
        ("Time", f"{number(result.seconds, 1)} seconds"),
        ("Schema", result.schema_),
    ]
    yield Facts(tuple(pair for pair in pairs if pair[1]), media=Media.PAGE)
    if result.provenance:
        machine = tuple((shorten(key, 120), shorten(value, 600)) for key, value in dotted_pairs(result.provenance))
        yield Folded("Versions and machine", (Facts(machine),), media=Media.PAGE)
    yield _credits(result)


def _credits(result: ScanResult) -> Note:
    """The end of a model card: with what it was scanned, and when."""
    versions = result.provenance.get("versions")
    facts = [f" ({model_line(result)})", f"frequencies {SOURCES[result.frequencies.source]}"]
    if isinstance(versions, dict):
        facts += [shorten(f"{name} {version}", 60) for name, version in versions.items() if version]
    if result.provenance.get("date"):
        facts.append(str(result.provenance["date"])[:10])
    seconds = count(round(result.seconds), "second")
    name = Code(shorten(result.model.name, 120))
    return Note((f"Scanned with decone in {seconds}: ", name, f"{'; '.join(facts)}."), media=Media.MARKDOWN)
