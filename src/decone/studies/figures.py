"""Plots of a comparison: loss, alignment, temperatures, every seed as a dot; and of the trained tables."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch

from decone.document.figures import (
    HIGH,
    LOW,
    QUIET,
    Plot,
    colour,
    dash,
    figure,
    graph_objects,
    group,
    label,
    mark,
    plot_token,
)
from decone.document.numbers import number
from decone.metrics.neighbours import cosine_matrix, neighbours
from decone.metrics.statistics import mean_interval
from decone.metrics.table_geometry import principal_plane, singular_decay
from decone.studies.exhibits import ModelExhibit
from decone.studies.findings import NOT_RUN
from decone.studies.table import ALIGNED, Measure, Results, StudyTable, value

LANE = 70  # pixels of height for a method in a plot of seeds
LARGE = 400  # tokens of one language from which on only the frequent ones are drawn
PLOTTED = 200  # the number of those
RAREST = 5  # tokens of each language that are marked in the plane
# Near 0 the ground shows through, so that one scale serves a light and a dark page.
COSINE = [[0.0, "#3f86e0"], [0.4999, "rgba(63,134,224,0)"], [0.5001, "rgba(224,112,26,0)"], [1.0, "#e0701a"]]


def loss_curves(table: StudyTable, results: Results) -> Plot:
    """Validation loss against step, one line per run; a dot marks the checkpoint that counts.

    The loss is plain cross-entropy whatever a method optimises.
    """
    return _history(table, results, "loss", {"title": {"text": "validation loss, nats"}}, ".4f")


def has_alignment(table: StudyTable, results: Results) -> bool:
    """True where runs have two languages, whose alignment was measured."""
    return any("alignment" in line for _, _, _, result in _runs(table, results) for line in result["history"])


def alignment_curves(table: StudyTable, results: Results) -> Plot:
    """Alignment against step, one line per run."""
    plot = _history(
        table, results, "alignment", {"title": {"text": "rows that meet their translation"}, "tickformat": ".0%"}, ".0%"
    )
    plot.update_yaxes(range=[-0.03, 1.03])
    plot.add_hline(y=ALIGNED, line={"color": QUIET, "width": 1, "dash": "dash"})
    return plot


def has_temperatures(table: StudyTable, results: Results, language: str) -> bool:
    """True where a run has a finite lowest perplexity in a language."""
    runs = (result["measured"][table.select] for _, _, _, result in _runs(table, results))
    lowest = (value(measured, language, "best_perplexity") for measured in runs)
    return any(best is not None and math.isfinite(best) for best in lowest)


def temperature_curves(table: StudyTable, results: Results, language: str) -> Plot:
    """Perplexity of a language against softmax temperature: mean over seeds, every seed faint, each seed's best marked.

    At least one run has measured the language, see `has_temperatures`.
    """
    go = graph_objects()
    traces, lowest, at_one = [], math.inf, 0.0
    for index, name in enumerate(table.labels):
        curves = []
        for seed, result in _seeds(results, name):
            measured = result["measured"][table.select]
            if language not in measured["languages"]:
                continue
            scores = measured["languages"][language]
            curve = {float(t): float(p) for t, p in scores["curve"] if p is not None and math.isfinite(p)}
            curves.append(curve)
            traces.append(_line(index, name, seed, curve, width=1.0, opacity=0.35, hover="T %{x:.2f}: PPL %{y:.2f}"))
            best, position = value(measured, language, "best_perplexity"), scores["best_temperature"]
            if best is None or not math.isfinite(best):
                continue
            lowest = min(lowest, best)
            at_one = max(at_one, *(p for t, p in curve.items() if t == 1.0), best)
            marker = {"color": colour(index), "size": 8, "symbol": mark(index, "diamond")}
            traces.append(
                go.Scatter(
                    x=[position], y=[best], mode="markers", marker=marker, **_identity(index, name, seed),
                    hovertemplate="%{text}<br>best: T %{x:.2f}, PPL %{y:.2f}<extra></extra>",
                )
            )  # fmt: skip
        common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
        if common:
            mean = {t: mean_interval([curve[t] for curve in curves]).mean for t in common}
            traces.append(_line(index, name, None, mean, width=2.5, opacity=1.0, hover="T %{x:.2f}: PPL %{y:.2f}"))
    # The ends of the curve leave every bound; what matters lies between the best and somewhat above T = 1.
    bottom, top = lowest / 1.15, max(at_one * 1.6, lowest * 3)
    inside = [t for trace in traces for t, p in zip(trace.x, trace.y, strict=True) if p <= top]
    ticks = [tick * 10.0**power for power in range(-1, 7) for tick in (1, 1.5, 2, 3, 4, 5, 6, 8)]
    axis = {
        "type": "log",
        "range": [math.log10(bottom), math.log10(top)],
        "title": {"text": "perplexity"},
        "tickvals": [tick for tick in ticks if bottom <= tick <= top],
        "tickformat": "~g",
    }
    across = {"title": {"text": "temperature T"}, "range": [min(inside) - 0.05, max(inside) + 0.05]}
    return figure(traces, showlegend=False, xaxis=across, yaxis=axis)


def seed_dots(table: StudyTable, measure: Measure, language: str) -> Plot:
    """Every seed of every method as a dot, with mean and 95 % interval, and the published number as a dashed mark."""
    go = graph_objects()
    rows = {row.label: row for row in table.rows if row.language == language}
    traces: list[Any] = []
    notes: list[dict[str, Any]] = []
    extent: list[float] = []  # values that the axis has to hold
    for index, name in enumerate(rows):
        cell, height = rows[name].cells[measure.key], -float(index)
        order = table.labels.index(name)
        tail = "" if cell.seeds else f"  ({NOT_RUN})"
        notes.append({"x": 0, "y": height + 0.36, "text": f"{label(name)}{tail}"})
        finite = {seed: number for seed, number in cell.seeds.items() if math.isfinite(number)}
        extent += finite.values()
        lanes = [height - 0.12 + 0.1 * (turn % 3 - 1) for turn in range(len(finite))]
        texts = [f"{label(name)}, seed {seed}: {number(finite[seed], measure.digits)}" for seed in finite]
        marker = {"color": colour(order), "size": 9, "opacity": 0.8, "symbol": mark(order)}
        traces.append(
            go.Scatter(
                x=list(finite.values()), y=lanes, mode="markers", marker=marker, text=texts, hoverinfo="text",
                legendgroup=group(order), showlegend=False,
            )
        )  # fmt: skip
        if len(finite) > 1 and math.isfinite(cell.mean.low):
            traces += _mean(order, height - 0.12, cell.mean.low, cell.mean.mean, cell.mean.high, measure)
        if cell.published is not None and math.isfinite(cell.published):
            extent.append(cell.published)
            text = f"{label(name)}, published: {number(cell.published, measure.digits)}"
            line = {"color": colour(order), "width": 2, "dash": "3px,3px"}
            traces.append(
                go.Scatter(
                    x=[cell.published] * 2, y=[height - 0.4, height + 0.16], mode="lines", line=line, text=[text] * 2,
                    hoverinfo="text", legendgroup=group(order), showlegend=False,
                )
            )  # fmt: skip
    annotation = {"xref": "paper", "xanchor": "left", "yanchor": "middle", "showarrow": False, "align": "left"}
    low, high = (min(extent), max(extent)) if extent else (0.0, 1.0)
    margin = 0.3 * (high - low) or 0.05 * abs(high) or 1.0
    return figure(
        traces,
        height=LANE * len(rows) + 56,
        xaxis={"range": [low - margin, high + margin], "title": {"text": measure.heading}, "nticks": 6},
        yaxis={"range": [-len(rows) + 0.45, 0.6], "visible": False, "fixedrange": True},
        annotations=[annotation | note for note in notes],
    )


def _mean(order: int, height: float, low: float, mean: float, high: float, measure: Measure) -> list[Any]:
    """A mean as an open diamond on the line of its interval."""
    go = graph_objects()
    digits = measure.digits
    text = f"mean {number(mean, digits)}, 95 % interval {number(low, digits)} to {number(high, digits)}"
    below = height - 0.22  # under the dots, which it must not hide
    shared = {"legendgroup": group(order), "showlegend": False, "hoverinfo": "text"}
    line = {"color": colour(order), "width": 1.5}
    marker = {"symbol": "line-ns", "size": 9, "line": {"color": colour(order), "width": 2.5}}
    return [
        go.Scatter(x=[low, high], y=[below] * 2, mode="lines", line=line, text=[text] * 2, **shared),
        go.Scatter(x=[mean], y=[below], mode="markers", marker=marker, text=[text], **shared),
    ]


def _history(table: StudyTable, results: Results, key: str, axis: dict[str, Any], form: str) -> Plot:
    go = graph_objects()
    traces = []
    for index, name, seed, result in _runs(table, results):
        history = {int(line["step"]): line[key] for line in result["history"] if line.get(key) is not None}
        points = {float(step): float(point) for step, point in history.items() if math.isfinite(point)}
        hover = f"step %{{x}}: %{{y:{form}}}"
        traces.append(_line(index, name, seed, points, width=1.75, opacity=0.7, hover=hover))
        selected = float(result["measured"][table.select]["step"])
        if selected in points:
            marker = {"color": colour(index), "size": 7, "symbol": mark(index)}
            traces.append(
                go.Scatter(
                    x=[selected], y=[points[selected]], mode="markers", marker=marker, **_identity(index, name, seed),
                    hovertemplate=f"%{{text}}<br>measured checkpoint, {hover}<extra></extra>",
                )
            )  # fmt: skip
    return figure(traces, showlegend=False, xaxis={"title": {"text": "step"}, "rangemode": "tozero"}, yaxis=axis)


def _line(
    index: int, name: str, seed: int | None, points: dict[float, float], width: float, opacity: float, hover: str
) -> Any:
    positions = sorted(points)
    return graph_objects().Scatter(
        x=positions,
        y=[points[position] for position in positions],
        mode="lines",
        line={"color": colour(index), "width": width, "dash": dash(index)},
        opacity=opacity,
        hovertemplate=f"%{{text}}<br>{hover}<extra></extra>",
        **_identity(index, name, seed),
    )


def _identity(index: int, name: str, seed: int | None) -> dict[str, Any]:
    who = label(name)
    text = f"{who}, {'mean over seeds' if seed is None else f'seed {seed}'}"
    return {"name": who, "text": text, "legendgroup": group(index), "showlegend": False}


def _runs(table: StudyTable, results: Results) -> Iterator[tuple[int, str, int, dict[str, Any]]]:
    for index, name in enumerate(table.labels):
        for seed, result in _seeds(results, name):
            yield index, name, seed, result


def _seeds(results: Results, name: str) -> list[tuple[int, dict[str, Any]]]:
    return sorted(results.get(name, {}).items())


def plotted_ids(exhibit: ModelExhibit) -> list[int]:
    """Ids of one language that are drawn, sorted by their strings: all, or the most frequent of a large vocabulary."""
    ids = sorted(range(len(exhibit.tokens)), key=lambda index: (-exhibit.counts[index], index))
    if len(ids) > LARGE:
        ids = ids[:PLOTTED]
    return sorted(ids, key=lambda index: (exhibit.tokens[index], index))


def cosine_map(exhibit: ModelExhibit) -> Plot:
    """Cosine of every pair of rows, sorted by language and then by token ("Stop Jostling", Figure 5)."""
    go = graph_objects()
    ids, offsets = plotted_ids(exhibit), exhibit.languages.offsets()
    rows = [offset + index for offset in offsets.values() for index in ids]
    matrix = cosine_matrix(exhibit.weight[rows]).round(decimals=3)
    names = _unique([(name, exhibit.tokens[index]) for name in offsets for index in ids])
    runs = _character_runs([exhibit.tokens[index] for index in ids]) or [(0, len(ids), "")]
    blocks = [(turn * len(ids), label(name) if len(offsets) > 1 else "") for turn, name in enumerate(offsets)]
    upright = {
        "tickvals": [first + start + (length - 1) / 2 for first, _ in blocks for start, length, _ in runs],
        "ticktext": [f"{name} {text}".strip() for _, name in blocks for _, _, text in runs],
        "autorange": "reversed",
        "scaleanchor": "x",
    }
    # Only the languages below: on a phone there is no room for more.
    across = {"tickvals": [first + (len(ids) - 1) / 2 for first, _ in blocks], "ticktext": [name for _, name in blocks]}
    axis = {"type": "category", "showgrid": False, "constrain": "domain", "automargin": False, "tickangle": 0}
    trace = go.Heatmap(
        z=matrix.tolist(), x=names, y=names, zmin=-1, zmax=1, colorscale=COSINE,
        colorbar={"thickness": 8, "outlinewidth": 0, "tickvals": [-1, 0, 1], "len": 0.6, "x": 1.0, "xpad": 4},
        hovertemplate="%{y} · %{x}<br>cosine %{z:.2f}<extra></extra>",
    )  # fmt: skip
    edges = [turn * len(ids) - 0.5 for turn in range(1, len(offsets))]
    end = len(rows) - 0.5
    line = {"color": QUIET, "width": 1}
    shapes = [
        {"type": "line", "line": line, "x0": a, "x1": b, "y0": c, "y1": d}
        for edge in edges
        for a, b, c, d in ((edge, edge, -0.5, end), (-0.5, end, edge, edge))
    ]
    margin = {"l": 66, "r": 44, "t": 8, "b": 24}
    return figure([trace], height=440, xaxis=axis | across, yaxis=axis | upright, shapes=shapes, margin=margin)


def main_plane(exhibit: ModelExhibit) -> Plot:
    """Rows on their first two principal components, translations joined, the rarest as crosses (Figure 6)."""
    go = graph_objects()
    points = principal_plane(exhibit.weight).tolist()
    rarest = sorted(range(len(exhibit.tokens)), key=lambda index: (exhibit.counts[index], index))[:RAREST]
    ids, offsets = sorted({*plotted_ids(exhibit), *rarest}), exhibit.languages.offsets()
    traces = []
    if len(offsets) > 1:
        ends = [[points[offset + index] for offset in offsets.values()] + [[None, None]] for index in ids]
        flat = [end for pair in ends for end in pair]
        line = {"color": QUIET, "width": 1}
        x, y = [end[0] for end in flat], [end[1] for end in flat]
        traces.append(go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False))
    for (name, offset), shade in zip(offsets.items(), (HIGH, LOW), strict=False):
        for members, symbol, size in (([i for i in ids if i not in rarest], "circle", 6), (rarest, "x", 8)):
            who = f"{label(name)}{', rarest' if symbol == 'x' else ''}"
            texts = [f"{who}: {plot_token(exhibit.tokens[i])}<br>{exhibit.counts[i]:,} in training" for i in members]
            marker = {"color": shade, "size": size, "symbol": symbol, "opacity": 0.85}
            traces.append(
                go.Scatter(
                    x=[points[offset + i][0] for i in members], y=[points[offset + i][1] for i in members],
                    mode="markers", marker=marker, text=texts, hoverinfo="text",
                    name=label(name), showlegend=symbol == "circle",
                )
            )  # fmt: skip
    across = {"title": {"text": "first component"}, "zeroline": False, "constrain": "domain"}
    upward = {"title": {"text": "second component"}, "zeroline": False, "scaleanchor": "x"}
    return figure(traces, height=440, xaxis=across, yaxis=upward)


def singular_values(exhibits: Sequence[ModelExhibit], labels: Sequence[str]) -> Plot:
    """Singular values of every table relative to its largest, on a logarithmic axis.

    Args:
        exhibits: the tables.
        labels: all methods in order; a method's index gives its colour.
    """
    traces = []
    for exhibit in exhibits:
        index = labels.index(exhibit.label) if exhibit.label in labels else len(labels)
        values = singular_decay(exhibit.weight)
        positive = values[values > 0].tolist()
        name = f"{label(exhibit.label)}, seed {exhibit.seed}"
        traces.append(
            graph_objects().Scatter(
                x=list(range(1, len(positive) + 1)), y=positive, mode="lines", name=name, text=name,
                line={"color": colour(index), "dash": dash(index), "width": 2}, legendgroup=group(index),
                hovertemplate="%{text}<br>value %{x}: %{y:.3f} of the largest<extra></extra>",
            )
        )  # fmt: skip
    down: dict[str, Any] = {"type": "log", "title": {"text": "share of the largest"}, "dtick": 1}
    return figure(traces, showlegend=False, xaxis={"title": {"text": "singular value"}}, yaxis=down)


def probe_ids(exhibit: ModelExhibit) -> list[int]:
    """Ids of two tokens whose neighbours say something: A and a as in the paper, else the most frequent words."""
    if "A" in exhibit.tokens and "a" in exhibit.tokens:
        return [exhibit.tokens.index("A"), exhibit.tokens.index("a")]
    order = sorted(range(len(exhibit.tokens)), key=lambda index: (-exhibit.counts[index], index))
    words = [index for index in order if exhibit.tokens[index].strip().isalpha()]
    return (words or order)[:2]


def nearest_rows(exhibit: ModelExhibit, k: int = 3) -> dict[tuple[str, int], list[tuple[str, int, float]]]:
    """Nearest rows of the probe tokens in every language ("Stop Jostling", StudyTable 2).

    Args:
        exhibit: tables of one run.
        k: number of neighbours.

    Returns:
        For each (language, id) its (language, id, cosine), nearest first; ids count within a language.
    """
    size, offsets = exhibit.languages.size, exhibit.languages.offsets()
    keys = [(name, index) for name in offsets for index in probe_ids(exhibit)]
    rows = torch.tensor([offsets[name] + index for name, index in keys])
    names = list(offsets)
    closest = neighbours(exhibit.weight, rows, k)
    return {
        key: [(names[row // size], row % size, near) for row, near in close]
        for key, close in zip(keys, closest, strict=True)
    }


def _unique(pairs: list[tuple[str, str]]) -> list[str]:
    """Names of rows; a category axis would merge equal ones, and several tokens may read the same."""
    names = [f"{label(language)} {plot_token(text)}" for language, text in pairs]
    counts: Counter[str] = Counter()
    for index, name in enumerate(names):
        counts[name] += 1
        if counts[name] > 1:
            names[index] = f"{name} ({counts[name]})"
    return names


def _character_runs(tokens: list[str]) -> list[tuple[int, int, str]]:
    """Start, length and name of each run of a kind in sorted single characters; none where tokens are longer."""
    if any(len(text) != 1 for text in tokens):
        return []

    def kind(index: int) -> str:
        return "A–Z" if tokens[index].isupper() else "a–z" if tokens[index].islower() else "other"

    runs = [(name, list(indices)) for name, indices in groupby(range(len(tokens)), kind)]
    return [(indices[0], len(indices), name) for name, indices in runs if len(indices) >= len(tokens) / 12]
