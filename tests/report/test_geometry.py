from typing import Any

import numpy as np
import pytest
import torch

from decone.report import geometry


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(one.double() @ other.double() / one.double().norm() / other.double().norm())


def test_cosines_are_sorted_by_language_then_token(exhibit: Any) -> None:
    shown = exhibit("mle", ["b", "A", "a"])
    figure = geometry.cosine(shown)
    (trace,) = figure.data
    assert list(trace.x) == ["HR A", "HR a", "HR b", "LR A", "LR a", "LR b"] == list(trace.y)
    order = [1, 2, 0, 4, 5, 3]
    naive = [[cosine(shown.weight[i], shown.weight[j]) for j in order] for i in order]
    assert np.array(trace.z, dtype=float) == pytest.approx(np.array(naive), abs=1e-3)


def test_equal_strings_stay_apart(exhibit: Any) -> None:
    (trace,) = geometry.cosine(exhibit("mle", ["�", "�", "<i>"])).data
    assert list(trace.x)[:3] == ["HR &lt;i&gt;", "HR �", "HR � (2)"]


def test_a_large_vocabulary_is_drawn_in_part(exhibit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (geometry.MANY, geometry.DRAWN) == (400, 200)
    monkeypatch.setattr(geometry, "MANY", 40)
    monkeypatch.setattr(geometry, "DRAWN", 20)
    shown = exhibit("mle", [f"token{index:04d}" for index in range(geometry.MANY + 1)])
    (trace,) = geometry.cosine(shown).data
    assert len(trace.x) == 2 * geometry.DRAWN
    assert geometry.drawn(shown) == list(range(geometry.DRAWN)), "the counts fall with the id"
    crosses = [trace for trace in geometry.plane(shown).data if trace.marker.symbol == "x"]
    assert [len(trace.x) for trace in crosses] == [geometry.RAREST] * 2
    assert "token0040" in crosses[0].text[0]


def test_the_plane_joins_translations(exhibit: Any) -> None:
    tokens = [f"t{index}" for index in range(8)]
    lines, *points = geometry.plane(exhibit("mle", tokens)).data
    assert lines.mode == "lines"
    assert len(lines.x) == 3 * len(tokens)
    assert list(lines.x[2::3]) == [None] * len(tokens)
    assert sum(len(trace.x) for trace in points) == 2 * len(tokens)
    ends = {(x, y) for trace in points for x, y in zip(trace.x, trace.y, strict=True)}
    assert {(x, y) for x, y in zip(lines.x, lines.y, strict=True) if x is not None} == ends


def test_one_language_has_no_lines(exhibit: Any) -> None:
    figure = geometry.plane(exhibit("mle", "abcdefgh", simulated=False))
    assert all(trace.mode == "markers" for trace in figure.data)


def test_decay_starts_at_one_in_the_colour_of_the_method(exhibit: Any) -> None:
    figure = geometry.decay([exhibit("b", "xyz"), exhibit("unknown", "xyz")], ["a", "b"])
    assert [trace.y[0] for trace in figure.data] == [1.0, 1.0]
    assert [trace.legendgroup for trace in figure.data] == ["method-1", "method-2"]


def test_nearest_counts_ids_within_a_language(exhibit: Any) -> None:
    shown = exhibit("mle", ["x", "a", "A"])
    table = torch.eye(3, 4).repeat(2, 1) + 0.01 * torch.randn(6, 4)
    object.__setattr__(shown, "weight", table)
    found = geometry.nearest(shown, k=1)
    assert {key: close[0][:2] for key, close in found.items()} == {
        ("HR", 2): ("LR", 2),
        ("HR", 1): ("LR", 1),
        ("LR", 2): ("HR", 2),
        ("LR", 1): ("HR", 1),
    }


def test_without_a_and_a_the_most_frequent_words_are_asked(exhibit: Any) -> None:
    assert geometry.asked(exhibit("mle", [".", " the", "1", "of"])) == [1, 3]
    assert geometry.asked(exhibit("mle", [".", "1", "2"])) == [0, 1]
