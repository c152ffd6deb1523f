"""How wrong a way is, against float64 on a small version of the workload, and which zeros of the gradient differ.

A few hard targets keep nearly every row of the table alive, and a pattern without zeros proves nothing. So zeros are
compared a second time on the easiest targets of the sample alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .ways import Call, Way, objective
from .workloads import Inputs

EASIEST = 32


class Found(NamedTuple):
    """The loss and its gradients."""

    loss: Tensor
    hidden: Tensor
    weight: Tensor


def samples(inputs: Inputs) -> list[Inputs]:
    """Small inputs, and the easiest targets among them as a sequence of their own."""
    hidden, target = inputs.hidden.flatten(0, 1), inputs.target.flatten()
    logits = hidden.double() @ inputs.weight.double().T
    nll = logits.logsumexp(1) - logits.gather(1, target[:, None]).squeeze(1)
    easy = nll.argsort()[:EASIEST].sort().values
    return [inputs, Inputs(hidden[easy][None], inputs.weight, target[easy][None])]


def gradients(call: Call, inputs: Inputs) -> Found:
    """What a call gives."""
    leaves = inputs.fresh()
    loss = call(leaves)
    loss.backward()
    assert leaves.hidden.grad is not None and leaves.weight.grad is not None
    return Found(loss.detach(), leaves.hidden.grad, leaves.weight.grad)


def truth(way: Way, inputs: Inputs) -> Found:
    """What a way should give: our readable engine on the same values in float64."""
    rule = objective(way)
    wide = Inputs(inputs.hidden.double(), inputs.weight.double(), inputs.target)
    return gradients(lambda given: rule(*given, engine="reference", nll=False).mean(), wide)


def judge(make: Callable[[], Call], right: list[Found], given: list[Inputs]) -> dict[str, Any]:
    """Compares a way with the truth.

    Args:
        make: builds the way's function, anew for each sample: bookkeeping must not remember the one before.
        right: the truth of each sample.
        given: the samples.

    Returns:
        errors: largest error of loss, hidden and weight gradient on the first sample, over the largest true entry.
        zeros_differ: entries of the table's gradient that are zero in one alone, in all samples together.
        zeros: how many there are in truth.
        repeats: whether a second run gives the same bits.
    """
    found = [gradients(make(), inputs) for inputs in given]
    again = gradients(make(), given[0])
    pairs = zip(Found._fields, found[0], right[0], strict=True)
    errors = {name: float((mine.double() - true).abs().max() / true.abs().max()) for name, mine, true in pairs}
    both = list(zip(found, right, strict=True))
    differ = sum(int(torch.ne(mine.weight == 0, true.weight == 0).sum()) for mine, true in both)
    return {
        "errors": errors,
        "zeros_differ": differ,
        "zeros": sum(int((true.weight == 0).sum()) for _, true in both),
        "repeats": all(torch.equal(mine, other) for mine, other in zip(found[0], again, strict=True)),
    }
