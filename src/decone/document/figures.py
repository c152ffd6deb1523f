"""Plots in one look: plotly itself, colours that colour-blind readers can tell apart, frame and axes.

The light colours have a contrast of at least 3 on white, the dark ones on the page's dark ground; a page exchanges one
for the other. Figures carry the light ones, on a transparent ground with grey text, which can be read on both.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from decone.document.numbers import significant
from decone.files.foreign import token_label, visible

Plot = Any  # plotly.graph_objects.Figure; plotly is an extra without type stubs

GROUND = {"light": "#ffffff", "dark": "#14171c"}
LIGHT = ("#7a828c", "#0955ce", "#db7a1e", "#004d1f", "#481267", "#685906")  # the first method is grey: the ground
DARK = ("#9aa4af", "#5b9bf8", "#f0661a", "#a6f2cf", "#c07ab5", "#fcc43d")
DASHES = ("solid", "dash", "dot", "dashdot")  # tell methods apart once the colours come round again
HIGH, LOW = "#0f7f86", "#c2257f"  # the two languages
HIGH_DARK, LOW_DARK = "#3cc4c4", "#ff7ab8"
QUIET = "rgba(128,136,146,0.35)"
GRID = "rgba(128,136,146,0.2)"
TEXT = "#808892"
FAINT = 0.22  # opacity of an area under a line

MISSING = 'the page needs plotly: pip install "decone[report]"'


def graph_objects() -> Any:
    """The module that makes figures; ValueError where plotly is not installed."""
    try:
        import plotly.graph_objects
    except ImportError:
        raise ValueError(MISSING) from None
    return plotly.graph_objects


def library() -> str:
    """The source of plotly.js, from the installed package; ValueError where plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ValueError(MISSING) from None
    return str(get_plotlyjs())


def dark_colours() -> dict[str, str]:
    """For each light colour, faint ones too, its counterpart on a dark ground."""
    light, dark = (*LIGHT, HIGH, LOW), (*DARK, HIGH_DARK, LOW_DARK)
    pairs = list(zip(light, dark, strict=True))
    return dict(pairs) | {faint(bright): faint(deep) for bright, deep in pairs}


def faint(colour: str) -> str:
    """A colour for an area.

    Example:
        >>> faint("#0955ce")
        'rgba(9,85,206,0.22)'
    """
    red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return f"rgba({red},{green},{blue},{FAINT})"


def colour(index: int) -> str:
    """The colour of a method by its index in a table."""
    return LIGHT[index % len(LIGHT)]


def dash(index: int) -> str:
    """The line of a method by its index in a table."""
    return DASHES[index // len(LIGHT) % len(DASHES)]


def mark(index: int, shape: str = "circle") -> str:
    """The marker of a method: open once the colours come round again."""
    return shape if index // len(LIGHT) % 2 == 0 else f"{shape}-open"


def group(index: int) -> str:
    """The name that ties all traces of a method together, for buttons that switch them."""
    return f"method-{index}"


def label(text: str) -> str:
    """A foreign string for a plot, whose texts plotly reads as a little HTML.

    Example:
        >>> label("<b>a</b> & b")
        '&lt;b&gt;a&lt;/b&gt; &amp; b'
    """
    return html.escape(visible(text), quote=False)


def plot_token(text: str, limit: int = 40) -> str:
    """A token for a plot, cut where it is long."""
    return html.escape(token_label(text, limit), quote=False)


def figure(traces: list[Any], height: int = 360, **layout: Any) -> Plot:
    """A figure in the shared frame.

    Args:
        traces: plotly traces.
        height: in pixels; the width is the reader's.
        layout: further keys of the layout.
    """
    go = graph_objects()
    axis = {
        "gridcolor": GRID,
        "linecolor": QUIET,
        "zerolinecolor": QUIET,
        "automargin": True,
        "ticks": "",
        "title": {"standoff": 8},
    }
    frame = {
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": TEXT},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 16, "b": 8},
        "xaxis": axis,
        "yaxis": axis,
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": QUIET, "activecolor": TEXT},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
    }
    return go.Figure(data=traces, layout={"template": {"layout": frame}, "height": height, **layout})


def log_axis(title: str, low: float | int, high: float | int) -> dict[str, Any]:
    """A logarithmic axis from `low` to `high`, with ticks at 1, 2 and 5 where there is room for them.

    Example:
        >>> log_axis("pull", 1, 100)["range"], log_axis("pull", 1, 1000)["dtick"]
        ([0.0, 2.0], 1)
    """
    ends = [math.log10(low), math.log10(high)]
    decades = ends[1] - ends[0]
    ticks: dict[str, Any] = {"dtick": "D2" if decades <= 2 else 1}
    ticks |= {"tickformat": "~g"} if decades <= 5 else {"exponentformat": "power"}
    return {"type": "log", "range": ends, "title": {"text": title}, **ticks}


def bars(
    categories: Sequence[str],
    series: Mapping[str, Mapping[str, float | int]],
    colours: Mapping[str, str],
    title: str,
    percent: bool,
    height: int = 320,
) -> Plot:
    """Bars of several series side by side, a colour for each series.

    Args:
        categories: names on the axis, in order.
        series: for each series its value by category; one that is missing or no number is left out.
        colours: of the series.
        title: of the axis below.
        percent: values are shares in [0, 1].
        height: in pixels.
    """
    traces = []
    for name, values in series.items():
        finite = {key: values[key] for key in categories if key in values and math.isfinite(values[key])}
        texts = [f"{100 * value:.1f} %" if percent else significant(value) for value in finite.values()]
        traces.append(
            graph_objects().Bar(
                x=[label(key) for key in finite], y=list(finite.values()), name=label(name), text=texts,
                textposition="none", marker={"color": colours.get(name, LIGHT[5])},
                hovertemplate=f"{label(name)}, %{{x}}: %{{text}}<extra></extra>",
            )
        )  # fmt: skip
    across = {"type": "category", "title": {"text": title}, "categoryarray": [label(key) for key in categories]}
    upward = {"tickformat": ".0%"} if percent else {}
    return figure(
        traces, height=height, xaxis=across, yaxis={"rangemode": "tozero", **upward}, barmode="group", bargap=0.25
    )
