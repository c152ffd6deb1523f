"""Continuations: each rule against a loop over single sequences. Draws: distribution, temperature, window."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decone.models.generation import DECODINGS, Decoding, extend, keep_top_k, keep_top_p, nano_scores, sample
from decone.models.nano import Nano, NanoConfig

WINDOW = 6


@pytest.fixture
def model() -> Nano:
    torch.manual_seed(2)
    model = Nano(NanoConfig(vocabulary=7, context=WINDOW, layers=1, heads=1, width=8)).eval()
    with torch.no_grad():
        model.head.mul_(40)
    return model


@pytest.fixture
def prompts() -> Tensor:
    return torch.randint(7, (5, 4), generator=torch.Generator().manual_seed(1))


def test_scores_are_those_of_the_last_position(model: Nano, prompts: Tensor) -> None:
    torch.testing.assert_close(nano_scores(model)(prompts), model.logits(prompts)[:, -1])


def test_greedy_is_the_argmax_loop_past_the_context(model: Nano, prompts: Tensor) -> None:
    found = extend(nano_scores(model), prompts, 12, WINDOW, DECODINGS["greedy"])
    for row, prompt in zip(found.tolist(), prompts.tolist(), strict=True):
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(model.logits(torch.tensor([ids[-WINDOW:]]))[0, -1].argmax()))
        assert row == ids[4:]
        assert row == sample(model, torch.tensor(prompt), 12, temperature=0.0).tolist()


@pytest.mark.parametrize("beams", [2, 4, 20])
def test_beams_match_a_loop(model: Nano, prompts: Tensor, beams: int) -> None:
    found = extend(nano_scores(model), prompts, 8, WINDOW, Decoding(beams=beams))
    for row, prompt in zip(found.tolist(), prompts.tolist(), strict=True):
        kept = [(0.0, list(prompt))]
        for _ in range(8):
            longer = []
            for total, ids in kept:
                each = model.logits(torch.tensor([ids[-WINDOW:]]))[0, -1].log_softmax(0).tolist()
                longer += [(total + value, [*ids, index]) for index, value in enumerate(each)]
            kept = sorted(longer, key=lambda beam: -beam[0])[:beams]
        assert row == kept[0][1][4:]


def test_beams_as_wide_as_the_tree_find_the_likeliest_text(model: Nano) -> None:
    prompt = torch.tensor([[3]])
    best, likeliest = -math.inf, ()
    for text in itertools.product(range(7), repeat=3):
        ids = torch.tensor([[3, *text]])
        each = model.logits(ids[:, :-1])[0].log_softmax(1)
        total = float(each.gather(1, ids[0, 1:, None]).sum())
        if total > best:
            best, likeliest = total, text
    assert extend(nano_scores(model), prompt, 3, WINDOW, Decoding(beams=49)).tolist() == [list(likeliest)]


@pytest.mark.parametrize("name", ["top-k", "top-p"])
def test_a_seed_gives_the_text_and_leaves_the_global_state(name: str, model: Nano, prompts: Tensor) -> None:
    scores, before = nano_scores(model), torch.get_rng_state()
    found = extend(scores, prompts, 20, WINDOW, DECODINGS[name], seed=3)
    assert torch.equal(found, extend(scores, prompts, 20, WINDOW, DECODINGS[name], seed=3))
    assert not torch.equal(found, extend(scores, prompts, 20, WINDOW, DECODINGS[name], seed=4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("rule", "share"),
    [
        (Decoding(k=2), [5 / 8, 3 / 8, 0, 0]),
        (Decoding(p=0.75), [5 / 8, 3 / 8, 0, 0]),
        (Decoding(p=0.5), [1, 0, 0, 0]),
        (Decoding(k=50, p=1.0), [0.5, 0.3, 0.15, 0.05]),
        (Decoding(k=3, p=0.84), [5 / 8, 3 / 8, 0, 0]),  # k first: of 0.95 the two make 0.842
    ],
)
def test_draws_follow_what_the_rule_keeps(rule: Decoding, share: list[float]) -> None:
    draws = 2000

    def scores(ids: Tensor) -> Tensor:
        return torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(len(ids), 4)

    found = extend(scores, torch.zeros(draws, 1, dtype=torch.long), 1, 4, rule, seed=5)
    wanted = draws * torch.tensor(share)
    seen = torch.bincount(found.flatten(), minlength=4)
    assert bool(((seen - wanted).abs() <= 5 * (wanted * (1 - wanted / draws)).clamp_min(0).sqrt()).all())


@pytest.mark.parametrize("name", list(DECODINGS))
def test_what_is_forbidden_never_comes(name: str, model: Nano, prompts: Tensor) -> None:
    free = extend(nano_scores(model), prompts, 15, WINDOW, DECODINGS[name])
    assert free.shape == (5, 15)
    banned = free.flatten().bincount().argmax().item()
    bound = extend(nano_scores(model), prompts, 15, WINDOW, DECODINGS[name], forbidden=[int(banned), 6])
    assert not bool(torch.isin(bound, torch.tensor([banned, 6])).any())


@pytest.mark.parametrize("name", list(DECODINGS))
def test_nothing_is_added_for_length_zero(name: str, model: Nano, prompts: Tensor) -> None:
    assert extend(nano_scores(model), prompts, 0, WINDOW, DECODINGS[name]).shape == (5, 0)


def test_empty_prompts_are_refused(model: Nano) -> None:
    with pytest.raises(ValueError, match="give at least one token"):
        extend(nano_scores(model), torch.zeros(2, 0, dtype=torch.long), 1, WINDOW, Decoding())


@pytest.fixture
def decoder() -> Nano:
    torch.manual_seed(1)
    decoder = Nano(NanoConfig(vocabulary=5, context=4, layers=1, heads=1, width=8))
    with torch.no_grad():
        decoder.head.mul_(20)
    return decoder


def test_temperature_zero_takes_the_likeliest(decoder: Nano) -> None:
    ids = [0]
    for _ in range(9):  # further than the context
        ids.append(int(decoder.logits(torch.tensor([ids[-4:]]))[0, -1].argmax()))
    assert sample(decoder, torch.tensor([0]), 9, temperature=0.0).tolist() == ids[1:]


def test_a_seed_gives_the_sample_and_leaves_the_global_state(decoder: Nano) -> None:
    before = torch.get_rng_state()
    prompt = torch.tensor([1, 2])
    assert torch.equal(sample(decoder, prompt, 20, seed=3), sample(decoder, prompt, 20, seed=3))
    assert not torch.equal(sample(decoder, prompt, 20, seed=3), sample(decoder, prompt, 20, seed=4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_draws_follow_the_softmax(decoder: Nano, temperature: float) -> None:
    prompt, draws = torch.tensor([3, 1]), 300
    wanted = (decoder.logits(prompt[None])[0, -1] / temperature).softmax(0)
    seen = torch.zeros(5)
    for seed in range(draws):
        seen[sample(decoder, prompt, 1, temperature, seed)] += 1
    assert bool(((seen - draws * wanted).abs() <= 5 * (draws * wanted * (1 - wanted)).sqrt() + 1).all())


def test_only_the_last_of_a_long_prompt_is_read(decoder: Nano) -> None:
    long = torch.tensor([4, 4, 4, 0, 1, 2, 3])
    assert torch.equal(sample(decoder, long, 6, seed=5), sample(decoder, long[-4:], 6, seed=5))


def test_a_sample_of_length_zero_is_empty(decoder: Nano) -> None:
    assert sample(decoder, torch.tensor([0]), 0).shape == (0,)


def test_impossible_wishes_are_refused(decoder: Nano) -> None:
    with pytest.raises(ValueError, match="the prompt is empty; give at least one token"):
        sample(decoder, torch.tensor([], dtype=torch.long), 1)
    for temperature in (-1.0, math.nan):
        with pytest.raises(ValueError, match="temperature must be 0 or more"):
            sample(decoder, torch.tensor([0]), 1, temperature)


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
