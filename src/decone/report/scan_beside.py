"""A scanned model beside other things: human judgements of words, and another model."""

import html
from pathlib import PurePosixPath

from decone.diagnosis.result import ModelDiff, WordSimilarity
from decone.files.foreign import shorten, token_label
from decone.report.frame import Canvases, Plot
from decone.report.scan_rows import searchable
from decone.report.scan_sections import swatch
from decone.report.scan_strings import sentence, word
from decone.report.scan_words import GROUPS, share, significant
from decone.report.sections import grid
from decone.report.style import HIGH, LIGHT, Figure, figure, graph_objects, label


def similarity(found: list[WordSimilarity], canvases: Canvases) -> str:
    """Agreement with human judgements of word similarity, as HTML; its figure goes to `canvases`."""
    how = "Spearman correlation × 100 with human judgements; the line is the 95 % interval. Higher is better."
    drawn = canvases.grid([Plot("Do near rows mean near words?", how, intervals(found), wide=True)])
    lines = [
        [
            sentence(_file(one.file), 60),
            f"{one.used:,} of {one.pairs:,}",
            _estimate(one.plain, one.plain_interval),
            _estimate(one.spaced, one.spaced_interval),
        ]
        for one in found
    ]
    heads = ["Word pairs", "Used", "Without leading space", "With leading space"]
    return drawn + grid(heads, lines, "", "numbers")


def intervals(found: list[WordSimilarity]) -> Figure:
    """A dot with its interval for each file, without and with the leading space."""
    go = graph_objects()
    traces, notes = [], []
    for lane, one in enumerate(found):
        notes.append({"x": 0, "y": -lane + 0.34, "text": label(token_label(_file(one.file), 40))})
    kinds = (("without leading space", LIGHT[1], 0.0), ("with leading space", HIGH, -0.22))
    for turn, (name, colour, lower) in enumerate(kinds):
        values = [(one.spaced, one.spaced_interval) if turn else (one.plain, one.plain_interval) for one in found]
        known = [(lane, value, ends) for lane, (value, ends) in enumerate(values) if value is not None]
        line = [(x, -lane + lower) for lane, _, ends in known if ends for x in (*ends, None)]
        traces += [
            go.Scatter(x=[x for x, _ in line], y=[y for _, y in line], mode="lines", hoverinfo="skip",
                       line={"color": colour, "width": 2}, showlegend=False, legendgroup=name),
            go.Scatter(x=[value for _, value, _ in known], y=[-lane + lower for lane, _, _ in known], mode="markers",
                       marker={"color": colour, "size": 9}, name=name, legendgroup=name,
                       text=[_estimate(value, ends) for _, value, ends in known],
                       hovertemplate=f"{name}: %{{text}}<extra></extra>"),
        ]  # fmt: skip
    shown_ends = [x for trace in traces for x in trace.x if x is not None]
    low, high = min([0.0, *shown_ends]), max(shown_ends, default=100.0)
    margin = 0.04 * (high - low)
    annotation = {"xref": "paper", "xanchor": "left", "yanchor": "middle", "showarrow": False, "align": "left"}
    return figure(
        traces, height=64 * len(found) + 84, annotations=[annotation | note for note in notes],
        xaxis={"title": {"text": "Spearman × 100"}, "range": [low - margin * (low < 0), high + margin]},
        yaxis={"range": [-len(found) + 0.55, 0.6], "visible": False, "fixedrange": True},
    )  # fmt: skip


def against(found: ModelDiff) -> str:
    """Metrics before and after, groups, and the most changed rows, as HTML."""
    lines = []
    for name, (before, after) in found.metrics.items():
        known = before is not None and after is not None
        change = significant(after - before, signed=True) if before is not None and after is not None else "—"
        lines.append([sentence(name, 80), significant(before), significant(after), change if known else "—"])
    other = sentence(found.reference, 60)
    pieces = [grid(["Measure", other, "this model", "change"], lines, "Before and after", "numbers")] if lines else []
    if not found.same_width:
        pieces.append('<p class="notice">The two tables differ in width, so rows are not compared one to one.</p>')
    names = [name for name in ("all", *GROUPS) if name in found.cosine or name in found.neighbours]
    if names:
        rows = [
            [swatch(name), significant(found.cosine.get(name)), _part(found.neighbours.get(name))] for name in names
        ]
        heads = ["Group", "cosine of a row with itself", "nearest ten in common"]
        pieces.append(grid(heads, rows, "How much each group moved", "numbers"))
    if found.changed:
        pieces.append(f"<h3>Which rows changed most?</h3>{_changed(found)}")
    return "".join(pieces)


def _changed(found: ModelDiff) -> str:
    heads = [("Token", "text"), ("Id", "number"), ("Group", "text"), ("Cosine", "number"), ("Norm before", "number")]
    heads += [("Norm after", "number")]
    lines = [
        [
            (word(row.token), None),
            (str(row.id), row.id),
            (swatch(row.group), None),
            (significant(row.cosine, signed=True), row.cosine),
            (significant(row.norm_before), row.norm_before),
            (significant(row.norm_after), row.norm_after),
        ]
        for row in found.changed
    ]
    return searchable("changed", "Changed rows", heads, lines, "a token or an id", page=15)


def _estimate(value: float | None, ends: tuple[float, float] | None) -> str:
    if value is None:
        return "—"
    said = f"{value:.1f}" + (f" [{ends[0]:.1f}, {ends[1]:.1f}]" if ends is not None else "")
    return html.escape(said.replace("-", "−"))


def _part(value: float | None) -> str:
    return "—" if value is None else share(value)


def _file(name: str) -> str:
    return shorten(PurePosixPath(name.replace("\\", "/")).name or name, 60)
