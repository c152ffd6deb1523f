"""ScaleGrad: the softmax is renormalised so that tokens not yet used in the sequence must be learned harder.

Lin et al., "Straight to the Gradient: Learning to Use Novel Tokens for Neural Text Generation", ICML 2021,
arXiv 2106.07207, equations 4 to 6. With S the tokens that were targets earlier in the sequence:

    p~_i = s_i p_i / sum_j s_j p_j,     s_i = 1 if i in S else gamma
    dL/dz_i = p~_i - [i = y]

This is cross-entropy on logits to which log s is added. A constant on all logits changes no softmax, so adding
-log gamma to the few seen tokens is the same and touches T x T logits instead of T x V.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from decone.engines.contract import Shift, Tokens
from decone.objectives.base import Objective, require_finite


class ScaleGrad(Objective):
    """Cross-entropy in which the probability of tokens new to the sequence is multiplied by `gamma`.

    The seen tokens are earlier *targets* of the same sequence (or packed document), strictly before the position;
    ignored targets are not seen.

    Args:
        gamma: factor on novel tokens, in (0, 1]; 1 is plain cross-entropy. The paper takes 0.2 for open text.
        eps: what the authors' code adds to every scaled probability before it renormalises, >= 0; 1e-8 for parity
            with it, 0 is the paper. It caps the loss of improbable targets and takes the general, slower way.

    Raises:
        ValueError: gamma or eps is outside its range.

    Example:
        >>> hidden, weight = torch.zeros(1, 2, 4), torch.zeros(8, 4)
        >>> each = ScaleGrad(gamma=0.5)(hidden, weight, torch.tensor([[3, 3]]), reduction="none").tokens
        >>> each.exp()  # all novel: 1/8; then the seen target has 1 of 1 + 7/2
        tensor([[8.0000, 4.5000]])
    """

    paper: ClassVar[str] = "Lin et al. 2021, Straight to the Gradient, ICML, arXiv 2106.07207, equations 4 to 6"
    cures: ClassVar[str] = "dull, repetitive text: the model prefers tokens it has just used"
    cost: ClassVar[str] = "1"
    identity: ClassVar[dict[str, Any] | None] = {"gamma": 1.0}
    citation: ClassVar[str] = """@inproceedings{lin2021straight,
  title = {Straight to the Gradient: Learning to Use Novel Tokens for Neural Text Generation},
  author = {Lin, Xiang and Han, Simeng and Joty, Shafiq},
  booktitle = {Proceedings of the 38th International Conference on Machine Learning},
  year = {2021},
  note = {arXiv:2106.07207}
}"""
    history = True

    def __init__(self, gamma: float = 0.2, eps: float = 0.0) -> None:
        super().__init__()
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must lie in (0, 1], got {gamma}; 1 is plain cross-entropy")
        require_finite("eps", eps, "1e-8 is the authors' code, 0 the paper")
        self.gamma, self.eps = gamma, eps
        self.history = gamma != 1 or eps > 0

    @property
    def general(self) -> bool:
        return self.eps > 0

    def shift(self) -> Shift | None:
        return None if self.eps > 0 or self.gamma == 1 else Shift(earlier=-math.log(self.gamma))

    def adjust(self, logits: Tensor, tokens: Tokens) -> Tensor:
        chance = logits.softmax(1)
        return torch.log(torch.where(tokens.earlier_mask(), chance, self.gamma * chance) + self.eps)
