"""A scan in a terminal: what is wrong and what to do about it, then the numbers in short."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from decone.diagnosis.result import Behaviour, Finding, ScanResult, TableFacts
from decone.files.foreign import code_spans, terminal_text, token_label
from decone.report.format import DASH, number
from decone.report.scan_rows import runs
from decone.report.scan_style import TABLES
from decone.report.scan_words import (
    KINDS,
    SYMBOLS,
    amount,
    groups,
    headline,
    model_line,
    ordered,
    share,
    significant,
    tally,
)

STYLES = {"serious": "bold red", "warning": "yellow", "note": "blue", "good": "green"}
SUSPECTS = 10
SIGNS = 24  # of a token


def render(result: ScanResult) -> RenderableType:
    """Draws a result for a rich console; made for 80 columns, complete without colour.

    Every foreign string is a `Text`, whose markup rich does not read, with its control signs made visible.

    Example:
        >>> from decone.diagnosis.result import ModelFacts
        >>> from decone.frequencies import FrequencyFacts
        >>> from rich.console import Console
        >>> model = ModelFacts(name="[b]m", family="gpt2", kind="causal", embedding="wte", head=None, tied=True,
        ...     rows=10, width=4, dtype="float32", vocabulary=None)
        >>> result = ScanResult(model=model, frequencies=FrequencyFacts(source="none"), tables={}, rows=[], suspects=[])
        >>> console = Console(width=80)
        >>> with console.capture() as shown:
        ...     console.print(render(result))
        >>> shown.get().splitlines()[0]
        '[b]m  gpt2, causal · 10 × 4 float32 · tied head'
    """
    severity, said = headline(result)
    pieces: list[RenderableType] = [
        Text.assemble((terminal_text(result.model.name, 200), "bold"), "  ", (model_line(result), "dim")),
        Text.assemble((f"{SYMBOLS[severity]} {said}", STYLES[severity]), (f"  {tally(result)}", "dim")),
    ]
    pieces += [Text(terminal_text(note), style="dim") for note in result.model.notes]
    if result.frequencies.warning:
        pieces.append(Text(terminal_text(result.frequencies.warning), style="dim"))
    findings = ordered(result.findings)
    for finding in findings:
        if finding.severity != "good":
            pieces += _finding(finding)
    good = [finding for finding in findings if finding.severity == "good"]
    pieces += [Text(), *map(_good, good)] if good else []
    for name, facts in result.tables.items():
        pieces += [Text(), _table(TABLES[name], facts, result)]
        pieces.append(Text(_spectrum(facts, min(result.model.rows, result.model.width)), style="dim"))
    if result.behaviour is not None:
        pieces += [Text(), *_behaviour(result.behaviour)]
    if any(found.count for found in result.rows):
        pieces += [Text(), _kinds(result)]
    if result.suspects:
        pieces += [Text(), _suspects(result)]
    pieces += _more(result)
    if result.checks:
        pieces += [Text(), *_checks(result)]
    return Group(*pieces)


def _finding(finding: Finding) -> Iterator[RenderableType]:
    style = STYLES[finding.severity]
    yield Text()
    yield Text(f"{SYMBOLS[finding.severity]} {finding.severity}: {terminal_text(finding.title, 120)}", style=style)
    yield Padding(Text(terminal_text(finding.meaning)), (0, 0, 0, 2), expand=False)
    if finding.remedy:
        said = Text("→ ", style=style)
        for piece, code in code_spans(finding.remedy[:2000]):
            said.append(terminal_text(piece), style="bold" if code else "")
        yield Padding(said, (0, 0, 0, 2), expand=False)


def _good(finding: Finding) -> RenderableType:
    grid = Grid.grid(padding=(0, 1, 0, 0))
    said = Text.assemble(
        (f"{terminal_text(finding.title, 120)}. ", STYLES["good"]), (terminal_text(finding.meaning), "dim")
    )
    grid.add_row(Text(SYMBOLS["good"], style=STYLES["good"]), said)
    return grid


def _grid(first: str, *others: str) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text(first, style="bold underline"), overflow="fold", min_width=10)
    for heading in others:
        grid.add_column(Text(heading), justify="right", no_wrap=True, header_style="dim")
    return grid


def _table(title: str, facts: TableFacts, result: ScanResult) -> Grid:
    names = groups(facts)
    grid = _grid(title.capitalize(), "rows", "I(W)", "I(W) ±", "own cosine", "to frequent", "to all")
    for name in [*names, "all"]:
        isotropy, cosine = facts.isotropy.get(name, {}), facts.cosine.get(name, {})
        sizes = result.frequencies.sizes
        size = sizes.get(name) if name != "all" else sum(sizes.values())
        values = [significant(isotropy.get("raw")), significant(isotropy.get("plus_minus"))]
        values += [_cosine(cosine.get(other)) for other in (name, "frequent", "all")]
        grid.add_row(Text(terminal_text(name, 20)), Text(f"{size:,}" if size else DASH), *map(Text, values))
    return grid


def _cosine(value: float | None) -> str:
    return DASH if value is None else number(value, 3, signed=True)


def _spectrum(facts: TableFacts, full: int) -> str:
    spectrum = facts.spectrum
    return (
        f"effective rank {number(spectrum.effective_rank, 0)} of {full:,} · "
        f"IsoScore {significant(spectrum.isoscore)} · "
        f"first direction {share(spectrum.energy_first)} of the energy · "
        f"mean direction {significant(facts.mean_direction)}"
    )


def _behaviour(found: Behaviour) -> Iterator[RenderableType]:
    grid = _grid("Behaviour", "tokens", "perplexity", "accuracy")
    for name, part in found.groups.items():
        accuracy = DASH if part.accuracy is None else share(part.accuracy)
        grid.add_row(
            Text(terminal_text(name, 20)), Text(f"{part.tokens:,}"), Text(significant(part.perplexity)), Text(accuracy)
        )
    yield grid
    said = [
        f"{terminal_text(found.text, 60)}: perplexity {significant(found.perplexity)}",
        f"best {significant(found.best_perplexity)} at T = {number(found.best_temperature, 2)}",
        f"{significant(found.bits_per_byte)} bits per byte",
    ]
    for name in ("greedy", "human"):
        if name in found.decoding and "3" in found.decoding[name].rep:
            said.append(f"Rep-3 {name} {share(found.decoding[name].rep['3'])}")
    yield Text(" · ".join(said), style="dim")


def _kinds(result: ScanResult) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text("Rows", style="bold underline"), no_wrap=True, min_width=10)
    grid.add_column("count", justify="right", no_wrap=True, header_style="dim")
    grid.add_column("share", justify="right", no_wrap=True, header_style="dim")
    grid.add_column("what they are, and their first ids", overflow="fold", header_style="dim")
    for found in result.rows:
        if found.count:
            said = Text(KINDS[found.kind])
            said.append(f" ({runs(found.ids, 4)})" if found.ids else "", style="dim")
            grid.add_row(found.kind, f"{found.count:,}", share(float(found.count), result.model.rows), said)
    return grid


def _suspects(result: ScanResult) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(Text("Suspects", style="bold underline"), overflow="fold", max_width=28, min_width=10)
    for heading in ("id", "score"):
        grid.add_column(heading, justify="right", no_wrap=True, header_style="dim")
    grid.add_column("group", no_wrap=True, header_style="dim")
    grid.add_column("why", overflow="fold", header_style="dim")
    for suspect in result.suspects[:SUSPECTS]:
        why = Text(terminal_text(", ".join(suspect.reasons), 120), style="dim")
        score = f"{suspect.score:.1f}"
        grid.add_row(
            Text(token_label(suspect.token, SIGNS)), str(suspect.id), score, Text(terminal_text(suspect.group, 20)), why
        )
    if len(result.suspects) > SUSPECTS:
        grid.add_row(Text(f"and {len(result.suspects) - SUSPECTS:,} more", style="dim"))
    return grid


def _more(result: ScanResult) -> Iterator[RenderableType]:
    """Gradients, words and the other model, a line each."""
    if result.blame is not None:
        ratios = result.blame.ratio_of_average
        said = ", ".join(f"{terminal_text(name, 20)} {significant(value)}" for name, value in ratios.items())
        yield Text.assemble("\n", ("Pull over push: ", "bold"), said)
    for one in result.words:
        values = " · ".join(
            f"{name} {value:.1f}"
            for name, value in (("without space", one.plain), ("with space", one.spaced))
            if value is not None
        )
        used = f" ({one.used:,} of {one.pairs:,} pairs)"
        yield Text.assemble(
            ("Word similarity ", "bold"), f"{terminal_text(one.file, 60)}: {values or DASH}", (used, "dim")
        )
    if result.against is not None:
        yield Text.assemble("\n", ("Against ", "bold"), terminal_text(result.against.reference, 120))
        grid = _grid("Measure", "other", "this")
        for name, (before, after) in result.against.metrics.items():
            grid.add_row(Text(terminal_text(name, 40)), Text(significant(before)), Text(significant(after)))
        yield grid


def _checks(result: ScanResult) -> Iterator[RenderableType]:
    for check in result.checks:
        sign, style, word = ("✓", "green", "passed") if check.passed else ("✗", "bold red", "failed")
        said = f"{sign} check {terminal_text(check.name, 60)} {word}: "
        value = "could not be determined" if check.value is None else amount(check.value)
        yield Text.assemble((said, style), f"{value}, limit {amount(check.limit)}")
