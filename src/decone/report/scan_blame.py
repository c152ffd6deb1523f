"""The gradient microscope on a page: who is pulled, who is pushed, and by whom."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from decone.diagnosis.result import Blame, BlameRow
from decone.report.frame import Canvases, Plot
from decone.report.scan_rows import searchable
from decone.report.scan_sections import swatch
from decone.report.scan_strings import drawn, word
from decone.report.scan_style import group_colour, log_axis
from decone.report.scan_words import GROUPS, significant
from decone.report.sections import grid
from decone.report.style import LIGHT, TEXT, Figure, figure, graph_objects, label

# Pulls are circles, pushes triangles that point down.
FORCES: dict[str, tuple[str, str, Callable[[BlameRow], float]]] = {
    "pull of own targets": (LIGHT[1], "circle", lambda row: row.pull),
    "pull through the input": (LIGHT[3], "circle", lambda row: row.input),
    "push by frequent": (LIGHT[0], "triangle-down", lambda row: row.push_frequent),
    "push by medium": (LIGHT[5], "triangle-down", lambda row: row.push_medium),
    "push by rare": (LIGHT[2], "triangle-down", lambda row: row.push_rare),
}


def blame(found: Blame, canvases: Canvases) -> str:
    """The section as HTML; its figures go to `canvases`."""
    names = [name for name in ("all", *GROUPS) if name in found.ratio_of_average or name in found.average_of_ratio]
    lines = [
        [swatch(name), significant(found.ratio_of_average.get(name)), significant(found.average_of_ratio.get(name))]
        for name in names
    ]
    pieces = [grid(["Pull over push", "Ratio of average", "Average of ratio"], lines, "", "numbers")]
    how = (
        "Below 1 a row is moved more by targets that are not it than by what speaks for it "
        "(Turumtaev, Stop Jostling, Figure 3)."
    )
    pieces.append(f'<p class="how">{how}</p>')
    if found.rows:
        how_pull = "A dot for each row; below the dashed line the push is stronger than the pull. "
        how_pull += "Rows without any pull lie on the lower edge."
        how_who = "Mean gradient norm on the rows of each group by where it comes from: circles pull, triangles push. "
        how_who += "Healthy rows have their circles right of their triangles."
        canvas = [
            Plot("Which rows are pushed more than pulled?", how_pull, forces(found.rows)),
            Plot("Who pushes whom?", how_who, sources(found.rows)),
        ]
        pieces += [canvases.grid(canvas), _rows(found.rows)]
    return "".join(pieces)


def forces(rows: Sequence[BlameRow]) -> Figure:
    """Pull of each row against its push, on logarithmic axes."""
    left, right = _reach([row.push for row in rows])
    low, high = _reach([row.pull + row.input for row in rows])
    traces = []
    for name in [*GROUPS, *sorted({row.group for row in rows} - set(GROUPS))]:
        mine = [row for row in rows if row.group == name]
        if not mine:
            continue
        texts = [
            f"<b>{drawn(row.token)}</b><br>id {row.id} · {label(name)} · {row.count:,} in the text"
            f"<br>pull {row.pull:.3g}, input {row.input:.3g}, push {row.push:.3g}"
            for row in mine
        ]
        traces.append(
            graph_objects().Scatter(
                x=[max(row.push, left) for row in mine], y=[max(row.pull + row.input, low) for row in mine],
                mode="markers", marker={"color": group_colour(name), "size": 7, "opacity": 0.8}, text=texts,
                hoverinfo="text", name=label(name),
            )
        )  # fmt: skip
    ends = [min(left, low), max(right, high)]
    line: dict[str, Any] = {"type": "line", "x0": ends[0], "x1": ends[1], "y0": ends[0], "y1": ends[1]}
    line["line"] = {"color": TEXT, "dash": "dash", "width": 1}
    notes = [
        {"x": 0.02, "y": 0.98, "text": "pulled", "xanchor": "left", "yanchor": "top"},
        {"x": 0.98, "y": 0.02, "text": "pushed", "xanchor": "right", "yanchor": "bottom"},
    ]
    shared = {"xref": "paper", "yref": "paper", "showarrow": False, "font": {"color": TEXT, "size": 13}}
    return figure(
        traces, height=400, shapes=[line], annotations=[shared | note for note in notes],
        xaxis=log_axis("push", left, right), yaxis=log_axis("pull", low, high),
    )  # fmt: skip


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """Ends of a logarithmic axis; what is 0 is drawn at the lower one."""
    known = [value for value in values if value > 0 and math.isfinite(value)]
    return (min(known) / 1.6, max(known) * 1.6) if known else (0.1, 1.0)


def sources(rows: Sequence[BlameRow]) -> Figure:
    """Mean strength of each pull and push on the rows of each group, on a logarithmic axis."""
    groups = [name for name in GROUPS if any(row.group == name for row in rows)]
    traces = []
    for force, (colour, symbol, strength) in FORCES.items():
        means = {name: _mean([strength(row) for row in rows if row.group == name]) for name in groups}
        known = {name: mean for name, mean in means.items() if mean > 0}
        if known:
            traces.append(
                graph_objects().Scatter(
                    x=list(known.values()), y=[label(name) for name in known], mode="markers", name=force,
                    marker={"color": colour, "symbol": symbol, "size": 12, "opacity": 0.85},
                    hovertemplate=f"{force}, on %{{y}} rows: %{{x:.3g}}<extra></extra>",
                )
            )  # fmt: skip
    across = log_axis("mean gradient norm", *_reach([mean for trace in traces for mean in trace.x]))
    names = [label(name) for name in reversed(groups)]
    upward = {"type": "category", "categoryorder": "array", "categoryarray": names, "showgrid": True}
    return figure(traces, height=400, xaxis=across, yaxis=upward)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else 0.0


def _rows(rows: Sequence[BlameRow]) -> str:
    heads = [("Token", "text"), ("Group", "text"), ("Count", "number"), ("Pull", "number"), ("Input", "number")]
    heads += [("Push", "number"), ("Pull over push", "number")]
    lines = []
    for row in rows:
        ratio = (row.pull + row.input) / row.push if row.push > 0 else None
        numbers = [row.pull, row.input, row.push, ratio]
        lines.append(
            [
                (word(row.token), None),
                (swatch(row.group), None),
                (f"{row.count:,}", float(row.count)),
                *((significant(value), value) for value in numbers),
            ]
        )
    table = searchable("blame", "Rows", heads, lines, "a token or a group", page=15)
    return f"<details><summary>All {len(rows):,} rows</summary>{table}</details>"
