"""Plots of comparisons and of trained tables: what is drawn, and that foreign text is not obeyed."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from decone.document import figures as look
from decone.studies import figures
from decone.studies.table import MEASURES, build

KEYS = [measure.key for measure in MEASURES]
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
    pairs = {light: dark for light, dark in look.dark_colours().items() if light.startswith("#")}
    assert len(set(pairs)) == len(pairs) == len(set(pairs.values()))
    assert min(contrast(light, look.GROUND["light"]) for light in pairs) >= 3
    assert min(contrast(dark, look.GROUND["dark"]) for dark in pairs.values()) >= 3


def test_methods_beyond_the_colours_differ_by_their_line() -> None:
    looks = [(look.colour(index), look.dash(index)) for index in range(24)]
    assert len(set(looks)) == 24


def test_loss_has_a_line_and_a_dot_per_run(three: dict[str, Any]) -> None:
    figure = figures.loss_curves(build("T", three, "best"), three)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert len(lines) == 6
    assert [list(line.y) for line in lines] == [[3.5, 2.5]] * 6
    assert [line.line.color for line in lines] == [look.LIGHT[0]] * 3 + [look.LIGHT[1]] * 3
    assert [list(trace.x) for trace in figure.data if trace.mode == "markers"] == [[20]] * 6


def test_alignment_needs_two_languages(three: dict[str, Any], result: Any) -> None:
    assert figures.has_alignment(build("T", three, "best"), three)
    figure = figures.alignment_curves(build("T", three, "best"), three)
    assert sorted(trace.y[0] for trace in figure.data if trace.mode == "lines") == [0.1, 0.1, 0.1, 0.2, 0.8, 0.9]
    single = {"mle": {1: result(1, 9.0, 0.4, None)}}
    assert not figures.has_alignment(build("T", single, "best"), single)


def test_temperature_draws_seeds_mean_and_best(three: dict[str, Any]) -> None:
    assert figures.has_temperatures(build("T", three, "best"), three, "LR")
    figure = figures.temperature_curves(build("T", three, "best"), three, "LR")
    means = [trace for trace in figure.data if "mean" in trace.text]
    assert [list(mean.y) for mean in means] == [pytest.approx([9.2, 13.8, 82.8]), pytest.approx([7, 10.5, 63])]
    assert [list(mean.x) for mean in means] == [[0.5, 1.0, 2.0]] * 2, "an overflowed perplexity is left out"
    assert sum(trace.mode == "markers" for trace in figure.data) == 6
    bottom, top = (10**end for end in figure.layout.yaxis.range)
    assert bottom < 6.9
    assert top > 14.0
    assert not figures.has_temperatures(build("T", three, "best"), three, "Klingon")


def test_every_seed_is_a_dot_beside_mean_and_published(three: dict[str, Any]) -> None:
    published = {"mle": {"LR": dict(zip(KEYS, [1.0, 5.0, 1.0, 0.5, 0.5, 0.5, 0.5], strict=True))}}
    table = build("T", three, "best", published)
    figure = figures.seed_dots(table, BEST, "LR")
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
    figure = figures.seed_dots(build("T", three, "best"), ACCURACY, "HR")
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
    for figure in (
        figures.loss_curves(table, results),
        figures.temperature_curves(table, results, "LR"),
        figures.seed_dots(table, BEST, "LR"),
    ):
        content = figure.to_json()
        assert "<b>" not in content
        assert "&lt;b&gt;" in content.replace("\\u003c", "<").replace("\\u0026", "&")
        templates = [trace.hovertemplate for trace in figure.data if trace.hovertemplate]
        assert not any("&lt;b" in template for template in templates), "a label must not be read as a template"


def test_one_infinite_seed_is_left_out(three: dict[str, Any], result: Any) -> None:
    results = {"mle": three["mle"], "diverged": {1: result(1, float("inf"), 0.0, 0.0)}}
    figure = figures.seed_dots(build("T", results, "best"), BEST, "LR")
    assert all(len(trace.x) != 1 or trace.x[0] < 10 for trace in figure.data)
    assert figures.temperature_curves(build("T", results, "best"), results, "LR").data


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(one.double() @ other.double() / one.double().norm() / other.double().norm())


def test_cosines_are_sorted_by_language_then_token(exhibit: Any) -> None:
    shown = exhibit("mle", ["b", "A", "a"])
    figure = figures.cosine_map(shown)
    (trace,) = figure.data
    assert list(trace.x) == ["HR A", "HR a", "HR b", "LR A", "LR a", "LR b"] == list(trace.y)
    order = [1, 2, 0, 4, 5, 3]
    naive = [[cosine(shown.weight[i], shown.weight[j]) for j in order] for i in order]
    assert np.array(trace.z, dtype=float) == pytest.approx(np.array(naive), abs=1e-3)


def test_equal_strings_stay_apart(exhibit: Any) -> None:
    (trace,) = figures.cosine_map(exhibit("mle", ["�", "�", "<i>"])).data
    assert list(trace.x)[:3] == ["HR &lt;i&gt;", "HR �", "HR � (2)"]


def test_a_large_vocabulary_is_drawn_in_part(exhibit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (figures.LARGE, figures.PLOTTED) == (400, 200)
    monkeypatch.setattr(figures, "LARGE", 40)
    monkeypatch.setattr(figures, "PLOTTED", 20)
    shown = exhibit("mle", [f"token{index:04d}" for index in range(figures.LARGE + 1)])
    (trace,) = figures.cosine_map(shown).data
    assert len(trace.x) == 2 * figures.PLOTTED
    assert figures.plotted_ids(shown) == list(range(figures.PLOTTED)), "the counts fall with the id"
    crosses = [trace for trace in figures.main_plane(shown).data if trace.marker.symbol == "x"]
    assert [len(trace.x) for trace in crosses] == [figures.RAREST] * 2
    assert "token0040" in crosses[0].text[0]


def test_the_plane_joins_translations(exhibit: Any) -> None:
    tokens = [f"t{index}" for index in range(8)]
    lines, *points = figures.main_plane(exhibit("mle", tokens)).data
    assert lines.mode == "lines"
    assert len(lines.x) == 3 * len(tokens)
    assert list(lines.x[2::3]) == [None] * len(tokens)
    assert sum(len(trace.x) for trace in points) == 2 * len(tokens)
    ends = {(x, y) for trace in points for x, y in zip(trace.x, trace.y, strict=True)}
    assert {(x, y) for x, y in zip(lines.x, lines.y, strict=True) if x is not None} == ends


def test_one_language_has_no_lines(exhibit: Any) -> None:
    figure = figures.main_plane(exhibit("mle", "abcdefgh", simulated=False))
    assert all(trace.mode == "markers" for trace in figure.data)


def test_decay_starts_at_one_in_the_colour_of_the_method(exhibit: Any) -> None:
    figure = figures.singular_values([exhibit("b", "xyz"), exhibit("unknown", "xyz")], ["a", "b"])
    assert [trace.y[0] for trace in figure.data] == [1.0, 1.0]
    assert [trace.legendgroup for trace in figure.data] == ["method-1", "method-2"]


def test_nearest_counts_ids_within_a_language(exhibit: Any) -> None:
    shown = exhibit("mle", ["x", "a", "A"])
    table = torch.eye(3, 4).repeat(2, 1) + 0.01 * torch.randn(6, 4)
    object.__setattr__(shown, "weight", table)
    found = figures.nearest_rows(shown, k=1)
    assert {key: close[0][:2] for key, close in found.items()} == {
        ("HR", 2): ("LR", 2),
        ("HR", 1): ("LR", 1),
        ("LR", 2): ("HR", 2),
        ("LR", 1): ("HR", 1),
    }


def test_without_a_and_a_the_most_frequent_words_are_asked(exhibit: Any) -> None:
    assert figures.probe_ids(exhibit("mle", [".", " the", "1", "of"])) == [1, 3]
    assert figures.probe_ids(exhibit("mle", [".", "1", "2"])) == [0, 1]
