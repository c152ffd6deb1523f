"""Planted states are as hard as asked, equal seeds give equal inputs, and shares of live columns are counted right."""

from dataclasses import replace

import pytest
import torch
from benchmarks.engines_bench.workloads import BLOCK, HARDEST, WORKLOADS, Inputs, Workload, generate, sparsity

SMALL = replace(WORKLOADS["W1"], B=8, T=128, H=64, V=1024)


def likelihoods(inputs: Inputs) -> torch.Tensor:
    logits = inputs.hidden.flatten(0, 1).double() @ inputs.weight.double().T
    return -logits.log_softmax(1).gather(1, inputs.target.flatten()[:, None]).squeeze(1)


def test_planted_targets_are_as_hard_as_asked() -> None:
    """A Gamma law of shape 0.8: its mean, its variance (mean squared over shape), most of it far below the mean."""
    nll = likelihoods(generate(replace(SMALL, B=32)))
    assert nll.mean().item() == pytest.approx(3.3, rel=0.05)
    assert nll.var().item() == pytest.approx(3.3**2 / 0.8, rel=0.15)
    assert nll.median().item() == pytest.approx(2.0, rel=0.1)
    assert nll.min() > 0
    assert nll.max() < HARDEST + 0.01


def test_hardness_is_hit_for_each_target_and_not_on_average_alone() -> None:
    """The same seed draws the same law for any mean, so likelihoods must be exact multiples of each other."""
    easy, hard = (likelihoods(generate(replace(SMALL, mean_nll=mean))) for mean in (1.0, 2.0))
    middle = (easy > 0.01) & (hard < 10)
    assert torch.allclose(2 * easy[middle], hard[middle], rtol=1e-3)


def test_equal_seeds_give_equal_inputs() -> None:
    first, again, other = generate(SMALL), generate(SMALL), generate(replace(SMALL, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.target, other.target)


def test_an_untrained_model_keeps_every_column() -> None:
    found = sparsity(generate(replace(SMALL, states="untrained", H=256)), [1.0])
    assert found["margins"]["1"]["live_sorted"] > 0.999


def test_shares_are_counted_as_a_loop_counts_them() -> None:
    inputs, margin = generate(replace(SMALL, B=3, T=100, V=256)), 1.0  # the last block is shorter
    logits = (inputs.hidden.flatten(0, 1) @ inputs.weight.T).tolist()
    own = [logits[n][y] for n, y in enumerate(inputs.target.flatten().tolist())]
    rows = [[v for v in range(256) if logits[n][v] >= own[n] - margin] for n in range(len(own))]
    order = sorted(range(len(own)), key=lambda n: own[n])
    found = sparsity(inputs, [margin])["margins"]["1"]
    assert found["density"] == pytest.approx(sum(map(len, rows)) / len(rows) / 256, abs=1e-4)
    for name, those in (("live_stream", list(range(len(own)))), ("live_sorted", order)):
        blocks = [those[start : start + BLOCK] for start in range(0, len(those), BLOCK)]
        live = sum(len(block) * len({v for n in block for v in rows[n]}) for block in blocks) / len(own) / 256
        assert found[name] == pytest.approx(live, abs=2e-3), name
    assert found["live_sorted"] < found["live_stream"]


def test_harder_targets_keep_more() -> None:
    shares = [sparsity(generate(replace(SMALL, mean_nll=m)), [1.0])["margins"]["1"]["live_sorted"] for m in (0.5, 2, 6)]
    assert shares == sorted(shares)
    assert shares[0] < 0.5 * shares[2]


def test_trained_states_are_not_made_up() -> None:
    with pytest.raises(ValueError, match="trained"):
        generate(WORKLOADS["W2"])


@pytest.mark.parametrize("load", WORKLOADS.values(), ids=WORKLOADS)
def test_smaller_sizes_keep_the_kind(load: Workload) -> None:
    assert load.smaller().N * load.smaller().V <= 0.11 * load.N * load.V
    assert load.smaller().quick
    assert load.reduced().dtype == load.dtype
    assert load.reduced().N == 256
