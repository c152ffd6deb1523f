"""The table of earlier targets and the charge for them, against the contract's target_logit lists."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.triton.cases import Steep

from decone.engines.contract import Tokens, position_costs
from decone.engines.sweep import charges_earlier
from decone.engines.triton.history import EarlierCharge, build_history, charge_earlier, pair_slopes
from decone.engines.triton.tiles import LogSum
from decone.objectives import MLE, Objective, get


def tokens(N: int, V: int, seed: int) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    sequence = (
        torch.randint(3, (N,), generator=draw) * 5
    )  # sequences need not be numbered without gaps, nor be in order
    offset = torch.randperm(N, generator=draw)
    return Tokens(torch.randint(V, (N,), generator=draw), sequence, offset).with_earlier(V)


@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 20))
def test_the_table_knows_who_is_seen(N: int, V: int, seed: int) -> None:
    given_tokens = tokens(N, V, seed)
    history = build_history(given_tokens, V)
    column = history.slot.long()
    rank = torch.where(column >= 0, history.rank[history.list_of][:, column.clamp(min=0)], 2**31 - 1)
    assert torch.equal(rank < history.length[:, None], given_tokens.earlier_mask())
    position, token, _ = given_tokens.pairs()
    start = history.length.long().cumsum(0) - history.length
    assert torch.equal(start[position] + rank[position, token], torch.arange(len(position)))  # the order of the pairs
    assert history.longest == int(history.length.max())


@pytest.mark.parametrize("pair_bytes", [1, 10**6])
@pytest.mark.parametrize("rule", [Steep(), get("unlikelihood")], ids=["steep", "unlikelihood"])
def test_charges_and_slopes(rule: Objective, pair_bytes: int) -> None:
    given_tokens, V = tokens(15, 6, 3), 6
    history = build_history(given_tokens, V)
    logits = torch.randn(15, V, generator=torch.Generator().manual_seed(0))
    logprob = logits.log_softmax(1).requires_grad_()
    cost = position_costs(rule, logprob, given_tokens)
    assert cost is not None
    assert cost.any()
    (slope,) = torch.autograd.grad(cost.sum(), logprob)
    assert given_tokens.earlier is not None
    earlier = given_tokens.earlier
    ids = earlier.token[(earlier.begin[:, None] + torch.arange(history.longest)).clamp(max=len(earlier.token) - 1)]
    inside = torch.arange(history.longest) < history.length[:, None]
    target_logit = logits.gather(1, given_tokens.target[:, None]).squeeze(1)
    pair_logit = torch.where(inside & (ids != given_tokens.target[:, None]), logits.gather(1, ids), -torch.inf)
    lse = logits.logsumexp(1)
    sums = LogSum(lse / 2, lse / 2)
    ours = charge_earlier(rule, given_tokens, pair_logit, target_logit, sums, True, pair_bytes)
    assert ours is not None
    torch.testing.assert_close(ours.cost, cost.detach())
    torch.testing.assert_close(ours.slope, torch.where(inside, slope.gather(1, ids), 0.0))
    torch.testing.assert_close(ours.total, slope.sum(1))
    torch.testing.assert_close(ours.target, slope.gather(1, given_tokens.target[:, None]).squeeze(1))
    silent = charge_earlier(rule, given_tokens, pair_logit, target_logit, sums, False, pair_bytes)
    assert silent is not None
    assert torch.equal(silent.cost, ours.cost)
    assert silent.slope.numel() == 0


def test_who_charges_is_known_without_a_pair() -> None:
    assert charges_earlier(Steep(), torch.zeros(()))
    assert not any(
        charges_earlier(rule, torch.zeros(())) for rule in (MLE(), get("scalegrad"), get("unlikelihood", alpha=0))
    )


def test_a_pair_that_has_nearly_all_the_probability_keeps_its_gradient() -> None:
    logits = torch.tensor([[9.0, -1.0, 0.5, 0.0], [0.0, 10.5, 0.3, 1.0]]).double().requires_grad_()
    logprob = logits.log_softmax(1)
    cost = -torch.log(-torch.expm1(logprob[:, :3])).sum(1)  # the last is the target
    (expected,) = torch.autograd.grad((cost - logprob[:, 3]).sum(), logits)
    pairs, highest = logits.detach().float()[:, :3], logits.detach().amax(1)
    remainder = torch.where(logits == highest[:, None], 0.0, (logits - highest[:, None]).exp()).sum(1).log1p()
    sums = LogSum(highest.float(), remainder.detach().float())
    chance = -sums.less(pairs.T).T
    slope = chance.exp() / -torch.expm1(chance)
    history = pair_slopes(EarlierCharge(slope.sum(1), slope, slope.sum(1), torch.zeros(2)), pairs, sums)
    torch.testing.assert_close(history.double(), expected[:, :3], rtol=2e-6, atol=1e-9)
