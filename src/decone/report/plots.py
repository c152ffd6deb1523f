"""Plots of results: loss, alignment, perplexity against temperature, and every seed as a dot."""

import math
from collections.abc import Iterator
from typing import Any

from decone.metrics.intervals import mean_interval
from decone.report.format import NOT_RUN, number
from decone.report.style import QUIET, Figure, colour, dash, figure, graph_objects, group, label, mark
from decone.studies.table import ALIGNED, Measure, Results, Table, value

LANE = 70  # pixels of height for a method in a plot of seeds


def loss(table: Table, results: Results) -> Figure:
    """Validation loss against step, one line per run; a dot marks the checkpoint that counts.

    The loss is plain cross-entropy whatever a method optimises.
    """
    return _history(table, results, "loss", {"title": {"text": "validation loss, nats"}}, ".4f")


def alignment(table: Table, results: Results) -> Figure | None:
    """Alignment against step, one line per run; None where there is one language only."""
    lines = [line for _, _, _, result in _runs(table, results) for line in result["history"]]
    if not any("alignment" in line for line in lines):
        return None
    drawn = _history(
        table, results, "alignment", {"title": {"text": "rows that meet their translation"}, "tickformat": ".0%"}, ".0%"
    )
    drawn.update_yaxes(range=[-0.03, 1.03])
    drawn.add_hline(y=ALIGNED, line={"color": QUIET, "width": 1, "dash": "dash"})
    return drawn


def temperature(table: Table, results: Results, language: str) -> Figure | None:
    """Perplexity of a language against softmax temperature: mean over seeds, every seed faint, each seed's best marked.

    Returns:
        The figure, or None where no run has measured the language.
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
            best, place = value(measured, language, "best_perplexity"), scores["best_temperature"]
            if best is None or not math.isfinite(best):
                continue
            lowest = min(lowest, best)
            at_one = max(at_one, *(p for t, p in curve.items() if t == 1.0), best)
            marker = {"color": colour(index), "size": 8, "symbol": mark(index, "diamond")}
            traces.append(
                go.Scatter(
                    x=[place], y=[best], mode="markers", marker=marker, **_identity(index, name, seed),
                    hovertemplate="%{text}<br>best: T %{x:.2f}, PPL %{y:.2f}<extra></extra>",
                )
            )  # fmt: skip
        common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
        if common:
            mean = {t: mean_interval([curve[t] for curve in curves]).mean for t in common}
            traces.append(_line(index, name, None, mean, width=2.5, opacity=1.0, hover="T %{x:.2f}: PPL %{y:.2f}"))
    if not math.isfinite(lowest):
        return None
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


def seeds(table: Table, measure: Measure, language: str) -> Figure:
    """Every seed of every method as a dot, with mean and 95 % interval, and the published number as a dashed mark."""
    go = graph_objects()
    rows = {row.label: row for row in table.rows if row.language == language}
    traces: list[Any] = []
    notes: list[dict[str, Any]] = []
    shown: list[float] = []  # what the axis has to hold
    for index, name in enumerate(rows):
        cell, place = rows[name].cells[measure.key], -float(index)
        order = table.labels.index(name)
        tail = "" if cell.seeds else f"  ({NOT_RUN})"
        notes.append({"x": 0, "y": place + 0.36, "text": f"{label(name)}{tail}"})
        finite = {seed: number for seed, number in cell.seeds.items() if math.isfinite(number)}
        shown += finite.values()
        lanes = [place - 0.12 + 0.1 * (turn % 3 - 1) for turn in range(len(finite))]
        texts = [f"{label(name)}, seed {seed}: {number(finite[seed], measure.digits)}" for seed in finite]
        marker = {"color": colour(order), "size": 9, "opacity": 0.8, "symbol": mark(order)}
        traces.append(
            go.Scatter(
                x=list(finite.values()), y=lanes, mode="markers", marker=marker, text=texts, hoverinfo="text",
                legendgroup=group(order), showlegend=False,
            )
        )  # fmt: skip
        if len(finite) > 1 and math.isfinite(cell.mean.low):
            traces += _mean(order, place - 0.12, cell.mean.low, cell.mean.mean, cell.mean.high, measure)
        if cell.published is not None and math.isfinite(cell.published):
            shown.append(cell.published)
            text = f"{label(name)}, published: {number(cell.published, measure.digits)}"
            line = {"color": colour(order), "width": 2, "dash": "3px,3px"}
            traces.append(
                go.Scatter(
                    x=[cell.published] * 2, y=[place - 0.4, place + 0.16], mode="lines", line=line, text=[text] * 2,
                    hoverinfo="text", legendgroup=group(order), showlegend=False,
                )
            )  # fmt: skip
    annotation = {"xref": "paper", "xanchor": "left", "yanchor": "middle", "showarrow": False, "align": "left"}
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    margin = 0.3 * (high - low) or 0.05 * abs(high) or 1.0
    return figure(
        traces,
        height=LANE * len(rows) + 56,
        xaxis={"range": [low - margin, high + margin], "title": {"text": measure.heading}, "nticks": 6},
        yaxis={"range": [-len(rows) + 0.45, 0.6], "visible": False, "fixedrange": True},
        annotations=[annotation | note for note in notes],
    )


def _mean(order: int, place: float, low: float, mean: float, high: float, measure: Measure) -> list[Any]:
    """A mean as an open diamond on the line of its interval."""
    go = graph_objects()
    digits = measure.digits
    text = f"mean {number(mean, digits)}, 95 % interval {number(low, digits)} to {number(high, digits)}"
    below = place - 0.22  # under the dots, which it must not hide
    shared = {"legendgroup": group(order), "showlegend": False, "hoverinfo": "text"}
    line = {"color": colour(order), "width": 1.5}
    marker = {"symbol": "line-ns", "size": 9, "line": {"color": colour(order), "width": 2.5}}
    return [
        go.Scatter(x=[low, high], y=[below] * 2, mode="lines", line=line, text=[text] * 2, **shared),
        go.Scatter(x=[mean], y=[below], mode="markers", marker=marker, text=[text], **shared),
    ]


def _history(table: Table, results: Results, key: str, axis: dict[str, Any], form: str) -> Figure:
    go = graph_objects()
    traces = []
    for index, name, seed, result in _runs(table, results):
        history = {int(line["step"]): line[key] for line in result["history"] if line.get(key) is not None}
        points = {float(step): float(found) for step, found in history.items() if math.isfinite(found)}
        hover = f"step %{{x}}: %{{y:{form}}}"
        traces.append(_line(index, name, seed, points, width=1.75, opacity=0.7, hover=hover))
        chosen = float(result["measured"][table.select]["step"])
        if chosen in points:
            marker = {"color": colour(index), "size": 7, "symbol": mark(index)}
            traces.append(
                go.Scatter(
                    x=[chosen], y=[points[chosen]], mode="markers", marker=marker, **_identity(index, name, seed),
                    hovertemplate=f"%{{text}}<br>measured checkpoint, {hover}<extra></extra>",
                )
            )  # fmt: skip
    return figure(traces, showlegend=False, xaxis={"title": {"text": "step"}, "rangemode": "tozero"}, yaxis=axis)


def _line(
    index: int, name: str, seed: int | None, points: dict[float, float], width: float, opacity: float, hover: str
) -> Any:
    places = sorted(points)
    return graph_objects().Scatter(
        x=places,
        y=[points[place] for place in places],
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


def _runs(table: Table, results: Results) -> Iterator[tuple[int, str, int, dict[str, Any]]]:
    for index, name in enumerate(table.labels):
        for seed, result in _seeds(results, name):
            yield index, name, seed, result


def _seeds(results: Results, name: str) -> list[tuple[int, dict[str, Any]]]:
    return sorted(results.get(name, {}).items())
