"""Scores by part against loops; the parts recombine to the whole."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.metrics.parts import part_scores

POSITIONS = st.lists(st.tuples(st.floats(0, 60), st.booleans(), st.integers(0, 4)), min_size=1, max_size=60)


@settings(max_examples=80)
@given(POSITIONS)
def test_parts_match_loops_and_recombine(positions: list[tuple[float, bool, int]]) -> None:
    loss = torch.tensor([value for value, _, _ in positions], dtype=torch.float64)
    correct = torch.tensor([hit for _, hit, _ in positions])
    found = part_scores(loss, correct, torch.tensor([part for _, _, part in positions]), parts=5)
    for index, score in enumerate(found):
        inside = [(value, hit) for value, hit, part in positions if part == index]
        assert score.tokens == len(inside)
        assert score.share == len(inside) / len(positions)
        if not inside:
            assert score.perplexity is None
            assert score.accuracy is None
            continue
        assert score.perplexity == pytest.approx(math.exp(math.fsum(v for v, _ in inside) / len(inside)), rel=1e-12)
        assert score.accuracy == sum(hit for _, hit in inside) / len(inside)
    assert sum(score.tokens for score in found) == len(positions)
    whole = math.fsum(value for value, _, _ in positions) / len(positions)
    together = math.fsum(score.share * math.log(score.perplexity) for score in found if score.perplexity is not None)
    assert math.exp(together) == pytest.approx(math.exp(whole), rel=1e-12)


def test_an_impossible_token_makes_its_part_infinite_and_no_other() -> None:
    loss = torch.tensor([math.inf, 1.0], dtype=torch.float64)
    first, second = part_scores(loss, loss < 2, torch.tensor([0, 1]), parts=2)
    assert first.perplexity == math.inf
    assert second.perplexity == pytest.approx(math.e)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused() -> None:
    loss, hits = torch.ones(2, dtype=torch.float64), torch.tensor([True, False])
    with pytest.raises(ValueError, match="one length above 0"):
        part_scores(loss, hits, torch.tensor([0]), parts=1)
    with pytest.raises(ValueError, match="one length above 0"):
        part_scores(loss[:0], hits[:0], torch.tensor([], dtype=torch.long), parts=1)
    for part in ([0, 2], [-1, 0]):
        with pytest.raises(ValueError, match="there are 2, from 0"):
            part_scores(loss, hits, torch.tensor(part), parts=2)
