"""Histograms of cosines against loops over all pairs."""

import itertools

import numpy as np
import pytest
import torch

from decone.diagnosis.cosine_sample import histograms


def units(size: int, width: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(
        torch.randn(size, width, generator=torch.Generator().manual_seed(seed)) + 0.4, dim=1
    )


def test_few_pairs_are_all_counted_once() -> None:
    rows = {"frequent": units(9, 5, 0), "rare": units(7, 5, 1)}
    found = {histogram.groups: histogram.counts for histogram in histograms({k: [v] for k, v in rows.items()})}
    assert list(found) == [("frequent", "frequent"), ("frequent", "rare"), ("rare", "rare")]
    for (first, second), counts in found.items():
        pairs = itertools.combinations(rows[first], 2) if first == second else itertools.product(*rows.values())
        cosine = [float(a @ b) for a, b in pairs]
        assert counts == np.histogram(cosine, bins=80, range=(-1, 1))[0].tolist()


def test_many_pairs_are_sampled_evenly_and_by_seed() -> None:
    rows = {"frequent": [units(400, 3, 0), units(300, 3, 2)], "rare": [units(500, 3, 1)]}
    found = histograms(rows, seed=4)
    assert found == histograms(rows, seed=4) != histograms(rows, seed=5)
    whole = {name: torch.cat(parts) for name, parts in rows.items()}
    for histogram in found:
        assert sum(histogram.counts) == 20_000
        assert len(histogram.counts) == 80
        first, second = (whole[name] for name in histogram.groups)
        cosine = first @ second.T
        if histogram.groups[0] == histogram.groups[1]:
            cosine = cosine[~torch.eye(len(cosine), dtype=torch.bool)]
        share = np.histogram(cosine.flatten(), bins=80, range=(-1, 1))[0] / cosine.numel()
        assert np.array(histogram.counts) / 20_000 == pytest.approx(share, abs=0.012)


def test_a_row_is_never_paired_with_itself() -> None:
    [found] = histograms({"rare": [torch.eye(300)]})
    assert sum(found.counts) == 20_000
    assert found.counts[40] == 20_000  # all at right angles


def test_what_has_no_pair_is_left_out() -> None:
    found = histograms({"frequent": [torch.eye(3)[:1]], "rare": [], "special": [torch.eye(3)[1:2]]})
    assert [histogram.groups for histogram in found] == [("frequent", "special")]
    assert histograms({}) == []


def test_cosines_beyond_one_by_rounding_are_counted() -> None:
    [found] = histograms({"rare": [torch.full((2, 3), 0.57735034)]})
    assert sum(found.counts) == 1
    assert found.counts[-1] == 1
