"""Bars of several series side by side."""

import math
from collections.abc import Mapping, Sequence

from decone.report.scan_words import significant
from decone.report.style import LIGHT, Figure, figure, graph_objects, label


def bars(
    places: Sequence[str],
    series: Mapping[str, Mapping[str, float | int]],
    colours: Mapping[str, str],
    title: str,
    percent: bool,
    height: int = 320,
) -> Figure:
    """Bars by place, a colour for each series.

    Args:
        places: names on the axis, in order.
        series: for each series its value by place; one that is missing or no number is left out.
        colours: of the series.
        title: of the axis below.
        percent: values are shares in [0, 1].
        height: in pixels.
    """
    traces = []
    for name, values in series.items():
        known = {place: values[place] for place in places if place in values and math.isfinite(values[place])}
        texts = [f"{100 * value:.1f} %" if percent else significant(value) for value in known.values()]
        traces.append(
            graph_objects().Bar(
                x=[label(place) for place in known], y=list(known.values()), name=label(name), text=texts,
                textposition="none", marker={"color": colours.get(name, LIGHT[5])},
                hovertemplate=f"{label(name)}, %{{x}}: %{{text}}<extra></extra>",
            )
        )  # fmt: skip
    across = {"type": "category", "title": {"text": title}, "categoryarray": [label(place) for place in places]}
    upward = {"tickformat": ".0%"} if percent else {}
    return figure(
        traces, height=height, xaxis=across, yaxis={"rangemode": "tozero", **upward}, barmode="group", bargap=0.25
    )
