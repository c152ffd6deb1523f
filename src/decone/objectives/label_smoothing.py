"""Label smoothing: a share of every target is spread over the vocabulary.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, arXiv 1512.00567, Section 7:

    L = -(1 - eps) log p_y - eps / V sum_k log p_k
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from decone.engines.contract import Tokens
from decone.objectives.base import Objective


class LabelSmoothing(Objective):
    """Cross-entropy against a target mixed with the uniform distribution.

    The uniform share goes to tokens that can be predicted at all: dropped logits and columns masked by a bias of -inf
    take no part, else the loss would be infinite.

    Args:
        eps: share of the uniform distribution, in [0, 1); 0 is plain cross-entropy.

    Raises:
        ValueError: eps is outside its range.

    Example:
        >>> LabelSmoothing(eps=0.1)(torch.zeros(1, 4), torch.zeros(8, 4), torch.tensor([3])).mean()
        tensor(2.0794)
    """

    paper: ClassVar[str] = "Szegedy et al. 2016, Rethinking the Inception Architecture, arXiv 1512.00567, Section 7"
    cures: ClassVar[str] = "overconfidence"
    cost: ClassVar[str] = "1.6; autograd on each chunk of logits"
    identity: ClassVar[dict[str, Any] | None] = {"eps": 0.0}
    citation: ClassVar[str] = """@inproceedings{szegedy2016rethinking,
  title = {Rethinking the Inception Architecture for Computer Vision},
  author = {Szegedy, Christian and Vanhoucke, Vincent and Ioffe, Sergey and Shlens, Jon and Wojna, Zbigniew},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {2818--2826},
  year = {2016},
  note = {arXiv:1512.00567}
}"""

    def __init__(self, eps: float = 0.1) -> None:
        super().__init__()
        if not 0 <= eps < 1:
            raise ValueError(f"eps must lie in [0, 1), got {eps}; 0 is plain cross-entropy")
        self.eps = eps

    @property
    def general(self) -> bool:
        return self.eps > 0

    def extra(self, logprob: Tensor, tokens: Tokens) -> Tensor | None:
        possible = logprob.detach() > -torch.inf
        mean = torch.where(possible, logprob, 0.0).sum(1) / possible.sum(1)
        return self.eps * (logprob.gather(1, tokens.target[:, None].long()).squeeze(1) - mean)
