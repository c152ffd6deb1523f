"""Plots of a scanned table: its main plane, its singular values, its lengths, its cosines."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decone.diagnosis.drawing import Drawing
from decone.diagnosis.result import CosineHistogram, RowNorms, TableFacts
from decone.report.format import number
from decone.report.scan_strings import drawn as drawn_token
from decone.report.scan_style import SUSPECT, TABLE, TABLES, faint, group_colour, log_axis
from decone.report.scan_words import GROUPS
from decone.report.style import QUIET, TEXT, Figure, figure, graph_objects, label

HEIGHT = 520  # pixels of plane and cosines, which stand side by side
LANE = 110  # most pixels of height for a pair of groups
TOP = 0.86  # how much of its lane a histogram may fill


def plane(drawing: Drawing) -> Figure:
    """Rows on their two main components, coloured by frequency group, suspects as crosses above them."""
    scatter = graph_objects().Scatter
    traces = []
    for name, chosen in _parts(drawing):
        suspect = name == "suspect"
        marker = _marker(name, 7 if suspect else 4)
        traces.append(
            scatter(
                x=_short(drawing.plane[chosen, 0]), y=_short(drawing.plane[chosen, 1]), mode="markers", marker=marker,
                text=[_hover(drawing, place) for place in chosen], hoverinfo="text",
                name=label(name), legendrank=_place(name),
            )
        )  # fmt: skip
    across = {"title": {"text": "first component"}, "zeroline": False, "constrain": "domain"}
    upward = {"title": {"text": "second component"}, "zeroline": False, "scaleanchor": "x"}
    return figure(traces, height=HEIGHT, xaxis=across, yaxis=upward, legend=_legend())


def spectrum(tables: Mapping[str, TableFacts]) -> Figure:
    """Singular values of every table on logarithmic axes, the effective rank as an upright line."""
    go = graph_objects()
    traces, shapes, notes = [], [], []
    for turn, (name, facts) in enumerate(tables.items()):
        found = facts.spectrum
        pairs = [(p, v) for p, v in zip(found.ranks, found.singular_values, strict=False) if p > 0 and v > 0]
        traces.append(
            go.Scatter(
                x=[place for place, _ in pairs], y=[value for _, value in pairs], mode="lines",
                line={"color": TABLE[name], "width": 2.25}, name=TABLES[name],
                hovertemplate="singular value %{x}: %{y:.3f} of the largest<extra></extra>",
            )
        )  # fmt: skip
        if found.effective_rank > 0:
            line = {"color": TABLE[name], "width": 1.25, "dash": "dash"}
            shapes.append(
                {"type": "line", "x0": found.effective_rank, "x1": found.effective_rank, "y0": 0, "y1": 1,
                 "yref": "paper", "line": line}
            )  # fmt: skip
            who = f"{TABLES[name]}: " if len(tables) > 1 else ""
            notes.append(
                {"x": float(np.log10(found.effective_rank)), "y": 0.02 + 0.09 * turn, "yref": "paper",
                 "text": f"{who}effective rank {found.effective_rank:.0f} ", "showarrow": False, "xanchor": "right",
                 "yanchor": "bottom", "font": {"color": TEXT}}
            )  # fmt: skip
    last = max([10, *(place for trace in traces for place in trace.x)])
    least = min([0.1, *(value for trace in traces for value in trace.y)])
    across, upward = log_axis("singular value", 1, last * 1.05), log_axis("share of the largest", least / 1.3, 1.15)
    return figure(
        traces, height=400, xaxis=across, yaxis=upward, shapes=shapes, annotations=notes,
        showlegend=len(tables) > 1, legend=_legend(),
    )  # fmt: skip


def norms(facts: RowNorms, drawing: Drawing | None, rank: str) -> Figure:
    """Length of a row against its rank: a dot for each drawn row, median and middle half above them."""
    go = graph_objects()
    traces = []
    for name, chosen in _parts(drawing) if drawing is not None else []:
        assert drawing is not None
        suspect = name == "suspect"
        traces.append(
            go.Scatter(
                x=drawing.rank[chosen].tolist(), y=_short(drawing.norm[chosen]), mode="markers",
                marker=_marker(name, 7 if suspect else 3) | {"opacity": 0.9 if suspect else 0.45},
                text=[_hover(drawing, place) for place in chosen], hoverinfo="text",
                name=label(name), legendrank=_place(name),
            )
        )  # fmt: skip
    bins = sorted(facts.by_rank)
    ranks = [one[0] for one in bins]
    band = {"color": QUIET, "width": 0}
    shared: dict[str, Any] = {"x": ranks, "mode": "lines", "showlegend": False}
    ink = group_colour("all")
    traces += [
        go.Scatter(y=[one[1] for one in bins], line=band, hoverinfo="skip", **shared),
        go.Scatter(y=[one[3] for one in bins], line=band, hoverinfo="skip", fill="tonexty", fillcolor=faint(ink),
                   **shared),
        go.Scatter(y=[one[2] for one in bins], line={"color": ink, "width": 2.5},
                   hovertemplate="rank %{x}: median norm %{y:.3f}<extra></extra>", **shared),
    ]  # fmt: skip
    # Not logarithmic: the groups are shares of the types, and what matters happens among the rare ones.
    across = {"title": {"text": rank}, "rangemode": "tozero", "tickformat": ",d"}
    upward = {"title": {"text": "norm"}, "rangemode": "tozero"}
    return figure(traces, height=400, xaxis=across, yaxis=upward, legend=_legend())


def cosines(histograms: Sequence[CosineHistogram], means: Mapping[str, Mapping[str, float | None]]) -> Figure:
    """Cosines of pairs of rows, a lane for each pair of groups; each is as high as its lane."""
    go = graph_objects()
    traces, notes, shapes = [], [], []
    ranked = sorted(histograms, key=_order)
    for lane, histogram in enumerate(ranked):
        counts = np.asarray(histogram.counts, dtype=np.float64)
        if not counts.size or counts.max() <= 0:
            continue
        first, second = histogram.groups
        held = np.flatnonzero(counts)
        chosen = slice(max(0, held[0] - 1), held[-1] + 2)  # empty bins beyond say nothing
        floor, step = -float(lane), 2 / counts.size
        middles = (-1 + step * (np.arange(counts.size) + 0.5))[chosen]
        said = [f"{100 * part:.2g} %" for part in (counts / counts.sum())[chosen]]
        name = label(first if first == second else f"{first} · {second}")
        tone = group_colour(second)  # the rarer of the two
        shared: dict[str, Any] = {"x": _short(middles), "mode": "lines", "showlegend": False}
        traces += [
            go.Scatter(y=[floor] * middles.size, line={"width": 0}, hoverinfo="skip", **shared),
            go.Scatter(y=_short((floor + TOP * counts / counts.max())[chosen]), line={"color": tone, "width": 1.5},
                       fill="tonexty", fillcolor=faint(tone), text=said, name=name,
                       hovertemplate=f"{name}<br>cosine %{{x:.2f}}: %{{text}} of the pairs<extra></extra>", **shared),
        ]  # fmt: skip
        mean = means.get(first, {}).get(second)
        notes.append({"x": 0, "y": floor + 0.5, "text": name})
        if mean is not None:
            notes.append({"x": 1, "y": floor + 0.5, "text": number(mean, 2, signed=True), "xanchor": "right"})
            line = {"color": tone, "width": 2.5}
            shapes.append({"type": "line", "x0": mean, "x1": mean, "y0": floor, "y1": floor - 0.14, "line": line})
    annotation = {"xref": "paper", "xanchor": "left", "yanchor": "middle", "showarrow": False, "align": "left"}
    return figure(
        traces, height=min(HEIGHT, LANE * len(ranked) + 56),
        xaxis={"range": [-1, 1], "title": {"text": "cosine of two rows"}, "dtick": 0.5, "zeroline": True},
        yaxis={"range": [-len(ranked) + 0.8, 1.0], "visible": False, "fixedrange": True},
        annotations=[annotation | note for note in notes], shapes=shapes,
    )  # fmt: skip


def _parts(drawing: Drawing) -> list[tuple[str, list[int]]]:
    """Places of the rows of each group, the most frequent last but for the suspects, which lie above all."""
    parts: dict[str, list[int]] = {}
    for place, (name, suspect) in enumerate(zip(drawing.groups, drawing.suspect.tolist(), strict=True)):
        parts.setdefault("suspect" if suspect else name, []).append(place)
    order = ["medium", "frequent", "rare", *sorted(parts.keys() - {*GROUPS, "suspect"}), "special", "suspect"]
    return [(name, parts[name]) for name in order if name in parts]


def _order(histogram: CosineHistogram) -> tuple[bool, list[int]]:
    """Pairs within a group first, then across."""
    first, second = histogram.groups
    return first != second, [_place(first), _place(second)]


def _place(name: str) -> int:
    """Place of a group in a legend."""
    return GROUPS.index(name) if name in GROUPS else len(GROUPS) + (name == "suspect")


def _marker(name: str, size: int) -> dict[str, Any]:
    if name == "suspect":
        return {"color": SUSPECT, "size": size, "symbol": "x-thin", "line": {"color": SUSPECT, "width": 1.75}}
    return {"color": group_colour(name), "size": size + (2 if name == "special" else 0), "opacity": 0.7,
            "symbol": "diamond" if name == "special" else "circle"}  # fmt: skip


def _hover(drawing: Drawing, place: int) -> str:
    said = [drawing.groups[place], *(["suspect"] if drawing.suspect[place] else [])]
    text = f"<b>{drawn_token(drawing.tokens[place])}</b><br>id {drawing.ids[place]} · {label(', '.join(said))}"
    return f"{text}<br>rank {drawing.rank[place]:,} · norm {drawing.norm[place]:.3g}"


def _legend() -> dict[str, Any]:
    return {
        "itemsizing": "constant",
        "orientation": "h",
        "x": 0,
        "y": 1.02,
        "yanchor": "bottom",
        "traceorder": "normal",
    }


def _short(values: NDArray[np.floating[Any]]) -> list[float]:
    """Five digits are more than a screen shows, and a third of the file."""
    return [float(f"{value:.5g}") for value in values.tolist()]
