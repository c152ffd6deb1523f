"""Cosine regularisation: the mean cosine between any two rows of the table is a cost.

Gao et al., "Representation Degeneration Problem in Training Natural Language Generation Models", ICLR 2019, arXiv
1907.12009; also a baseline of arXiv 2601.22439, Table 5. With u_i = w_i / |w_i| and V rows:

    gamma / V^2  sum over i, j != i of u_i . u_j  =  gamma / V^2  (|sum over i of u_i|^2 - V)

The right side needs one vector besides the normalised rows instead of V x V cosines.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from decone.engines.contract import upcast
from decone.objectives.base import Objective, require_finite


class CosReg(Objective):
    """Cross-entropy plus gamma times the mean cosine between different rows of the table.

    A row of zeros has no direction: its cosine with every row is 0, and it receives no gradient.

    Args:
        gamma: strength, >= 0; 0 is plain cross-entropy, 1 is the paper's.

    Raises:
        ValueError: gamma is negative or not finite.

    Example:
        >>> CosReg().matrix(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]]))  # one pair of three points one way
        tensor(0.2222)
    """

    paper: ClassVar[str] = "Gao et al. 2019, Representation Degeneration Problem, ICLR, arXiv 1907.12009"
    cures: ClassVar[str] = "rows of the table that all point one way"
    cost: ClassVar[str] = "1, and one pass over the table per call"
    identity: ClassVar[dict[str, Any] | None] = {"gamma": 0.0}
    citation: ClassVar[str] = """@inproceedings{gao2019representation,
  title = {Representation Degeneration Problem in Training Natural Language Generation Models},
  author = {Gao, Jun and He, Di and Tan, Xu and Qin, Tao and Wang, Liwei and Liu, Tie-Yan},
  booktitle = {International Conference on Learning Representations},
  year = {2019},
  note = {arXiv:1907.12009}
}"""

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        require_finite("gamma", gamma, "0 is plain cross-entropy")
        self.gamma = gamma

    def matrix(self, weight: Float[Tensor, "V H"]) -> Float[Tensor, ""]:
        if self.gamma == 0:
            return super().matrix(weight)
        rows = upcast(weight)
        # The largest entry is divided out first, so that the squares of a norm neither overflow nor vanish.
        largest = rows.detach().abs().amax(1, keepdim=True)
        nonzero = largest > 0
        rows = rows / torch.where(nonzero, largest, 1.0)
        square = rows.pow(2).sum(1, keepdim=True)
        unit = torch.where(nonzero, rows * torch.where(nonzero, square, 1.0).rsqrt(), 0.0)
        return self.gamma * (unit.sum(0).pow(2).sum() - nonzero.sum()) / weight.size(0) ** 2
