"""Gradient of a row of the output table, split into the pull of its own targets and the push of all others.

Turumtaev, "Stop Jostling", Sections 2 and 4.2: with G [N, V] the gradient of the logits and h [N, H] what the table
multiplies, row i of the table receives sum_t G_ti h_t. The positions whose target is i are its pull (target
alignment), all others its push (marginalisation). Nothing of size N x V x H is made.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 1 << 24  # entries alive at once beside the arguments


class Ratios(NamedTuple):
    """Pull over push, under both averages of Figure 3: mean over mean, mean of ratios; None where nothing is pushed."""

    of_average: float | None
    average_of: float | None


class PullPushNorms(NamedTuple):
    """Lengths of pull and push of each row, in the unit of the loss."""

    pull: Float[Tensor, " V"]
    push: Float[Tensor, " V"]  # by positions with other targets; at most the sum over classes
    push_by_class: Float[Tensor, "C V"]  # the same by class of the position's target


def pull_push_rows(
    slope: Float[Tensor, "N V"],
    hidden: Float[Tensor, "N H"],
    target: Int[Tensor, " N"],
    kind: Int[Tensor, " V"],
    classes: int,
    start: int = 0,
    stop: int | None = None,
) -> tuple[Float[Tensor, "R H"], Float[Tensor, "C R H"]]:
    """Splits the gradient of rows `start` to `stop` of the output table into pull and push by class of the target.

    `slope` is the gradient of the loss by the products hidden @ table.T, `kind` the class of each token in [0,
    classes). The sum of pull and push over classes is slope.T @ hidden.

    Raises:
        ValueError: the shapes do not fit, or a target or class is out of range.

    Example:
        >>> slope = torch.tensor([[0.2, -0.6, 0.4], [-0.5, 0.25, 0.25]])
        >>> pull, push = pull_push_rows(slope, torch.ones(2, 1), torch.tensor([1, 0]), torch.tensor([0, 1, 1]), 2)
        >>> pull.flatten().tolist(), push[0].flatten().tolist()
        ([-0.5, -0.6000000238418579, 0.0], [0.0, 0.25, 0.25])
    """
    _check(slope, hidden, target, kind, classes)
    stop = slope.shape[1] if stop is None else stop
    inside = ((target >= start) & (target < stop)).nonzero().squeeze(1)
    column = target[inside] - start
    pull = hidden.new_zeros(stop - start, hidden.shape[1])
    pull.index_add_(0, column, slope[inside, target[inside], None] * hidden[inside])
    remainder = slope[:, start:stop].clone()
    remainder[inside, column] = 0
    of_target = kind[target]
    return pull, torch.stack([remainder[of_target == c].T @ hidden[of_target == c] for c in range(classes)])


def pull_push_norms(
    slope: Float[Tensor, "N V"],
    hidden: Float[Tensor, "N H"],
    target: Int[Tensor, " N"],
    kind: Int[Tensor, " V"],
    classes: int,
) -> PullPushNorms:
    """Measures pull and push of every row, a block of rows at a time; arguments and errors as of `pull_push_rows`.

    Example:
        >>> slope = torch.tensor([[0.25, -0.5, 0.25], [-0.5, 0.25, 0.25]])
        >>> norms = pull_push_norms(slope, torch.ones(2, 1), torch.tensor([1, 0]), torch.tensor([0, 1, 1]), 2)
        >>> norms.pull.tolist(), norms.push.tolist()
        ([0.5, 0.5, 0.0], [0.25, 0.25, 0.5])
    """
    _check(slope, hidden, target, kind, classes)
    rows = max(1, BLOCK // (2 * slope.shape[0] + (classes + 2) * hidden.shape[1]))
    pulls, pushes, by_class = [], [], []
    for start in range(0, slope.shape[1], rows):
        stop = min(start + rows, slope.shape[1])
        pull, push = pull_push_rows(slope, hidden, target, kind, classes, start, stop)
        pulls.append(pull.norm(dim=1))
        pushes.append(push.sum(0).norm(dim=1))
        by_class.append(push.norm(dim=2))
    return PullPushNorms(torch.cat(pulls), torch.cat(pushes), torch.cat(by_class, dim=1))


def pull_to_push(pull: Float[Tensor, "S V"], push: Float[Tensor, "S V"]) -> Ratios:
    """Compares lengths of what pulls and what pushes some rows, by step and row ("Stop Jostling", Section 4.2).

    Pull is |g1| + |g2|, push |g3|. Averages are over steps and rows; for a single row both are the paper's. A step at
    which a row is not pushed has no ratio; there the row's average push over the steps stands in, which gives a lower
    bound (footnote 4). A row that is pushed at no step has no ratio at all and is left out of `average_of`.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> pull_to_push(torch.tensor([[2.0], [2.0]]), torch.tensor([[4.0], [0.0]]))
        Ratios(of_average=1.0, average_of=0.75)
    """
    if pull.shape != push.shape or pull.ndim != 2:
        raise ValueError(f"pull {tuple(pull.shape)} and push {tuple(push.shape)} must both be [steps, rows]")
    pull, push = pull.double(), push.double()
    total = push.sum()
    if pull.shape[0] == 0 or not bool(total > 0):
        return Ratios(None, None)
    mean = push.mean(0)
    pushed = mean > 0
    under = torch.where(push > 0, push, mean)[:, pushed]
    return Ratios(float(pull.sum() / total), float((pull[:, pushed] / under).mean()))


def _check(slope: Tensor, hidden: Tensor, target: Tensor, kind: Tensor, classes: int) -> None:
    if slope.ndim != 2 or hidden.ndim != 2 or not slope.shape[0] == hidden.shape[0] == target.numel():
        raise ValueError(
            f"slope {tuple(slope.shape)}, hidden {tuple(hidden.shape)} and target {tuple(target.shape)} must be "
            "[N, V], [N, H] and [N]; flatten them"
        )
    if kind.shape != slope.shape[1:]:
        raise ValueError(f"kind {tuple(kind.shape)} must hold one class per token, [{slope.shape[1]}]")
    for name, values, end in (("target", target, slope.shape[1]), ("kind", kind, classes)):
        if values.numel() and (int(values.min()) < 0 or int(values.max()) >= end):
            raise ValueError(f"{name} runs from {int(values.min())} to {int(values.max())}, not in 0 to {end - 1}")
