"""The picture of the results: time and memory against margin, vocabulary, tokens and live share; SVG, no library."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .rows import Row
from .ways import Way

WIDTH, HEIGHT = 300, 230  # of one panel
LEFT, RIGHT, TOP, LOW = 58, 14, 34, 44  # its edges
INK, GRID = "#57606a", "#d0d7de"
TEXT = f'font-family="system-ui, sans-serif" font-size="11" fill="{INK}"'


@dataclass(frozen=True)
class Style:
    """How one line looks."""

    label: str
    colour: str
    dash: str = ""


OURS = Style("decone, thresholded", "#0969da")
STYLES = {
    Way("dense", "ce"): Style("torch, plain", "#6e7781"),
    Way("lce-tuned", "ce"): Style("torch, linear_cross_entropy, tuned", "#8250df"),
    Way("liger", "ce"): Style("Liger", "#bf3989"),
    Way("cce", "ce"): Style("cut-cross-entropy", "#9a6700"),
    Way("quack", "ce"): Style("quack", "#1b7c83"),
    Way("chunked", "ce"): Style("decone, plain", "#54aeff", "5 3"),
    Way("triton", "ce"): Style("decone on GPU, plain", "#4ac26b", "5 3"),
}
TRITON = Style("decone on GPU, thresholded", "#1a7f37")
FLOOR = Style("least work: one product and the live share of two", "#bc4c00", "2 3")

Points = list[tuple[float, float]]


@dataclass
class Panel:
    """One diagram."""

    title: str
    across: str
    lines: dict[Style, Points]
    logarithmic: bool = False
    ends: tuple[float, float] | None = None  # of the axis; where the points lie if left out


def picture(rows: Iterable[Row]) -> str:
    """All diagrams for which there are results: time in the upper row, memory in the lower.

    Rows of the last run's machine and threads are drawn, of full size, with gradients.

    Raises:
        ValueError: there is nothing to draw.
    """
    every = [row for row in rows if "reason" not in row and row["pass"] == "step" and not row["workload"]["quick"]]
    if not every:
        raise ValueError("no results of full size with gradients to draw; measure first, without --quick")
    where = [(row["machine"], row["threads"], row["workload"]["device"]) for row in every]
    last = [row for row, place in zip(every, where, strict=True) if place == where[-1]]
    columns = [pair for pair in _columns(last) if len(_places(pair[0])) > 1]
    if not columns:
        raise ValueError("results at one point alone; measure several margins, or a sweep")
    styles = list(dict.fromkeys(style for pair in columns for panel in pair for style in panel.lines))
    legend = 20 + 16 * math.ceil(len(styles) / 2)
    width, height = max(2, len(columns)) * WIDTH, legend + 2 * HEIGHT
    parts = [f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *_legend(styles, width)]
    for index, pair in enumerate(columns):
        for line, panel in enumerate(pair):
            if not panel.lines:  # measured without memory
                continue
            inside = "\n".join(_drawn(panel))
            parts.append(f'<g transform="translate({index * WIDTH} {legend + line * HEIGHT})">\n{inside}\n</g>')
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">\n{body}\n</svg>\n'


def _columns(rows: list[Row]) -> list[tuple[Panel, Panel]]:
    """Pairs of panels, time over memory: by margin, vocabulary, tokens, live share."""
    planted = [row for row in rows if row["workload"]["states"] == "planted"]
    home = _home(planted or rows)
    at_home = [row for row in rows if row["workload"] == home]
    kept = [row for row in at_home if row["loss"] == "ce" or row["loss"].startswith("threshold")]
    one = [row for row in planted if row["loss"] in ("ce", "threshold:1")]
    found = [_pair(kept, "margin", _margins, _milliseconds, f"{home['name']}, a step in ms")]
    for key, label in (("V", "vocabulary"), ("N", "targets")):
        like = {name: value for name, value in home.items() if name not in ("B", "N", "V")}
        like |= {name: home[name] for name in ("N", "V") if name != key}
        swept = [row for row in one if like.items() <= row["workload"].items()]
        found.append(_pair(swept, label, partial(_size, key), _milliseconds, "a step in ms, margin 1", True))
    shape = {name: home[name] for name in ("N", "H", "V", "dtype")}
    those = [row for row in rows if shape.items() <= row["workload"].items() and _thresholded(row)]
    pair = _pair(those, "live share of columns", _live, _of_dense, "a step, share of plain torch")
    # What the floor takes, in units of plain torch, from two ratios of one and the same step.
    for panel in pair:
        panel.ends = 0.0, 1.0
    floor = sorted((_live(row), row["of_dense"][0] / row["of_floor"][0]) for row in those if row["of_floor"])
    if floor:
        pair[0].lines[FLOOR] = floor
    return [*found, pair]


def _home(rows: list[Row]) -> dict[str, Any]:
    """The workload that the most rows are of: sweeps are measured around it."""
    names = [json.dumps(row["workload"]) for row in rows]
    found: dict[str, Any] = json.loads(max(names, key=names.count))
    return found


def _pair(
    rows: list[Row],
    across: str,
    place: Callable[[Row], Any],
    time: Callable[[Row], Any],
    title: str,
    logarithmic: bool = False,
) -> tuple[Panel, Panel]:
    panels = Panel(title, across, {}, logarithmic), Panel("peak memory in MiB", across, {}, logarithmic)
    for panel, value in zip(panels, (time, lambda row: row.get("peak_mebibytes")), strict=True):
        for row in rows:
            way, at, height = Way(row["way"], row["loss"]), place(row), value(row)
            style = {"chunked": OURS, "triton": TRITON}.get(way.name) if way.margin is not None else STYLES.get(way)
            if style is None or height is None:
                continue
            for x in at if isinstance(at, list) else [at]:
                panel.lines.setdefault(style, []).append((x, height))
        for points in panel.lines.values():
            points.sort()
    return panels


def _margins(row: Row) -> list[float]:
    """Where on the axis of margins: plain cross-entropy costs the same at all of them."""
    margin = Way(row["way"], row["loss"]).margin
    return [float(name) for name in row["states"]["margins"]] if margin is None else [margin]


def _milliseconds(row: Row) -> float:
    return float(row["milliseconds"][0])


def _size(key: str, row: Row) -> int:
    return int(row["workload"][key])


def _thresholded(row: Row) -> bool:
    return row["way"] in ("chunked", "triton") and row["loss"].startswith("threshold") and row["of_dense"] is not None


def _live(row: Row) -> float:
    return float(row["states"]["margins"][row["loss"].partition(":")[2]]["live_sorted"])


def _of_dense(row: Row) -> float:
    return float(row["of_dense"][0])


def _places(panel: Panel) -> list[float]:
    """Where on the axis there are results."""
    return sorted({x for points in panel.lines.values() for x, _ in points})


def _drawn(panel: Panel) -> list[str]:
    xs = _places(panel)
    begin, end = panel.ends or (xs[0], xs[-1])
    heights = [y for points in panel.lines.values() for _, y in points]
    low, high = _range(heights, panel.logarithmic)

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * _part(x, begin, end, panel.logarithmic)

    def up(y: float) -> float:
        return HEIGHT - LOW - (HEIGHT - LOW - TOP) * _part(y, low, high, panel.logarithmic)

    parts = [f'<text x="{LEFT}" y="{TOP - 14}" {TEXT} font-weight="600">{panel.title}</text>']
    for y in _marks(low, high, panel.logarithmic):
        parts.append(f'<path d="M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end" {TEXT}>{y:,g}</text>')
    marks = _marks(begin, end, False) if panel.ends else xs
    for x in marks:
        name = f"{x / 1024:g}k" if panel.logarithmic else f"{x:g}"
        parts.append(f'<text x="{across(x):.1f}" y="{HEIGHT - LOW + 16}" text-anchor="middle" {TEXT}>{name}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - LOW + 32}" text-anchor="middle" {TEXT}>{panel.across}</text>')
    for style, points in panel.lines.items():
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        parts.append(f'<polyline points="{line}" fill="none" stroke="{style.colour}" stroke-width="2"{dash}/>')
        if style is not FLOOR:
            dots = (f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" fill="{style.colour}"/>' for x, y in points)
            parts += dots
    return parts


def _part(value: float, low: float, high: float, logarithmic: bool) -> float:
    """How far a value lies between two others, 0 to 1."""
    if low == high:
        return 0.5
    return math.log(value / low) / math.log(high / low) if logarithmic else (value - low) / (high - low)


def _range(values: list[float], logarithmic: bool) -> tuple[float, float]:
    """Round borders around all values; a scale that is not logarithmic begins at zero."""
    if logarithmic:
        low = max(mark for mark in _decades(min(values) / 10, min(values)))
        return low, min(mark for mark in _decades(max(values), 10 * max(values)))
    step = _step(max(values))
    return 0.0, step * math.ceil(max(values) / step)


def _step(top: float) -> float:
    """A round distance of grid lines, about four of them."""
    rough = top / 4
    size = 10.0 ** math.floor(math.log10(rough))
    return next(factor * size for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * size >= rough * 0.999)


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, 50 and so on between two values, both included."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]


def _marks(low: float, high: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        marks = _decades(low, high)
        return marks if len(marks) < 7 else [mark for mark in marks if math.log10(mark) % 1 < 1e-9]
    step = _step(high - low)
    return [step * count for count in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _legend(styles: list[Style], width: int) -> list[str]:
    parts = []
    for index, style in enumerate(styles):
        x, y = 14 + (index % 2) * width // 2, 18 + 16 * (index // 2)
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        parts.append(f'<path d="M{x} {y - 4}h22" stroke="{style.colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{x + 28}" y="{y}" {TEXT}>{style.label}</text>')
    return parts
