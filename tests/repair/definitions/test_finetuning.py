"""The model itself trained, on tiny models of five families."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from tests.repair.definitions.worlds import FAMILIES, WORDS, reconstructor, saved
from torch import Tensor

from decone.repair.definitions import finetuning as module
from decone.repair.definitions.encoder import DefinitionEncoder
from decone.repair.definitions.finetuning import TrainedEncoder, finetune_encoder
from decone.repair.definitions.fit import Reconstructor
from decone.repair.definitions.prompts import Prompt, collate
from decone.repair.definitions.recipe import DefinitionRecipe
from decone.repair.definitions.ridge import fit_ridge

QUICK = {"solver": "gradient", "read": "slot", "epochs": 2, "batch": 8, "warmup": 0.0}


def made(family: str, folder: Path, **settings: Any) -> Reconstructor:
    return reconstructor(saved(family, folder / family, padding=0), DefinitionRecipe(**{**QUICK, **settings}))


def trained(read: Reconstructor, held: Tensor, ids: Tensor | None = None, **settings: Any) -> TrainedEncoder:
    recipe = read.recipe.model_copy(update=settings)
    start = fit_ridge(read.features, read.rows, 1.0) if recipe.start == "ridge" else None
    return finetune_encoder(
        read.encoder, start, read.prompts, read.owner, read.rows, held, read._ordinary_ids, recipe, "cpu", read.progress
    )


def bits(body: DefinitionEncoder) -> dict[str, Tensor]:
    return {name: part.clone() for name, part in body.model.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("table", [False, True])
def test_a_student_is_trained_and_the_model_is_not(family: str, table: bool, tmp_path: Path) -> None:
    read = made(family, tmp_path, train_table=table, epochs=3, start="random")
    read.encoder.model.train()
    before, modes = bits(read.encoder), {part: part.training for part in read.encoder.modules()}
    flags = {name: part.requires_grad for name, part in read.encoder.named_parameters()}
    found = trained(read, torch.arange(3), rate=1e-3, map_rate=0.01)
    after = bits(read.encoder)
    assert all(torch.equal(part, after[name]) for name, part in before.items())  # to the last bit
    assert {part: part.training for part in read.encoder.modules()} == modes
    assert {name: part.requires_grad for name, part in read.encoder.named_parameters()} == flags
    assert all(part.grad is None for part in read.encoder.parameters())
    changed = {name for name, part in bits(found.encoder).items() if not torch.equal(part, before[name])}
    assert found.best_epoch
    assert len(changed) > 5
    assert torch.equal(found.encoder.rows, read.encoder.rows) is not table


def test_sixteen_tokens_are_learned(tmp_path: Path) -> None:
    """Table frozen, a map begun at random: after 100 steps the loss is below half of what the mean row gives."""
    wide = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 64}
    dry = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    read = reconstructor(saved("bert", tmp_path / "bert", padding=0, **wide, **dry), DefinitionRecipe(**QUICK))
    prompts, rows = read.prompts[:16], read.rows[:16]
    assert [prompt.gloss[1] - prompt.gloss[0] in range(4, 10) for prompt in prompts] == [True] * 16
    # Each token stands twice, to be learned and to be looked at: the errors of "held-out" ones are those of the loss.
    settings = {"epochs": 100, "batch": 16, "rate": 3e-3, "map_rate": 3e-3, "warmup": 0.2, "patience": 100}
    recipe = read.recipe.model_copy(update=settings)
    owner, twice = torch.arange(32), torch.cat([rows, rows])
    found = finetune_encoder(
        read.encoder, None, [*prompts, *prompts], owner, twice, owner[16:], read._ordinary_ids, recipe, "cpu"
    )
    baseline = float((rows - rows.mean(0)).square().mean())
    assert len(found.errors) == 101
    assert found.errors[0] > baseline > 2 * found.errors[found.best_epoch]
    fit = found.predict(prompts, torch.arange(16), 16)
    assert float((fit - rows).square().mean()) == pytest.approx(found.errors[found.best_epoch], rel=1e-4)


def test_the_student_of_the_best_epoch_is_kept(tmp_path: Path) -> None:
    """A rate that destroys the model makes every epoch worse than the start: then the start is kept."""
    read = made("bert", tmp_path, patience=3, epochs=9)
    held = torch.tensor([2, 9, 30])
    found = trained(read, held, rate=1.0, map_rate=1.0)
    assert found.best_epoch == found.errors.index(min(found.errors))
    assert len(found.errors) <= found.best_epoch + 1 + 3  # patience
    chosen = [place for place, token in enumerate(read.owner.tolist()) if token in held.tolist()]
    fit = found.predict([read.prompts[place] for place in chosen], torch.arange(3), 3)
    error = float((fit - read.rows[held]).square().mean())
    assert error == pytest.approx(min(found.errors), rel=1e-4)
    if not found.best_epoch:
        assert all(
            torch.equal(part, read.encoder.model.state_dict()[name]) for name, part in bits(found.encoder).items()
        )


def test_held_out_tokens_are_never_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = made("bert", tmp_path)
    held = torch.tensor([0, 7, 39])
    seen = list[int]()
    original = module.collate

    def watched(prompts: list[Prompt], *more: Any) -> Any:
        seen.extend(prompt.id for prompt in prompts)
        return original(prompts, *more)

    monkeypatch.setattr(module, "collate", watched)  # of training; features are read elsewhere
    one = trained(read, held)
    assert sorted(set(seen)) == sorted(set(read.ids.tolist()) - set(read.ids[held].tolist()))
    assert len(seen) == 2 * 37  # each once an epoch
    spoiled = read.rows.clone()
    spoiled[held] *= 100
    read.rows = spoiled
    two = trained(read, held, patience=9)
    if one.best_epoch == two.best_epoch:  # their rows tell when to stop, and nothing else
        assert all(torch.equal(part, bits(two.encoder)[name]) for name, part in bits(one.encoder).items())
    assert two.errors != one.errors


def test_the_same_seed_gives_the_same_student(tmp_path: Path) -> None:
    read = made("bert", tmp_path, noise=(0.5, 0.25, 0.25))
    held = torch.arange(3)
    state = torch.random.get_rng_state()
    one = trained(read, held, seed=1, start="random", rate=0.01)
    assert torch.equal(state, torch.random.get_rng_state())  # the caller's chance is left alone
    torch.manual_seed(77)  # and does not matter
    two, three = (trained(read, held, seed=seed, start="random", rate=0.01) for seed in (1, 2))
    fit = [found.predict(read.prompts, read.owner, 40) for found in (one, two, three)]
    assert float((fit[0] - fit[1]).abs().max()) < 1e-6
    assert one.errors == two.errors
    assert float((fit[0] - fit[2]).abs().max()) > 1e-3


def test_a_map_begins_as_ridge_or_at_random(tmp_path: Path) -> None:
    read = made("albert", tmp_path, read="words")  # rows of width 8, states of 16
    readout = fit_ridge(read.features, read.rows, 2.0, read.encoder.blocks)
    ridge = module._output_map(readout, read.encoder, read.prompts[0], 8)
    assert torch.allclose(ridge(read.features), readout(read.features), atol=1e-4)
    torch.manual_seed(0)
    random_map = module._output_map(None, read.encoder, read.prompts[0], 8)
    assert random_map.bias is None
    assert random_map.weight.shape == (8, 40)
    assert float(random_map.weight.detach().std()) == pytest.approx(40**-0.5, rel=0.15)


def test_the_loss_is_a_hundred_times_the_mean_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = made("bert", tmp_path, epochs=1, batch=64)
    held, losses = torch.arange(3), list[float]()
    original = module.accelerator

    def watched(*given: str) -> Any:
        prepared = original(*given)
        inner = prepared.backward
        prepared.backward = lambda loss: (losses.append(float(loss.detach())), inner(loss))
        return prepared

    monkeypatch.setattr(module, "accelerator", watched)
    for part in read.encoder.model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    readout = fit_ridge(read.features, read.rows, 1.0)
    trained(read, held)
    error = 0.0
    fit = readout(read.features)[3:]
    for one, other in zip(fit.double().tolist(), read.rows[3:].double().tolist(), strict=True):
        error += sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one) / 37
    assert losses == [pytest.approx(100 * error, rel=1e-3)]


def test_shares_of_noise(tmp_path: Path) -> None:
    """Masked 50 %, random 25 %, gold 25 %, each random token alike, and never anything but slots."""
    read = made("bert", tmp_path)
    known = {id: surface.kind for id, surface in enumerate(read.alignment.surfaces)}
    ordinary = read._ordinary_ids
    assert {known[id] for id in ordinary} <= {"word", "character", "piece", "punctuation", "number", "letters", "other"}
    assert len(ordinary) == read.size - 6  # five marks and an unused one
    mask, draw = read.writer.mask, random.Random(0)
    drawn, counts = [0] * read.size, [0, 0, 0]
    slots = 0
    prompts = [prompt for prompt in read.prompts for _ in range(500)]
    for first in range(0, len(prompts), 2000):
        part = prompts[first : first + 2000]
        batch = collate(part, read.encoder.pad)
        changed = module._add_noise(batch, [prompt.id for prompt in part], (0.5, 0.25, 0.25), ordinary, draw)
        others = ~batch.slots
        assert torch.equal(batch.ids[others], changed.ids[others])
        assert changed.slots is batch.slots
        assert changed.gloss is batch.gloss
        for row, prompt in zip(changed.ids[batch.slots].tolist(), part, strict=True):
            slots += 1
            if row == mask:
                counts[0] += 1
            elif row == prompt.id:
                counts[2] += 1
            else:
                counts[1] += 1
                drawn[row] += 1
    assert slots == 20_000
    assert all(abs(count / slots - share) < 0.015 for count, share in zip(counts, (0.5, 0.25, 0.25), strict=True))
    assert all(not drawn[id] for id in range(read.size) if id not in ordinary)
    # The words defined here are drawn a fortieth less often: their own draws look like gold ones.
    plain = [id for id in ordinary if id not in set(read.ids.tolist())]
    assert chisquare([drawn[id] for id in plain]).pvalue > 0.01


def test_without_noise_a_batch_is_left_alone(tmp_path: Path) -> None:
    read = made("bert", tmp_path)
    batch = collate(read.prompts[:4], 0)
    assert module._add_noise(batch, [1] * 4, (1.0, 0.0, 0.0), [9], random.Random(0)) is batch
    gold = module._add_noise(batch, [50, 51, 52, 53], (0.0, 0.0, 1.0), [9], random.Random(0))
    assert gold.ids[batch.slots].tolist() == [50, 51, 52, 53]
    other = module._add_noise(batch, [50, 51, 52, 53], (0.0, 1.0, 0.0), [9], random.Random(0))
    assert other.ids[batch.slots].tolist() == [9] * 4


def test_noise_is_for_encoders(tmp_path: Path) -> None:
    read = made("t5", tmp_path)
    with pytest.raises(ValueError, match=r"noise is put into the slots of encoders; .* set noise=1,0,0"):
        trained(read, torch.arange(3), noise=(0.5, 0.25, 0.25))


def test_nothing_left_to_learn_from(tmp_path: Path) -> None:
    read = made("bert", tmp_path)
    for held in (torch.arange(40), torch.arange(0)):
        with pytest.raises(ValueError, match="no token is left to learn from, or none to hold out"):
            trained(read, held)


def test_training_that_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = made("bert", tmp_path)
    monkeypatch.setattr(module, "FACTOR", math.inf)
    before = bits(read.encoder)
    with pytest.raises(ValueError, match="training diverged; set a lower rate"):
        trained(read, torch.arange(3))
    assert all(torch.equal(part, before[name]) for name, part in bits(read.encoder).items())


def test_the_rate_rises_and_falls() -> None:
    steps, warmup = 100, 0.2
    shares = [module._share(step, steps, warmup) for step in range(steps + 1)]
    assert shares[0] == pytest.approx(1 / 20)
    assert shares[9] == pytest.approx(0.5)
    assert max(shares) == 1
    assert shares[60] == pytest.approx(0.5)
    assert shares[100] == 0
    assert min(shares) >= 0
    assert module._share(0, 1, 0.0) == 1
    assert module._share(0, 2, 0.9) > 0


def test_an_epoch_has_every_prompt_once() -> None:
    prompts = [Prompt(id, (1,) * (1 + id % 7), (0,), (0, 1), (id,), (0,)) for id in range(100)]
    places = list(range(0, 100, 2))
    batches = module._shuffled_batches(places, prompts, 8, random.Random(0))
    assert sorted(place for batch in batches for place in batch) == places
    assert max(map(len, batches)) == 8
    other = module._shuffled_batches(places, prompts, 8, random.Random(1))
    assert other != batches
    assert module._shuffled_batches(places, prompts, 8, random.Random(0)) == batches
    assert WORDS
    assert sum(len({len(prompts[place].ids) for place in batch}) <= 3 for batch in batches) == len(batches)


def test_progress_is_told(tmp_path: Path) -> None:
    read = made("bert", tmp_path)
    seen = list[tuple[str, int, int]]()
    read.progress = lambda *fit: seen.append(fit)
    trained(read, torch.arange(3))
    steps = [fit for fit in seen if fit[0].startswith("training")]
    assert [done for _, done, _ in steps] == list(range(1, 11))
    assert steps[-1] == ("training, epoch 2 of 2", 10, 10)
