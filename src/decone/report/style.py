"""What every plot shares: plotly itself, colours that colour-blind readers can tell apart, the frame.

The light colours have a contrast of at least 3 on white, the dark ones on the page's dark ground; a page exchanges one
for the other. Figures carry the light ones, on a transparent ground with grey text, which can be read on both.
"""

import html
from typing import Any

from decone.files.foreign import visible, visible_token

Figure = Any  # plotly.graph_objects.Figure; plotly is an extra without type stubs

GROUND = {"light": "#ffffff", "dark": "#14171c"}
LIGHT = ("#7a828c", "#0955ce", "#db7a1e", "#004d1f", "#481267", "#685906")  # the first method is grey: the ground
DARK = ("#9aa4af", "#5b9bf8", "#f0661a", "#a6f2cf", "#c07ab5", "#fcc43d")
DASHES = ("solid", "dash", "dot", "dashdot")  # tell methods apart once the colours come round again
HIGH, LOW = "#0f7f86", "#c2257f"  # the two languages
HIGH_DARK, LOW_DARK = "#3cc4c4", "#ff7ab8"
QUIET = "rgba(128,136,146,0.35)"
GRID = "rgba(128,136,146,0.2)"
TEXT = "#808892"

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


def exchange() -> dict[str, str]:
    """For each light colour the one that takes its place on a dark ground."""
    return dict(zip((*LIGHT, HIGH, LOW), (*DARK, HIGH_DARK, LOW_DARK), strict=True))


def colour(index: int) -> str:
    """The colour of a method by its place in the table."""
    return LIGHT[index % len(LIGHT)]


def dash(index: int) -> str:
    """The line of a method by its place in the table."""
    return DASHES[index // len(LIGHT) % len(DASHES)]


def mark(index: int, shape: str = "circle") -> str:
    """The marker of a method: open once the colours come round again."""
    return shape if index // len(LIGHT) % 2 == 0 else f"{shape}-open"


def group(index: int) -> str:
    """The name that ties all traces of a method together, for a legend that switches them."""
    return f"method-{index}"


def label(text: str) -> str:
    """A foreign string for a plot, whose texts plotly reads as a little HTML.

    Example:
        >>> label("<b>a</b> & b")
        '&lt;b&gt;a&lt;/b&gt; &amp; b'
    """
    return html.escape(visible(text), quote=False)


def token_label(text: str) -> str:
    """A token for a plot."""
    return html.escape(visible_token(text), quote=False)


def figure(traces: list[Any], height: int = 360, **layout: Any) -> Figure:
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
