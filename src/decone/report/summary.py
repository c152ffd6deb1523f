"""A comparison in plain words: what each method did, seed by seed, and what is clear over all seeds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from decone.files.foreign import visible
from decone.report.format import MAIN, bounds, count, language, number, percent, verdict
from decone.studies.table import ALIGNED, Cell, Measure, Row, Table

NAMES = {"best_perplexity": "best perplexity", "accuracy": "accuracy"}
LEVEL = "95\N{NO-BREAK SPACE}%"
ALIGNMENT = Measure("alignment", "alignment", True, 2)


@dataclass(frozen=True)
class Change:
    """One number of one seed, before (first method) and after (this method), as shown, and a word for it."""

    name: str
    before: str
    after: str
    word: str


@dataclass(frozen=True)
class Story:
    """What a method did against the first one.

    Attributes:
        label: the method.
        runs: how many of its runs are finished.
        language: the language that the seeds are about: the low-resource one where there is one.
        seeds: changes of every common seed.
        verdicts: name of a measure and what is clear about it over all seeds, for every language.
        sentences: the same in words, with intervals; they do not name the method again.
    """

    label: str
    runs: int
    language: str
    seeds: dict[int, list[Change]]
    verdicts: list[tuple[str, str]]
    sentences: list[str]


def focus(table: Table) -> str:
    """The language a comparison is about: LR, or the only one."""
    languages = [row.language for row in table.rows]
    return "LR" if "LR" in languages else languages[0]


def stories(table: Table) -> list[Story]:
    """One story for each method after the first."""
    rows = {(row.label, row.language): row for row in table.rows}
    first, *others = table.labels
    return [_story(table, rows, label, first) for label in others]


def sentences(table: Table) -> list[str]:
    """One paragraph for each method after the first; never a benefit whose interval includes 0.

    Example:
        >>> from decone.studies.table import build
        >>> sentences(build("Demo", {"mle": {}, "threshold": {}}, "best"))
        ['threshold against mle. Not run yet.']
    """
    base = visible(table.labels[0])
    return [f"{visible(story.label)} against {base}. {' '.join(story.sentences)}" for story in stories(table)]


def _story(table: Table, rows: dict[tuple[str, str], Row], label: str, first: str) -> Story:
    about = focus(table)
    base = visible(first)
    languages = [about, *(other for other in dict.fromkeys(key[1] for key in rows) if other != about)]
    measures = [measure for measure in table.measures if measure.key in MAIN]
    here, reference = rows.get((label, about)), rows.get((first, about))
    run = {seed for (owner, _), row in rows.items() if owner == label for seed in row.cells[MAIN[0]].seeds}
    if not run:
        return Story(label, 0, about, {}, [], ["Not run yet."])
    said: list[str] = []
    verdicts: list[tuple[str, str]] = []
    for spoken in languages:
        row = rows.get((label, spoken))
        found = [(measure, row.cells[measure.key]) for measure in measures if row and row.cells[measure.key].difference]
        if found:
            said.append(_sentence(language(spoken), found))
        prefix = f"{visible(spoken)} " if len(languages) > 1 else ""
        verdicts += [(prefix + NAMES[m.key], verdict(m, cell.difference)) for m, cell in found if cell.difference]
    if not said:
        return Story(
            label, len(run), about, {}, [], [f"No seed in common with {base}, so there is nothing to compare."]
        )
    seeds: dict[int, list[Change]] = {}
    for measure in measures:
        if here is not None and reference is not None:
            after, before = here.cells[measure.key].seeds, reference.cells[measure.key].seeds
            for seed in sorted(after.keys() & before.keys()):
                seeds.setdefault(seed, []).append(_change(measure, before[seed], after[seed]))
    if label in table.alignment and first in table.alignment:
        shares, others = table.alignment[label].seeds, table.alignment[first].seeds
        for seed in sorted(shares.keys() & others.keys() & seeds.keys()):
            seeds[seed].append(_change(ALIGNMENT, others[seed], shares[seed]))
    return Story(label, len(run), about, seeds, verdicts, said + _aligned(table, label, first))


def _sentence(spoken: str, found: Sequence[tuple[Measure, Cell]]) -> str:
    runs = max(cell.difference.count for _, cell in found if cell.difference is not None)
    clauses = "; ".join(_clause(measure, cell) for measure, cell in found)
    return f"{spoken[:1].upper()}{spoken[1:]}, {count(runs, 'seed')}: {clauses}."


def _clause(measure: Measure, cell: Cell) -> str:
    difference = cell.difference
    assert difference is not None  # the caller has left such cells out
    mean = number(difference.mean, measure.digits, signed=True)
    word = verdict(measure, difference)
    if math.isnan(difference.low):
        return f"{NAMES[measure.key]} {mean}, {word}"
    interval = f"{LEVEL} interval {bounds(difference, measure.digits, signed=True)}"
    return f"{NAMES[measure.key]} {mean} ({interval}), {word}"


def _change(measure: Measure, before: float, after: float) -> Change:
    shown = (percent if measure is ALIGNMENT else lambda value: number(value, measure.digits))(before)
    now = percent(after) if measure is ALIGNMENT else number(after, measure.digits)
    name = NAMES.get(measure.key, measure.heading)
    if shown == now:
        return Change(name, shown, now, "no change")
    if math.isnan(before) or math.isnan(after):
        return Change(name, shown, now, "not comparable")
    return Change(name, shown, now, "better" if (after > before) == measure.higher else "worse")


def _aligned(table: Table, label: str, first: str) -> list[str]:
    found = table.alignment.get(label)
    if found is None:
        return []
    aligned, runs = _tally(found.seeds.values())
    interval = f"{LEVEL} interval {percent(found.share.low)} to {percent(found.share.high)}"
    text = f"The two languages aligned in {aligned} of {count(runs, 'run')} ({interval})"
    if first in table.alignment:
        text += ", in {} of {} with {}".format(*_tally(table.alignment[first].seeds.values()), visible(first))
    said = [f"{text}."]
    if 0 < aligned < runs:
        said.append("The runs fall into two groups, and a mean describes neither: look at every seed.")
    return said


def _tally(shares: Iterable[float]) -> tuple[int, int]:
    values = list(shares)
    return sum(share > ALIGNED for share in values), len(values)
