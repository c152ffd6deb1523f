"""Groups of nearly equal rows, and the original among equal ones."""

import torch

from decone.diagnosis.suspects import join_clusters, near_clusters, originals
from decone.models.tables import MemoryTable


def test_groups_within_one_percent() -> None:
    weight = torch.randn(60, 16)
    weight[7] = weight[3] + 1e-3 * torch.randn(16)
    weight[9] = weight[3] - 1e-3 * torch.randn(16)
    weight[20] = weight[30] * 1.2
    ids = torch.arange(60)
    found = near_clusters(MemoryTable("w", weight), ids, weight[:, :8].double(), weight.norm(dim=1).double())
    assert found == [[3, 7, 9]]


def test_rows_apart_in_unsearched_directions_are_told_apart() -> None:
    weight = torch.randn(30, 16)
    weight[4, :8] = weight[5, :8]
    places, norm = weight[:, :8].double(), weight.norm(dim=1).double()
    assert near_clusters(MemoryTable("w", weight), torch.arange(30), places, norm) == []


def test_joined_clusters_keep_every_row_once() -> None:
    assert join_clusters([[1, 2], [5, 6, 7]], [[2, 6], [8, 9]]) == [[1, 2, 5, 6, 7], [8, 9]]
    assert join_clusters([], []) == []


def test_the_original_is_the_row_that_suits_its_token() -> None:
    rank = torch.arange(1, 801)
    direction = torch.randn(24)
    weight = torch.randn(800, 24) + 4 * rank.log()[:, None] * direction / direction.norm()
    tokens = [("##" if row % 3 else "") + "abc"[row % 3] for row in range(800)]
    weight += 2 * torch.tensor([[token.startswith("##")] for token in tokens]) * torch.randn(24)
    pairs = [(row, 799 - row) for row in range(40)]
    for original, copy in pairs:
        weight[copy] = weight[original]
    shares = originals(MemoryTable("w", weight), pairs, tokens, rank, torch.arange(800))
    assert sum(shares[original] > 0.5 for original, _ in pairs) >= 32
    assert all(abs(shares[a] + shares[b] - 1) < 1e-9 for a, b in pairs)


def test_too_few_rows_to_learn_from() -> None:
    weight = torch.ones(4, 8)
    found = originals(MemoryTable("w", weight), [[0, 1]], list("abcd"), torch.arange(1, 5), torch.arange(4))
    assert found == {0: 0.5, 1: 0.5}
