"""Contrastive weight tying: the softmax runs over the targets of the batch instead of the vocabulary.

Godey, de la Clergerie and Sagot, "Headless Language Models: Learning without Predicting with Contrastive Weight
Tying", ICLR 2024, arXiv 2309.08351. With all N counted targets of the call as candidates, duplicates included:

    L_i = -log( exp(h_i . w_{y_i}) / sum_j exp(h_i . w_{y_j}) )

A token that is the target of c positions enters the sum c times. So each distinct target is scored once and log c is
added to its logit, which costs N x U instead of N x N, and never more than the whole vocabulary.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from decone.engines.contract import Engine, Evaluation, Request, Tokens, upcast
from decone.objectives.base import Objective


class ContrastiveTying(Objective):
    """Cross-entropy among the targets of the call, each as often as it occurs.

    Rows of the table that are no target of the call get a gradient of exactly zero. The candidates are those of one
    call: micro-batches have candidates of their own, and a call with one counted target has nothing to learn. The
    plain NLL for logs needs the whole vocabulary once, without gradient; `nll=False` saves it.

    Example:
        >>> hidden, weight = torch.zeros(4, 2), torch.zeros(8, 2)
        >>> ContrastiveTying()(hidden, weight, torch.tensor([1, 2, 2, 5])).mean()  # one of four, whatever V is
        tensor(1.3863)
    """

    paper: ClassVar[str] = "Godey et al. 2024, Headless Language Models, ICLR, arXiv 2309.08351"
    cures: ClassVar[str] = "push on rows that do not occur; the cost of a large vocabulary"
    cost: ClassVar[str] = "distinct targets of the call / vocabulary"
    identity: ClassVar[dict[str, Any] | None] = None
    citation: ClassVar[str] = """@inproceedings{godey2024headless,
  title = {Headless Language Models: Learning without Predicting with Contrastive Weight Tying},
  author = {Godey, Nathan and de la Clergerie, {\\'E}ric and Sagot, Beno{\\^i}t},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  note = {arXiv:2309.08351}
}"""

    def evaluate(
        self,
        hidden: Float[Tensor, "N H"],
        weight: Float[Tensor, "V H"],
        bias: Float[Tensor, " V"] | None,
        tokens: Tokens,
        *,
        engine: Engine,
        request: Request,
    ) -> Evaluation:
        ids, index, count = torch.unique(tokens.target, return_inverse=True, return_counts=True)
        log_count = count.to(upcast(hidden[:0]).dtype).log()
        result = engine(
            hidden,
            weight[ids],
            None if bias is None else bias[ids],
            replace(tokens, target=index),
            _Multiplicity(log_count),
            replace(request, nll=False),
        )
        # The logit of the target itself is meant without the multiplicity.
        excess = log_count[index] if tokens.importance is None else log_count[index] * tokens.importance
        nll = None
        if request.nll:
            with torch.no_grad():
                plain_request = Request(per_token=True, readout=request.readout)
                nll = engine(hidden, weight, bias, tokens, Objective(), plain_request).nll
        return result._replace(loss=result.loss + (excess if request.per_token else excess.sum()), nll=nll)


class _Multiplicity(Objective):
    """Adds the logarithm of the number of times that each candidate occurs, in the precision of the logits."""

    def __init__(self, log_count: Tensor) -> None:
        super().__init__()
        self.log_count = log_count

    def adjust(self, logits: Tensor, tokens: Tokens) -> Tensor:
        return logits + self.log_count
