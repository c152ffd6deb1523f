"""Drawing text: the distribution, the temperature, the window that is read."""

import math

import pytest
import torch

from decone.models.nano import Nano, NanoConfig
from decone.models.sampling import sample


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
