"""Drawing text: the distribution, the temperature, the window that is read."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.models.nano import Nano, NanoConfig
from decone.models.sampling import keep_top_k, keep_top_p, sample


@pytest.fixture
def model() -> Nano:
    torch.manual_seed(1)
    model = Nano(NanoConfig(vocabulary=5, context=4, layers=1, heads=1, width=8))
    with torch.no_grad():
        model.head.mul_(20)
    return model


def test_temperature_zero_takes_the_likeliest(model: Nano) -> None:
    ids = [0]
    for _ in range(9):  # further than the context
        ids.append(int(model.logits(torch.tensor([ids[-4:]]))[0, -1].argmax()))
    assert sample(model, torch.tensor([0]), 9, temperature=0.0).tolist() == ids[1:]


def test_a_seed_gives_the_text_and_leaves_the_global_state(model: Nano) -> None:
    before = torch.get_rng_state()
    prompt = torch.tensor([1, 2])
    assert torch.equal(sample(model, prompt, 20, seed=3), sample(model, prompt, 20, seed=3))
    assert not torch.equal(sample(model, prompt, 20, seed=3), sample(model, prompt, 20, seed=4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_draws_follow_the_softmax(model: Nano, temperature: float) -> None:
    prompt, draws = torch.tensor([3, 1]), 300
    wanted = (model.logits(prompt[None])[0, -1] / temperature).softmax(0)
    seen = torch.zeros(5)
    for seed in range(draws):
        seen[sample(model, prompt, 1, temperature, seed)] += 1
    assert bool(((seen - draws * wanted).abs() <= 5 * (draws * wanted * (1 - wanted)).sqrt() + 1).all())


def test_only_the_last_of_a_long_prompt_is_read(model: Nano) -> None:
    long = torch.tensor([4, 4, 4, 0, 1, 2, 3])
    assert torch.equal(sample(model, long, 6, seed=5), sample(model, long[-4:], 6, seed=5))


def test_nothing_is_added_for_length_zero(model: Nano) -> None:
    assert sample(model, torch.tensor([0]), 0).shape == (0,)


def test_impossible_wishes_are_refused(model: Nano) -> None:
    with pytest.raises(ValueError, match="the prompt is empty; give at least one token"):
        sample(model, torch.tensor([], dtype=torch.long), 1)
    for temperature in (-1.0, math.nan):
        with pytest.raises(ValueError, match="temperature must be 0 or more"):
            sample(model, torch.tensor([0]), 1, temperature)


@settings(max_examples=80)
@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=8), st.integers(1, 10))
def test_top_k_keeps_the_k_likeliest_and_their_equals(row: list[float], k: int) -> None:
    least = sorted(row, reverse=True)[: min(k, len(row))][-1]
    expected = [value if value >= least else -math.inf for value in row]
    assert keep_top_k(torch.tensor([row]), k).tolist() == [expected]


@settings(max_examples=80)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.floats(0.01, 1.0))
def test_top_p_keeps_the_fewest_that_reach_p(weights: list[int], p: float) -> None:
    share = [weight / sum(weights) for weight in weights]
    order = sorted(range(len(share)), key=lambda place: -share[place])
    sums = [sum(share[place] for place in order[:count]) for count in range(len(order))]
    if any(abs(total - p) < 1e-5 for total in sums):
        return  # rounding decides there
    kept = {order[count] for count, total in enumerate(sums) if total < p}
    found = keep_top_p(torch.tensor([share]).log(), p)
    assert {place for place, value in enumerate(found[0].tolist()) if value > -math.inf} == kept


def test_each_row_of_a_batch_has_its_own_cut() -> None:
    logits = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]).log()
    assert keep_top_k(logits, 1).isfinite().tolist() == [[True, False, False], [False, False, True]]
    assert keep_top_p(logits, 0.8).isfinite().tolist() == [[True, True, False], [False, True, True]]


def test_cuts_that_keep_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one token, got k = 0"):
        keep_top_k(torch.zeros(1, 2), 0)
    for p in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            keep_top_p(torch.zeros(1, 2), p)
