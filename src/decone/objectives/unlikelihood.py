"""Unlikelihood: beside the target's likelihood, earlier tokens are made unlikely to come again.

Welleck et al., "Neural Text Generation with Unlikelihood Training", ICLR 2020, arXiv 1908.04319, token level; the same
as equation 2 of arXiv 2106.07207. With C the earlier targets of the sequence, as a set, without the target itself:

    L = -log p_y - alpha sum_{c in C} log(1 - p_c)
    dL/dz_i = p_i - [i = y] + alpha (r_i - p_i sum_c r_c),   r_c = p_c / (1 - p_c) for c in C, else 0
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from decone.engines.contract import Pairs
from decone.objectives.base import Objective, require_finite


class Unlikelihood(Objective):
    """Cross-entropy plus a charge for the probability of tokens that were targets before.

    Args:
        alpha: weight of the charge, >= 0; 0 is plain cross-entropy, 1 the papers'.
        clamp: least value of 1 - p under the logarithm, in (0, 1); below it a token is charged -log clamp and gets no
            gradient from the charge, as in the authors' code.
        flatten: earlier targets of *all* sequences of the call count, in their order, as in the authors' code on a
            batch of several sequences. Not what the paper says; documents are ignored too.

    Raises:
        ValueError: alpha or clamp is outside its range.

    Example:
        >>> hidden, weight = torch.zeros(1, 2, 4), torch.zeros(8, 4)
        >>> each = Unlikelihood()(hidden, weight, torch.tensor([[3, 5]]), reduction="none").tokens
        >>> each.exp()  # 1/p, then also 1/(1 - p) for token 3
        tensor([[8.0000, 9.1429]])
    """

    paper: ClassVar[str] = "Welleck et al. 2020, Neural Text Generation with Unlikelihood Training, arXiv 1908.04319"
    cures: ClassVar[str] = "repetition of tokens used before"
    cost: ClassVar[str] = "1"
    identity: ClassVar[dict[str, Any] | None] = {"alpha": 0.0}
    citation: ClassVar[str] = """@inproceedings{welleck2020neural,
  title = {Neural Text Generation with Unlikelihood Training},
  author = {Welleck, Sean and Kulikov, Ilia and Roller, Stephen and Dinan, Emily and Cho, Kyunghyun and Weston, Jason},
  booktitle = {International Conference on Learning Representations},
  year = {2020},
  note = {arXiv:1908.04319}
}"""
    history = True

    def __init__(self, alpha: float = 1.0, clamp: float = 1e-5, flatten: bool = False) -> None:
        super().__init__()
        require_finite("alpha", alpha, "0 is plain cross-entropy")
        if not 0 < clamp < 1:
            raise ValueError(f"clamp must lie in (0, 1), got {clamp}; 1e-5 is the authors'")
        self.alpha, self.clamp, self.whole_batch = alpha, clamp, flatten
        self.history = alpha != 0

    def charge(self, logprob: Tensor, pairs: Pairs) -> Tensor | None:
        if self.alpha == 0:
            return None
        # 1 - p without cancellation: -expm1(log p).
        cost = -self.alpha * torch.log((-torch.expm1(logprob)).clamp(min=self.clamp))
        return torch.where(pairs.token == pairs.target, 0.0, cost)
