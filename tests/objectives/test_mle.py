"""Plain cross-entropy, and thresholding with an infinite margin, against the cross-entropy of torch."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from decone.objectives import MLE, Objective, Threshold

OBJECTIVES = [MLE(), Threshold(margin=math.inf), Threshold(margin=math.inf, below="detached")]
FORMATS = [torch.float64, torch.float32]


def sample(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    hidden, weight = torch.randn(4, 11, 16, generator=draw).to(dtype), torch.randn(50, 16, generator=draw).to(dtype)
    target = torch.randint(50, (4, 11), generator=draw)
    target[target % 5 == 0] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randn(50, generator=draw).to(dtype), target


def ulps(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference in units of the last place of the largest number."""
    return ((ours - theirs).abs().max() / (theirs.abs().max() * torch.finfo(theirs.dtype).eps)).item()


@pytest.mark.parametrize("engine", ["reference", "chunked"])
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_each_loss_equals_cross_entropy_to_the_last_digits(
    objective: Objective, dtype: torch.dtype, engine: str
) -> None:
    hidden, weight, bias, target = sample(dtype)
    counted = target != -100
    loss = objective(hidden, weight, target, bias=bias, engine=engine, reduction="none")
    plain = F.cross_entropy(F.linear(hidden[counted], weight, bias), target[counted], reduction="none")
    # Chunked takes the target's logit off before exp, and the sum without it: other roundings, none of them larger.
    assert torch.equal(loss.tokens[counted], plain) if engine == "reference" else ulps(loss.tokens[counted], plain) <= 2
    assert not loss.tokens[~counted].any()


@pytest.mark.parametrize("engine", ["reference", "chunked", "one-row"])
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_mean_and_gradients_equal_cross_entropy_to_the_last_digits(
    objective: Objective, dtype: torch.dtype, engine: str
) -> None:
    hidden, weight, bias, target = sample(dtype)
    loss = objective(hidden, weight, target, bias=bias, engine=engine)
    ours = torch.autograd.grad(loss.mean(), (hidden, weight))
    plain = F.cross_entropy(F.linear(hidden, weight, bias).flatten(0, 1), target.flatten())
    theirs = torch.autograd.grad(plain, (hidden, weight))
    assert ulps(loss.mean().detach(), plain.detach()) <= 2
    assert loss.nll is not None
    assert ulps(loss.nll / loss.count, plain.detach()) <= 2
    for mine, other in zip(ours, theirs, strict=True):
        # Chunked divides by the count at the end; one row at a time, the logits too are summed in another order.
        assert ulps(mine, other) <= {"reference": 2, "chunked": 4, "one-row": 8}[engine]


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    loss = MLE()(torch.zeros(3, 2), torch.zeros(7, 2), torch.tensor([0, 6, 3]))
    assert loss.mean().item() == pytest.approx(math.log(7))
