"""Plots of trained tables: who lies near whom, both languages in one plane, how fast the spectrum falls."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch

from decone.metrics.similarity import cosine_matrix, neighbours
from decone.metrics.spectrum import principal_plane, singular_decay
from decone.report.style import (
    HIGH,
    LOW,
    QUIET,
    Figure,
    colour,
    dash,
    figure,
    graph_objects,
    group,
    label,
    token_label,
)
from decone.studies.exhibits import Exhibit

MANY = 400  # tokens of one language from which on only the frequent ones are drawn
DRAWN = 200  # how many of them
RAREST = 5  # tokens of each language that are marked in the plane
# Near 0 the ground shows through, so that one scale serves a light and a dark page.
COSINE = [[0.0, "#3f86e0"], [0.4999, "rgba(63,134,224,0)"], [0.5001, "rgba(224,112,26,0)"], [1.0, "#e0701a"]]


def drawn(exhibit: Exhibit) -> list[int]:
    """Ids of one language that are drawn, sorted by their strings: all, or the most frequent of a large vocabulary."""
    ids = sorted(range(len(exhibit.tokens)), key=lambda index: (-exhibit.counts[index], index))
    if len(ids) > MANY:
        ids = ids[:DRAWN]
    return sorted(ids, key=lambda index: (exhibit.tokens[index], index))


def cosine(exhibit: Exhibit) -> Figure:
    """Cosine of every pair of rows, sorted by language and then by token ("Stop Jostling", Figure 5)."""
    go = graph_objects()
    ids, offsets = drawn(exhibit), exhibit.languages.offsets()
    rows = [offset + index for offset in offsets.values() for index in ids]
    matrix = cosine_matrix(exhibit.weight[rows]).round(decimals=3)
    names = _unique([(name, exhibit.tokens[index]) for name in offsets for index in ids])
    runs = _runs([exhibit.tokens[index] for index in ids]) or [(0, len(ids), "")]
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


def plane(exhibit: Exhibit) -> Figure:
    """Rows on their first two principal components, translations joined, the rarest as crosses (Figure 6)."""
    go = graph_objects()
    points = principal_plane(exhibit.weight).tolist()
    rarest = sorted(range(len(exhibit.tokens)), key=lambda index: (exhibit.counts[index], index))[:RAREST]
    ids, offsets = sorted({*drawn(exhibit), *rarest}), exhibit.languages.offsets()
    traces = []
    if len(offsets) > 1:
        ends = [[points[offset + index] for offset in offsets.values()] + [[None, None]] for index in ids]
        flat = [end for pair in ends for end in pair]
        line = {"color": QUIET, "width": 1}
        x, y = [end[0] for end in flat], [end[1] for end in flat]
        traces.append(go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False))
    for (name, offset), shade in zip(offsets.items(), (HIGH, LOW), strict=False):
        for chosen, symbol, size in (([i for i in ids if i not in rarest], "circle", 6), (rarest, "x", 8)):
            who = f"{label(name)}{', rarest' if symbol == 'x' else ''}"
            texts = [f"{who}: {token_label(exhibit.tokens[i])}<br>{exhibit.counts[i]:,} in training" for i in chosen]
            marker = {"color": shade, "size": size, "symbol": symbol, "opacity": 0.85}
            traces.append(
                go.Scatter(
                    x=[points[offset + i][0] for i in chosen], y=[points[offset + i][1] for i in chosen],
                    mode="markers", marker=marker, text=texts, hoverinfo="text",
                    name=label(name), showlegend=symbol == "circle",
                )
            )  # fmt: skip
    across = {"title": {"text": "first component"}, "zeroline": False, "constrain": "domain"}
    upward = {"title": {"text": "second component"}, "zeroline": False, "scaleanchor": "x"}
    return figure(traces, height=440, xaxis=across, yaxis=upward)


def decay(exhibits: Sequence[Exhibit], labels: Sequence[str]) -> Figure:
    """Singular values of every table relative to its largest, on a logarithmic axis.

    Args:
        exhibits: the tables.
        labels: all methods in order; a method's place gives its colour.
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


def asked(exhibit: Exhibit) -> list[int]:
    """Two tokens whose neighbours tell something: A and a as in the paper's Table 2, else the most frequent words."""
    if "A" in exhibit.tokens and "a" in exhibit.tokens:
        return [exhibit.tokens.index("A"), exhibit.tokens.index("a")]
    order = sorted(range(len(exhibit.tokens)), key=lambda index: (-exhibit.counts[index], index))
    words = [index for index in order if exhibit.tokens[index].strip().isalpha()]
    return (words or order)[:2]


def nearest(exhibit: Exhibit, k: int = 3) -> dict[tuple[str, int], list[tuple[str, int, float]]]:
    """Nearest rows of the asked tokens in every language ("Stop Jostling", Table 2).

    Args:
        exhibit: tables of one run.
        k: how many neighbours.

    Returns:
        For each (language, id) its (language, id, cosine), nearest first; ids count within a language.
    """
    size, offsets = exhibit.languages.size, exhibit.languages.offsets()
    keys = [(name, index) for name in offsets for index in asked(exhibit)]
    rows = torch.tensor([offsets[name] + index for name, index in keys])
    names = list(offsets)
    found = neighbours(exhibit.weight, rows, k)
    return {
        key: [(names[row // size], row % size, near) for row, near in close]
        for key, close in zip(keys, found, strict=True)
    }


def _unique(pairs: list[tuple[str, str]]) -> list[str]:
    """Names of rows; a category axis would merge equal ones, and several tokens may read the same."""
    names = [f"{label(language)} {token_label(text)}" for language, text in pairs]
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[place] = f"{name} ({seen[name]})"
    return names


def _runs(tokens: list[str]) -> list[tuple[int, int, str]]:
    """Start, length and name of each run of a kind in sorted single characters; none where tokens are longer."""
    if any(len(text) != 1 for text in tokens):
        return []

    def kind(place: int) -> str:
        return "A–Z" if tokens[place].isupper() else "a–z" if tokens[place].islower() else "other"

    runs = [(name, list(places)) for name, places in groupby(range(len(tokens)), kind)]
    return [(places[0], len(places), name) for name, places in runs if len(places) >= len(tokens) / 12]
