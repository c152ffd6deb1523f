"""The map in closed form, against least squares on stacked data and plain loops over folds."""

import numpy as np
import pytest
import torch
from torch import Tensor

from decone.repair.definitions.ridge import PENALTIES, crossfit, fit_ridge, mean_by_token

N, F, H = 60, 7, 4


def world(size: int = N, noise: float = 0.3, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(size, F, generator=draw) * torch.tensor([1, 1, 1, 1, 100, 100, 100.0]) + 3
    matrix = torch.randn(F, H, generator=draw)
    rows = features / features.std(0) @ matrix + noise * torch.randn(size, H, generator=draw) - 5
    return features, rows


def stacked(
    features: Tensor, rows: Tensor, ridge: float, asked: Tensor, scale: np.ndarray | float | None = None
) -> np.ndarray:
    """Ridge as ordinary least squares with root-ridge rows below and a free column for the offset."""
    x, y = features.double().numpy(), rows.double().numpy()
    scale = x.std(0) ** 0 / np.sqrt((x.std(0) ** 2).mean()) if scale is None else scale
    below = np.hstack([np.sqrt(ridge) * np.eye(x.shape[1]), np.zeros((x.shape[1], 1))])
    left = np.vstack([np.hstack([x * scale, np.ones((len(x), 1))]), below])
    right = np.vstack([y, np.zeros((x.shape[1], y.shape[1]))])
    found = np.linalg.lstsq(left, right, rcond=None)[0]
    return np.hstack([asked.double().numpy() * scale, np.ones((len(asked), 1))]) @ found


@pytest.mark.parametrize("ridge", [1e-6, 0.5, 30.0, 1e6])
def test_ridge_is_least_squares_with_more_rows(ridge: float) -> None:
    features, rows = world()
    other, _ = world(seed=1)
    found = fit_ridge(features, rows, ridge)(other)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), stacked(features, rows, ridge, other), rtol=1e-4, atol=1e-4)


def test_an_endless_penalty_leaves_the_mean_and_none_the_map() -> None:
    features, rows = world(noise=0)
    assert torch.allclose(fit_ridge(features, rows, 1e12)(features), rows.mean(0).expand_as(rows), atol=1e-4)
    assert torch.allclose(fit_ridge(features, rows, 1e-8)(features), rows, atol=1e-3)


def test_blocks_are_scaled_each_by_itself() -> None:
    """The second block is a hundred times larger; with blocks that makes no difference."""
    features, rows = world()
    scale = np.concatenate([np.full(4, features[:, :4].var(0, correction=0).mean()), [0] * 3])
    scale[4:] = features[:, 4:].var(0, correction=0).mean()
    found = fit_ridge(features, rows, 20.0, [4, 3])(features)
    np.testing.assert_allclose(
        found.numpy(), stacked(features, rows, 20.0, features, scale**-0.5), rtol=1e-3, atol=1e-4
    )
    larger = torch.cat([features[:, :4], features[:, 4:] * 1e3], 1)
    assert torch.allclose(fit_ridge(larger, rows, 20.0, [4, 3])(larger), found, atol=1e-3)
    assert not torch.allclose(
        fit_ridge(features, rows, 20.0)(features), found, atol=0.1
    )  # where the first block is as nothing


def test_a_feature_that_never_changes() -> None:
    features, rows = world()
    for constant in (torch.zeros(N, 2), torch.full((N, 2), 7.0), torch.full((N, 2), 0.1)):
        more = torch.cat([features, constant], 1)
        found = fit_ridge(more, rows, 1.0, [F, 2])(more)
        assert torch.allclose(found, fit_ridge(features, rows, 1.0)(features), atol=1e-3)


def test_crossfit_is_one_fit_per_fold() -> None:
    features, rows = world()
    learn = torch.ones(N, dtype=torch.bool)
    learn[[3, 30, 58]] = False
    found, ridge = crossfit(features, rows, learn, 5.0, folds=4, seed=2)
    assert ridge == 5.0
    fold = torch.randperm(57, generator=torch.Generator().manual_seed(2)) % 4
    chosen = learn.nonzero().squeeze(1)
    scale = 1 / np.sqrt((features[learn].double().numpy().std(0) ** 2).mean())
    for part in range(4):
        inside, outside = chosen[fold == part], chosen[fold != part]
        assert 14 <= len(inside) <= 15
        expected = stacked(features[outside], rows[outside], 5.0, features[inside], scale)
        np.testing.assert_allclose(found[inside].numpy(), expected, rtol=1e-4, atol=1e-4)
    expected = stacked(features[chosen], rows[chosen], 5.0, features[~learn], scale)
    np.testing.assert_allclose(found[~learn].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_honesty() -> None:
    """A target a hundred times larger moves the predictions of others, not its own."""
    features, rows = world()
    learn = torch.ones(N, dtype=torch.bool)
    before, _ = crossfit(features, rows, learn, 1.0)
    for token in (0, 17, 59):
        spoiled = rows.clone()
        spoiled[token] *= 100
        after, _ = crossfit(features, spoiled, learn, 1.0)
        assert float((after[token] - before[token]).abs().max()) < 1e-5 * max(1.0, float(before[token].abs().max()))
        moved = (after - before).abs().amax(1) > 1e-2
        assert not moved[token]
        assert int(moved.sum()) > 30


def test_rows_that_are_not_learned_from_are_not_looked_at() -> None:
    features, rows = world()
    learn = torch.arange(N) < 50
    spoiled = rows.clone()
    spoiled[~learn] = 1e6
    assert torch.equal(crossfit(features, rows, learn)[0], crossfit(features, spoiled, learn)[0])


def test_the_penalty_is_the_best_held_out() -> None:
    for noise, size in ((0.0, N), (30.0, 40)):
        features, rows = world(size, noise)
        learn = torch.ones(size, dtype=torch.bool)
        errors = {
            penalty: float((crossfit(features, rows, learn, penalty)[0] - rows).square().mean())
            for penalty in PENALTIES
        }
        found, ridge = crossfit(features, rows, learn)
        assert ridge == min(errors, key=errors.__getitem__)
        assert torch.equal(found, crossfit(features, rows, learn, ridge)[0])
    assert ridge > PENALTIES[0]  # noise asks for more


def test_the_seed_cuts_the_folds() -> None:
    features, rows = world()
    learn = torch.ones(N, dtype=torch.bool)
    one, two, three = (crossfit(features, rows, learn, 1.0, seed=seed)[0] for seed in (4, 4, 5))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_too_few_tokens() -> None:
    features, rows = world()
    with pytest.raises(ValueError, match="4 tokens to learn from cannot be cut into 5 folds; define more"):
        crossfit(features, rows, torch.arange(N) < 4)
    assert crossfit(features, rows, torch.arange(N) < 5)[0].shape == (N, H)
    with pytest.raises(ValueError, match="at least 2 tokens with definitions to learn from, not 1"):
        fit_ridge(features[:1], rows[:1], 1.0)


def test_means_over_prompts() -> None:
    features, owner = torch.randn(9, 3), torch.tensor([4, 0, 4, 2, 2, 4, 0, 4, 2])
    found, count = mean_by_token(features, owner, 6)
    assert count.tolist() == [2, 0, 3, 0, 4, 0]
    for token in range(6):
        mine = [features[place] for place in range(9) if int(owner[place]) == token]
        expected = sum(mine) / len(mine) if mine else torch.zeros(3)
        assert torch.allclose(found[token], torch.as_tensor(expected), atol=1e-6)
