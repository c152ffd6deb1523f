"""How well rows are fit, against ranks by brute force and sums in loops."""

import math

import pytest
import torch

from decone.models import tables
from decone.models.tables import MemoryTable
from decone.repair.definitions import fit as module
from decone.repair.definitions.fit import doubtful, row_ranks, score_predictions

V, H, N = 50, 6, 20


def world(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    table = torch.randn(V, H, generator=draw) + 0.5
    ids = torch.randperm(V, generator=draw)[:N]
    predicted = 0.4 * table[ids] + 0.5 * torch.randn(N, H, generator=draw)
    return table, ids, predicted, torch.rand(V, generator=draw) > 0.2


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize("given", [False, True])
def test_ranks_by_brute_force(given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK", 7 * H)  # several blocks of rows
    monkeypatch.setattr(module, "COSINES", 21)  # and of predictions
    table, ids, predicted, usable = world()
    centre = table[:9].double().mean(0) if given else predicted.double().mean(0)
    found = row_ranks(predicted, table[ids], MemoryTable("t", table), usable, centre.float() if given else None)
    for place, id in enumerate(ids.tolist()):
        asked = (predicted[place].double() - centre).tolist()
        near = [cosine(asked, (row.double() - centre).tolist()) for row in table]
        assert int(found[place]) == sum(
            bool(usable[other]) and near[other] > near[id] + 1e-6 for other in range(V) if other != id
        )


def test_a_row_does_not_count_against_itself() -> None:
    table = torch.randn(V, H) * 1e-3 + 5  # near the limits of float32
    found = row_ranks(table.clone(), table, MemoryTable("t", table), torch.ones(V, dtype=torch.bool))
    assert found.tolist() == [0] * V


def test_a_single_prediction_is_ranked_around_a_centre() -> None:
    """Around its own mean it would be nothing, and every row as near as the right one."""
    table, ids, predicted, _ = world()
    every = torch.ones(V, dtype=torch.bool)
    centre = predicted.mean(0)
    together = row_ranks(predicted, table[ids], MemoryTable("t", table), every)
    alone = [
        int(row_ranks(predicted[k : k + 1], table[ids[k : k + 1]], MemoryTable("t", table), every, centre))
        for k in range(N)
    ]
    assert alone == together.tolist()
    assert max(alone) > 0


def test_scores_by_hand() -> None:
    table, ids, predicted, _ = world()
    rows, mean = table[ids], table.mean(0)
    found = row_ranks(predicted, rows, MemoryTable("t", table), torch.ones(V, dtype=torch.bool))
    fit = score_predictions(predicted, rows, mean, found, V)
    error = without = 0.0
    for one, other in zip(predicted.double().tolist(), rows.double().tolist(), strict=True):
        error += sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
        without += sum((a - b) ** 2 for a, b in zip(mean.double().tolist(), other, strict=True))
    assert fit.r2 == pytest.approx(1 - error / without, abs=1e-6)
    assert fit.tokens == N
    near = [cosine(a, b) for a, b in zip(predicted.double().tolist(), rows.double().tolist(), strict=True)]
    assert fit.cosine.mean == pytest.approx(sum(near) / N)
    assert fit.cosine.low < fit.cosine.mean < fit.cosine.high
    lengths = [sum(math.sqrt(sum(x * x for x in row)) for row in part.double().tolist()) for part in (predicted, rows)]
    assert fit.norm_ratio == pytest.approx(lengths[0] / lengths[1], abs=1e-6)
    ordered = sorted(found.tolist())
    assert fit.nearest.mean == ordered.count(0) / N
    assert fit.top10.mean == sum(rank < 10 for rank in ordered) / N
    assert fit.median_rank == ordered[(N - 1) // 2] + 1
    assert fit.to_dict()["top10"] == [fit.top10.mean, fit.top10.low, fit.top10.high]


def test_the_mean_row_scores_nothing_and_the_rows_themselves_everything() -> None:
    table, ids, _, _ = world()
    rows = table[ids]
    mean = rows.mean(0)
    nothing = score_predictions(mean.expand_as(rows).clone(), rows, mean, torch.arange(N), V)
    assert nothing.r2 == pytest.approx(0, abs=1e-6)
    every = score_predictions(rows, rows, mean, torch.zeros(N, dtype=torch.long), V)
    assert (every.r2, every.median_rank, every.unrelated) == (1, 1, 0)
    assert every.nearest.mean == every.top10.mean == 1
    assert every.norm_ratio == pytest.approx(1)
    assert every.cosine.mean == pytest.approx(1)
    worse = score_predictions(-rows, rows, mean, torch.full((N,), V - 1), V)
    assert worse.r2 < 0
    assert worse.unrelated == 1


def test_the_share_of_unrelated_rows() -> None:
    """Uniform ranks are all unrelated; of a mixture the share comes out."""
    draw = torch.Generator().manual_seed(3)
    size, count = 30_000, 20_000
    rows = torch.randn(count, 2, generator=draw)
    uniform = torch.randint(0, size, (count,), generator=draw)
    fit = score_predictions(rows, rows, rows.mean(0), uniform, size)
    assert fit.unrelated == pytest.approx(1, abs=0.02)
    for share in (0.0, 0.3):
        blend_rows = torch.where(torch.rand(count, generator=draw) < share, uniform, torch.zeros_like(uniform))
        assert score_predictions(rows, rows, rows.mean(0), blend_rows, size).unrelated == pytest.approx(share, abs=0.02)


def test_rows_in_doubt() -> None:
    assert doubtful(torch.tensor([0, 100, 101, 999]), 1000).tolist() == [False, False, True, True]


def test_one_token_has_no_interval_and_none_no_score() -> None:
    row = torch.ones(1, H)
    fit = score_predictions(row, row, torch.zeros(H), torch.zeros(1, dtype=torch.long), V)
    assert math.isnan(fit.cosine.low)
    assert fit.cosine.mean == pytest.approx(1)
    assert fit.tokens == 1
    with pytest.raises(ValueError, match="no token is left to look at; define more"):
        score_predictions(row[:0], row[:0], torch.zeros(H), torch.zeros(0, dtype=torch.long), V)


def test_rows_that_are_all_the_mean() -> None:
    rows = torch.ones(4, H)
    assert score_predictions(rows, rows, torch.ones(H), torch.zeros(4, dtype=torch.long), V).r2 == 0
    zero = torch.zeros(4, H)
    fit = score_predictions(zero, zero, torch.zeros(H), torch.zeros(4, dtype=torch.long), V)
    assert (fit.r2, fit.norm_ratio, fit.cosine.mean) == (0, 0, 0)
