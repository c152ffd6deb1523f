"""Log-sum-exps in two parts, against float64."""

import torch

from decone.engines.triton.log_sum import LogSum, log_sum


def join(logits: torch.Tensor, target: torch.Tensor | None, filled: torch.Tensor) -> LogSum:
    """What tiles of three columns would hand over, with the greatest's 1 left out."""
    tiles = torch.stack(logits.split(3, 1))
    top = tiles.amax(2)
    below = tiles.scatter(2, tiles.argmax(2, keepdim=True), -torch.inf)
    beyond = (below - torch.where(top == -torch.inf, 0.0, top)[..., None]).double().exp().sum(2).float()
    return log_sum(top, beyond, filled, target)


def test_an_offset_costs_no_digits() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(20, 12, generator=draw), torch.randn(20, generator=draw)
    filled = torch.arange(20) < 18
    logits, target = ((t * 64).round() / 64 + 4096.0 for t in (logits, target))  # exact in float32 with the offset
    total = join(logits, target, filled)
    complete = torch.cat((logits, target[:, None]), 1).double().logsumexp(1)
    torch.testing.assert_close(total.less(target).double()[:18], (complete - target)[:18], rtol=3e-7, atol=3e-7)
    torch.testing.assert_close(total.value().double()[:18], complete[:18])
    assert not total.value()[18:].any()
    assert not total.select(slice(18, 20)).remainder.any()


def test_the_others_are_seen_beside_a_giant() -> None:
    logits = torch.tensor([[20.0, 0.0, 1.0, 0.5, -3.0, 2.0], [0.0, 1.0, -1.0, 2.0, -2.0, 20.0]])
    for target in (None, torch.tensor([3.0, -1.0]), torch.tensor([40.0, 40.0])):
        total = join(logits, target, torch.ones(2, dtype=torch.bool))
        complete = logits.double() if target is None else torch.cat((logits, target[:, None]), 1).double()
        giant = complete.amax(1, keepdim=True)
        exact = torch.where(complete == giant, 0.0, (complete - giant).exp()).sum(1).log1p()
        torch.testing.assert_close(total.remainder.double(), exact, rtol=1e-6, atol=0)


def test_ties_and_rows_that_keep_nothing() -> None:
    logits = torch.tensor([[1.0, 1.0, -torch.inf, 1.0, 0.0, 1.0], [-torch.inf] * 6])
    total = join(logits, None, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(total.value(), logits.logsumexp(1))
    with_target = join(logits, torch.tensor([1.0, 5.0]), torch.ones(2, dtype=torch.bool))
    assert with_target.less(torch.tensor([1.0, 5.0]))[1] == 0
