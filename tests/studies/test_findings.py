"""What a comparison says in words: every seed, and only what is clear."""

import math
from typing import Any

import pytest

from decone.metrics.statistics import Interval
from decone.studies.findings import compare_methods, verdict
from decone.studies.table import MEASURES, build

PERPLEXITY, TEMPERATURE = MEASURES[0], MEASURES[2]


def test_every_seed_is_told_against_the_first_method(three: dict[str, Any]) -> None:
    story, later = compare_methods(build("T", three, "best"))
    assert story.language == "LR"
    assert list(story.seeds) == [1, 2, 3]
    told = {
        seed: [(change.name, change.before, change.after, change.word) for change in changes]
        for seed, changes in story.seeds.items()
    }
    assert told[2] == [
        ("best perplexity", "9.20", "7.10", "better"),
        ("accuracy", "0.4000", "0.3600", "worse"),
        ("alignment", "10\xa0%", "20\xa0%", "better"),
    ]
    assert later.seeds == {}
    assert later.sentences == ["Not run yet."]


def test_only_what_is_clear_is_claimed(three: dict[str, Any]) -> None:
    (story, _) = compare_methods(build("T", three, "best"))
    assert ("LR best perplexity", "better") in story.verdicts
    assert ("LR accuracy", "not clear with 3 seeds") in story.verdicts
    assert "accuracy +0.0233 (95\xa0% interval −0.1529 to +0.1996), not clear with 3 seeds" in story.sentences[0]


def test_aligned_runs_are_counted_and_two_groups_named(three: dict[str, Any]) -> None:
    paragraph = " ".join(compare_methods(build("T", three, "best"))[0].sentences)
    assert "aligned in 2 of 3 runs (95\xa0% interval 9\xa0% to 99\xa0%), in 0 of 3 with mle" in paragraph
    assert "two groups" in paragraph


def test_one_seed_proves_nothing(three: dict[str, Any]) -> None:
    one = {label: {seed: result for seed, result in seeds.items() if seed == 1} for label, seeds in three.items()}
    text = " ".join(sentence for item in compare_methods(build("T", one, "best")) for sentence in item.sentences)
    assert "not clear with 1 seed" in text
    assert "better" not in text
    assert "nan" not in text


def test_seeds_that_do_not_meet_are_not_compared(three: dict[str, Any]) -> None:
    apart = {"mle": {1: three["mle"][1]}, "threshold": {2: three["threshold"][2]}}
    assert compare_methods(build("T", apart, "best"))[0].sentences == [
        "No seed in common with mle, so there is nothing to compare."
    ]


def test_equal_numbers_are_no_change(three: dict[str, Any]) -> None:
    same = {"mle": three["mle"], "again": three["mle"]}
    (story,) = compare_methods(build("T", same, "best"))
    assert {change.word for changes in story.seeds.values() for change in changes} == {"no change"}
    assert all(word == "not clear with 3 seeds" for _, word in story.verdicts)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (1.0, 3.0, "worse"),
        (-3.0, -1.0, "better"),
        (-1.0, 3.0, "not clear with 4 seeds"),
        (0.0, 4.0, "not clear with 4 seeds"),
        (math.nan, math.nan, "not clear with 4 seeds"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(low: float, high: float, word: str) -> None:
    mean = -2.0 if high < 0 else 2.0
    assert verdict(PERPLEXITY, Interval(mean, low, high, 4)) == word


def test_a_temperature_is_neither_better_nor_worse() -> None:
    assert verdict(TEMPERATURE, Interval(2.0, 1.0, 3.0, 3)) == "higher"
