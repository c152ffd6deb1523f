"""Plots of a scan: plane, spectrum, norms and cosines of a table; gradients; word similarity."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decone.diagnosis.result import BlameRow, CosineHistogram, RowNorms, TableFacts, WordSimilarity
from decone.document.blocks import Swatch
from decone.document.figures import (
    HIGH,
    LIGHT,
    LOW,
    QUIET,
    TEXT,
    Plot,
    faint,
    figure,
    graph_objects,
    label,
    log_axis,
    plot_token,
)
from decone.document.numbers import number
from decone.files.foreign import shorten, token_label
from decone.metrics.table_survey import TableSample

GROUPS = ("frequent", "medium", "rare", "special")
GROUP_COLOURS = {"frequent": LIGHT[1], "medium": LIGHT[0], "rare": LIGHT[2], "special": LIGHT[3], "all": LIGHT[5]}
SUSPECT = LOW
SERIES_COLOURS = {"model": LIGHT[1], "human": LIGHT[0]}
DECODING_COLOURS = {"greedy": LIGHT[1], "beam": LIGHT[4], "top-k": LIGHT[2], "top-p": LIGHT[3], "human": LIGHT[0]}
TABLES = {"embedding": "embedding", "head": "output table"}
TABLE_COLOURS = {"embedding": HIGH, "head": LIGHT[4]}
HEIGHT = 520  # pixels of plane and cosines, which stand side by side
LANE = 110  # most pixels of height for a pair of groups
PEAK = 0.86  # share of its lane that a histogram may fill
LEGEND = {"itemsizing": "constant", "orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"}
LANE_NAME = {"xref": "paper", "xanchor": "left", "yanchor": "middle", "showarrow": False, "align": "left"}
# Pulls are circles, pushes triangles that point down.
FORCES: dict[str, tuple[str, str, Callable[[BlameRow], float]]] = {
    "pull of own targets": (LIGHT[1], "circle", lambda row: row.pull),
    "pull through the input": (LIGHT[3], "circle", lambda row: row.input),
    "push by frequent": (LIGHT[0], "triangle-down", lambda row: row.push_frequent),
    "push by medium": (LIGHT[5], "triangle-down", lambda row: row.push_medium),
    "push by rare": (LIGHT[2], "triangle-down", lambda row: row.push_rare),
}


def group_colour(name: str) -> str:
    """The colour of a frequency group."""
    return GROUP_COLOURS.get(name, LIGHT[5])


def group_swatch(name: str) -> Swatch:
    """A group's name with the dot of its colour."""
    return Swatch(shorten(name, 40), group_colour(name))


def plane(sample: TableSample) -> Plot:
    """Rows on their two main components, coloured by frequency group, suspects as crosses above them."""
    traces = [
        graph_objects().Scatter(
            x=_short(sample.plane[rows, 0]), y=_short(sample.plane[rows, 1]), mode="markers",
            marker=_marker(name, 7 if name == "suspect" else 4),
            text=[_hover(sample, row) for row in rows], hoverinfo="text",
            name=label(name), legendrank=_group_rank(name),
        )
        for name, rows in _rows_by_group(sample)
    ]  # fmt: skip
    across = {"title": {"text": "first component"}, "zeroline": False, "constrain": "domain"}
    upward = {"title": {"text": "second component"}, "zeroline": False, "scaleanchor": "x"}
    return figure(traces, height=HEIGHT, xaxis=across, yaxis=upward, legend=LEGEND)


def spectrum(tables: Mapping[str, TableFacts]) -> Plot:
    """Singular values of every table on logarithmic axes, the effective rank as an upright line."""
    traces, shapes, notes = [], [], []
    for turn, (name, facts) in enumerate(tables.items()):
        values = facts.spectrum
        pairs = [(r, v) for r, v in zip(values.ranks, values.singular_values, strict=False) if r > 0 and v > 0]
        traces.append(
            graph_objects().Scatter(
                x=[rank for rank, _ in pairs], y=[value for _, value in pairs], mode="lines",
                line={"color": TABLE_COLOURS[name], "width": 2.25}, name=TABLES[name],
                hovertemplate="singular value %{x}: %{y:.3f} of the largest<extra></extra>",
            )
        )  # fmt: skip
        if values.effective_rank > 0:
            line = {"color": TABLE_COLOURS[name], "width": 1.25, "dash": "dash"}
            shapes.append(
                {"type": "line", "x0": values.effective_rank, "x1": values.effective_rank, "y0": 0, "y1": 1,
                 "yref": "paper", "line": line}
            )  # fmt: skip
            table = f"{TABLES[name]}: " if len(tables) > 1 else ""
            notes.append(
                {"x": math.log10(values.effective_rank), "y": 0.02 + 0.09 * turn, "yref": "paper",
                 "text": f"{table}effective rank {values.effective_rank:.0f} ", "showarrow": False, "xanchor": "right",
                 "yanchor": "bottom", "font": {"color": TEXT}}
            )  # fmt: skip
    last = max([10, *(rank for trace in traces for rank in trace.x)])
    least = min([0.1, *(value for trace in traces for value in trace.y)])
    across, upward = log_axis("singular value", 1, last * 1.05), log_axis("share of the largest", least / 1.3, 1.15)
    return figure(
        traces, height=400, xaxis=across, yaxis=upward, shapes=shapes, annotations=notes,
        showlegend=len(tables) > 1, legend=LEGEND,
    )  # fmt: skip


def norms(facts: RowNorms, sample: TableSample | None, rank: str) -> Plot:
    """Length of a row against its rank: a dot for each drawn row, median and middle half above them.

    Args:
        facts: lengths by bins of rank.
        sample: rows to draw as dots.
        rank: title of the axis of ranks.
    """
    go = graph_objects()
    traces = []
    if sample is not None:
        for name, rows in _rows_by_group(sample):
            suspect = name == "suspect"
            marker = _marker(name, 7 if suspect else 3) | {"opacity": 0.9 if suspect else 0.45}
            traces.append(
                go.Scatter(
                    x=sample.rank[rows].tolist(), y=_short(sample.norm[rows]), mode="markers", marker=marker,
                    text=[_hover(sample, row) for row in rows], hoverinfo="text",
                    name=label(name), legendrank=_group_rank(name),
                )
            )  # fmt: skip
    bins = sorted(facts.by_rank)
    band = {"color": QUIET, "width": 0}
    shared: dict[str, Any] = {"x": [middle for middle, *_ in bins], "mode": "lines", "showlegend": False}
    ink = group_colour("all")
    traces += [
        go.Scatter(y=[low for _, low, _, _ in bins], line=band, hoverinfo="skip", **shared),
        go.Scatter(y=[high for _, _, _, high in bins], line=band, hoverinfo="skip", fill="tonexty",
                   fillcolor=faint(ink), **shared),
        go.Scatter(y=[median for _, _, median, _ in bins], line={"color": ink, "width": 2.5},
                   hovertemplate="rank %{x}: median norm %{y:.3f}<extra></extra>", **shared),
    ]  # fmt: skip
    # Not logarithmic: the groups are shares of the types, and what matters happens among the rare ones.
    across = {"title": {"text": rank}, "rangemode": "tozero", "tickformat": ",d"}
    upward = {"title": {"text": "norm"}, "rangemode": "tozero"}
    return figure(traces, height=400, xaxis=across, yaxis=upward, legend=LEGEND)


def cosines(histograms: Sequence[CosineHistogram], means: Mapping[str, Mapping[str, float | None]]) -> Plot:
    """Cosines of pairs of rows, a lane for each pair of groups; each is as high as its lane."""
    go = graph_objects()
    traces, notes, shapes = [], [], []
    ranked = sorted(histograms, key=_pair_rank)
    for lane, histogram in enumerate(ranked):
        counts = np.asarray(histogram.counts, dtype=np.float64)
        if not counts.size or counts.max() <= 0:
            continue
        first, second = histogram.groups
        filled = np.flatnonzero(counts)
        bins = slice(max(0, filled[0] - 1), filled[-1] + 2)  # empty bins beyond say nothing
        floor, step = -float(lane), 2 / counts.size
        middles = (-1 + step * (np.arange(counts.size) + 0.5))[bins]
        shares = [f"{100 * share:.2g} %" for share in (counts / counts.sum())[bins]]
        name = label(first if first == second else f"{first} · {second}")
        tone = group_colour(second)  # the rarer of the two
        shared: dict[str, Any] = {"x": _short(middles), "mode": "lines", "showlegend": False}
        traces += [
            go.Scatter(y=[floor] * middles.size, line={"width": 0}, hoverinfo="skip", **shared),
            go.Scatter(y=_short((floor + PEAK * counts / counts.max())[bins]), line={"color": tone, "width": 1.5},
                       fill="tonexty", fillcolor=faint(tone), text=shares, name=name,
                       hovertemplate=f"{name}<br>cosine %{{x:.2f}}: %{{text}} of the pairs<extra></extra>", **shared),
        ]  # fmt: skip
        mean = means.get(first, {}).get(second)
        notes.append({"x": 0, "y": floor + 0.5, "text": name})
        if mean is not None:
            notes.append({"x": 1, "y": floor + 0.5, "text": number(mean, 2, signed=True), "xanchor": "right"})
            line = {"color": tone, "width": 2.5}
            shapes.append({"type": "line", "x0": mean, "x1": mean, "y0": floor, "y1": floor - 0.14, "line": line})
    return figure(
        traces, height=min(HEIGHT, LANE * len(ranked) + 56),
        xaxis={"range": [-1, 1], "title": {"text": "cosine of two rows"}, "dtick": 0.5, "zeroline": True},
        yaxis={"range": [-len(ranked) + 0.8, 1.0], "visible": False, "fixedrange": True},
        annotations=[LANE_NAME | note for note in notes], shapes=shapes,
    )  # fmt: skip


def pull_and_push(rows: Sequence[BlameRow]) -> Plot:
    """Pull of each row against its push, on logarithmic axes."""
    low_push, high_push = _reach([row.push for row in rows])
    low_pull, high_pull = _reach([row.pull + row.input for row in rows])
    traces = []
    for name in [*GROUPS, *sorted({row.group for row in rows} - set(GROUPS))]:
        members = [row for row in rows if row.group == name]
        if not members:
            continue
        texts = [
            f"<b>{plot_token(row.token)}</b><br>id {row.id} · {label(name)} · {row.count:,} in the text"
            f"<br>pull {row.pull:.3g}, input {row.input:.3g}, push {row.push:.3g}"
            for row in members
        ]
        traces.append(
            graph_objects().Scatter(
                x=[max(row.push, low_push) for row in members],
                y=[max(row.pull + row.input, low_pull) for row in members],
                mode="markers", marker={"color": group_colour(name), "size": 7, "opacity": 0.8}, text=texts,
                hoverinfo="text", name=label(name),
            )
        )  # fmt: skip
    ends = [min(low_push, low_pull), max(high_push, high_pull)]
    line: dict[str, Any] = {"type": "line", "x0": ends[0], "x1": ends[1], "y0": ends[0], "y1": ends[1]}
    line["line"] = {"color": TEXT, "dash": "dash", "width": 1}
    notes = [
        {"x": 0.02, "y": 0.98, "text": "pulled", "xanchor": "left", "yanchor": "top"},
        {"x": 0.98, "y": 0.02, "text": "pushed", "xanchor": "right", "yanchor": "bottom"},
    ]
    shared = {"xref": "paper", "yref": "paper", "showarrow": False, "font": {"color": TEXT, "size": 13}}
    return figure(
        traces, height=400, shapes=[line], annotations=[shared | note for note in notes],
        xaxis=log_axis("push", low_push, high_push), yaxis=log_axis("pull", low_pull, high_pull),
    )  # fmt: skip


def forces(rows: Sequence[BlameRow]) -> Plot:
    """Mean strength of each pull and push on the rows of each group, on a logarithmic axis."""
    groups = [name for name in GROUPS if any(row.group == name for row in rows)]
    traces = []
    for force, (colour, symbol, strength) in FORCES.items():
        means = {name: _mean([strength(row) for row in rows if row.group == name]) for name in groups}
        positive = {name: mean for name, mean in means.items() if mean > 0}
        if positive:
            traces.append(
                graph_objects().Scatter(
                    x=list(positive.values()), y=[label(name) for name in positive], mode="markers", name=force,
                    marker={"color": colour, "symbol": symbol, "size": 12, "opacity": 0.85},
                    hovertemplate=f"{force}, on %{{y}} rows: %{{x:.3g}}<extra></extra>",
                )
            )  # fmt: skip
    across = log_axis("mean gradient norm", *_reach([mean for trace in traces for mean in trace.x]))
    names = [label(name) for name in reversed(groups)]
    upward = {"type": "category", "categoryorder": "array", "categoryarray": names, "showgrid": True}
    return figure(traces, height=400, xaxis=across, yaxis=upward)


def word_similarity(files: Sequence[WordSimilarity], names: Sequence[str]) -> Plot:
    """A dot with its interval for each file of word pairs, without and with the leading space."""
    go = graph_objects()
    traces = []
    notes = [{"x": 0, "y": -lane + 0.34, "text": label(token_label(name, 40))} for lane, name in enumerate(names)]
    series = (
        ("without leading space", LIGHT[1], 0.0, [(file.plain, file.plain_interval) for file in files]),
        ("with leading space", HIGH, -0.22, [(file.spaced, file.spaced_interval) for file in files]),
    )
    for name, colour, shift, scores in series:
        points = [(lane, score, ends) for lane, (score, ends) in enumerate(scores) if score is not None]
        line = [(x, -lane + shift) for lane, _, ends in points if ends for x in (*ends, None)]
        traces += [
            go.Scatter(x=[x for x, _ in line], y=[y for _, y in line], mode="lines", hoverinfo="skip",
                       line={"color": colour, "width": 2}, showlegend=False, legendgroup=name),
            go.Scatter(x=[score for _, score, _ in points], y=[-lane + shift for lane, _, _ in points], mode="markers",
                       marker={"color": colour, "size": 9}, name=name, legendgroup=name,
                       text=[score_text(score, ends) for _, score, ends in points],
                       hovertemplate=f"{name}: %{{text}}<extra></extra>"),
        ]  # fmt: skip
    values = [x for trace in traces for x in trace.x if x is not None]
    low, high = min([0.0, *values]), max(values, default=100.0)
    margin = 0.04 * (high - low)
    return figure(
        traces, height=64 * len(files) + 84, annotations=[LANE_NAME | note for note in notes],
        xaxis={"title": {"text": "Spearman × 100"}, "range": [low - margin * (low < 0), high + margin]},
        yaxis={"range": [-len(files) + 0.55, 0.6], "visible": False, "fixedrange": True},
    )  # fmt: skip


def score_text(score: float | None, ends: tuple[float, float] | None) -> str:
    """A correlation × 100 with its interval, "41.2 [38.0, 44.0]"; a dash for None."""
    interval = "" if score is None or ends is None else f" [{number(ends[0], 1)}, {number(ends[1], 1)}]"
    return "—" if score is None else number(score, 1) + interval


def _rows_by_group(sample: TableSample) -> list[tuple[str, list[int]]]:
    """Indices of the rows of each group, the most frequent last but for the suspects, which lie above all."""
    groups: dict[str, list[int]] = {}
    for row, (name, suspect) in enumerate(zip(sample.groups, sample.suspect.tolist(), strict=True)):
        groups.setdefault("suspect" if suspect else name, []).append(row)
    order = ["medium", "frequent", "rare", *sorted(groups.keys() - {*GROUPS, "suspect"}), "special", "suspect"]
    return [(name, groups[name]) for name in order if name in groups]


def _pair_rank(histogram: CosineHistogram) -> tuple[bool, list[int]]:
    """Pairs within a group first, then across."""
    first, second = histogram.groups
    return first != second, [_group_rank(first), _group_rank(second)]


def _group_rank(name: str) -> int:
    """Index of a group in a legend."""
    return GROUPS.index(name) if name in GROUPS else len(GROUPS) + (name == "suspect")


def _marker(name: str, size: int) -> dict[str, Any]:
    if name == "suspect":
        return {"color": SUSPECT, "size": size, "symbol": "x-thin", "line": {"color": SUSPECT, "width": 1.75}}
    return {"color": group_colour(name), "size": size + (2 if name == "special" else 0), "opacity": 0.7,
            "symbol": "diamond" if name == "special" else "circle"}  # fmt: skip


def _hover(sample: TableSample, row: int) -> str:
    group = ", ".join([sample.groups[row], *(["suspect"] if sample.suspect[row] else [])])
    text = f"<b>{plot_token(sample.tokens[row])}</b><br>id {sample.ids[row]} · {label(group)}"
    return f"{text}<br>rank {sample.rank[row]:,} · norm {sample.norm[row]:.3g}"


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """Ends of a logarithmic axis; what is 0 is drawn at the lower one."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    return (min(positive) / 1.6, max(positive) * 1.6) if positive else (0.1, 1.0)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else 0.0


def _short(values: NDArray[np.floating[Any]]) -> list[float]:
    """Five digits are more than a screen shows, and a third of the file."""
    return [float(f"{value:.5g}") for value in values.tolist()]
