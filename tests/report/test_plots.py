import itertools
from typing import Any

import pytest

from decone.report import plots, style
from decone.studies.table import MEASURES, build

ACCURACY = next(measure for measure in MEASURES if measure.key == "accuracy")
BEST = next(measure for measure in MEASURES if measure.key == "best_perplexity")


def luminance(shade: str) -> float:
    parts = [int(shade[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_from_their_ground() -> None:
    """WCAG 2.2, 1.4.11: graphics need a contrast of 3."""
    pairs = style.exchange()
    assert len(set(pairs)) == len(pairs) == len(set(pairs.values()))
    assert min(contrast(light, style.GROUND["light"]) for light in pairs) >= 3
    assert min(contrast(dark, style.GROUND["dark"]) for dark in pairs.values()) >= 3


def test_methods_beyond_the_colours_differ_by_their_line() -> None:
    looks = [(style.colour(index), style.dash(index)) for index in range(24)]
    assert len(set(looks)) == 24


def test_loss_has_a_line_and_a_dot_per_run(three: dict[str, Any]) -> None:
    figure = plots.loss(build("T", three, "best"), three)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert len(lines) == 6
    assert [list(line.y) for line in lines] == [[3.5, 2.5]] * 6
    assert [line.line.color for line in lines] == [style.LIGHT[0]] * 3 + [style.LIGHT[1]] * 3
    assert [list(trace.x) for trace in figure.data if trace.mode == "markers"] == [[20]] * 6


def test_alignment_needs_two_languages(three: dict[str, Any], result: Any) -> None:
    figure = plots.alignment(build("T", three, "best"), three)
    assert figure is not None
    assert sorted(trace.y[0] for trace in figure.data if trace.mode == "lines") == [0.1, 0.1, 0.1, 0.2, 0.8, 0.9]
    single = {"mle": {1: result(1, 9.0, 0.4, None)}}
    assert plots.alignment(build("T", single, "best"), single) is None


def test_temperature_draws_seeds_mean_and_best(three: dict[str, Any]) -> None:
    figure = plots.temperature(build("T", three, "best"), three, "LR")
    assert figure is not None
    means = [trace for trace in figure.data if "mean" in trace.text]
    assert [list(mean.y) for mean in means] == [pytest.approx([9.2, 13.8, 82.8]), pytest.approx([7, 10.5, 63])]
    assert [list(mean.x) for mean in means] == [[0.5, 1.0, 2.0]] * 2, "an overflowed perplexity is left out"
    assert sum(trace.mode == "markers" for trace in figure.data) == 6
    bottom, top = (10**end for end in figure.layout.yaxis.range)
    assert bottom < 6.9
    assert top > 14.0
    assert plots.temperature(build("T", three, "best"), three, "Klingon") is None


def test_every_seed_is_a_dot_beside_mean_and_published(three: dict[str, Any]) -> None:
    published = {"mle": {"LR": [1.0, 5.0, 1.0, 0.5, 0.5, 0.5, 0.5]}}
    table = build("T", three, "best", published)
    figure = plots.seeds(table, BEST, "LR")
    dots = [sorted(trace.x) for trace in figure.data if trace.mode == "markers" and len(trace.x) == 3]
    assert dots == [[9.1, 9.2, 9.3], [6.9, 7.0, 7.1]]
    means = [trace.x[0] for trace in figure.data if trace.mode == "markers" and len(trace.x) == 1]
    assert means == pytest.approx([9.2, 7.0])
    assert [list(trace.x) for trace in figure.data if trace.mode == "lines" and trace.line.dash] == [[5.0, 5.0]]
    low, high = figure.layout.xaxis.range
    assert low < 5.0
    assert high > 9.3
    assert [note.text for note in figure.layout.annotations] == ["mle", "threshold", "later  (not run)"]


def test_lanes_do_not_touch(three: dict[str, Any]) -> None:
    figure = plots.seeds(build("T", three, "best"), ACCURACY, "HR")
    lanes = [[*trace.y] for trace in figure.data if trace.mode == "markers" and len(trace.x) == 3]
    names = [note.y for note in figure.layout.annotations]
    assert all(
        min(upper) > name > max(lower)
        for (upper, lower), name in zip(itertools.pairwise(lanes), names[1:], strict=False)
    )


def test_foreign_text_is_no_markup_for_plotly(three: dict[str, Any]) -> None:
    label = "<b>%{x}</b>"
    results = {"mle": three["mle"], label: three["threshold"]}
    table = build("T", results, "best")
    for figure in (plots.loss(table, results), plots.temperature(table, results, "LR"), plots.seeds(table, BEST, "LR")):
        content = figure.to_json()
        assert "<b>" not in content
        assert "&lt;b&gt;" in content.replace("\\u003c", "<").replace("\\u0026", "&")
        templates = [trace.hovertemplate for trace in figure.data if trace.hovertemplate]
        assert not any("&lt;b" in template for template in templates), "a label must not be read as a template"


def test_one_infinite_seed_is_left_out(three: dict[str, Any], result: Any) -> None:
    results = {"mle": three["mle"], "diverged": {1: result(1, float("inf"), 0.0, 0.0)}}
    figure = plots.seeds(build("T", results, "best"), BEST, "LR")
    assert all(len(trace.x) != 1 or trace.x[0] < 10 for trace in figure.data)
    assert plots.temperature(build("T", results, "best"), results, "LR") is not None
