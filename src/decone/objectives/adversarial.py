"""Adversarial output noise: the target's row is moved against the hidden state, as far as a radius allows.

Wang, Gong and Liu, "Improving Neural Language Modeling via Adversarial Training", ICML 2019, arXiv 1906.03805. The
worst noise of length eps on the target's row w_y has a closed form: it lowers the target's logit by eps |h|.

    z_y <- z_y - eps |h|
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from decone.engines.contract import Tokens
from decone.objectives.base import Objective, require_choice, require_finite


class Adversarial(Objective):
    """Cross-entropy with the target's logit lowered by a radius times the length of the hidden state.

    Args:
        alpha: size of the noise, >= 0; 0 is plain cross-entropy. 0.005 is what the runs behind Table 5 of arXiv
            2601.22439 take (the table itself says 0.05).
        radius: "relative": eps = alpha |w_y|, without gradient, the form of those runs; "aligned": the same, but
            only where w_y and h point the same way (a positive cosine), as in the published code of Wang et al. 2019;
            "fixed": eps = alpha, the theorem as it stands.

    Raises:
        ValueError: alpha is outside its range, or radius is not known.

    Example:
        >>> hidden, weight = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
        >>> Adversarial(alpha=0.8)(hidden, weight, torch.tensor([1])).mean()  # logits 0 and 4 - 0.8 * 1 * 5
        tensor(0.6931)
    """

    paper: ClassVar[str] = "Wang et al. 2019, Improving Neural Language Modeling via Adversarial Training, 1906.03805"
    cures: ClassVar[str] = "embeddings that crowd together; overfitting"
    cost: ClassVar[str] = "1.3; autograd on each chunk of logits"
    identity: ClassVar[dict[str, Any] | None] = {"alpha": 0.0}
    citation: ClassVar[str] = """@inproceedings{wang2019improving,
  title = {Improving Neural Language Modeling via Adversarial Training},
  author = {Wang, Dilin and Gong, Chengyue and Liu, Qiang},
  booktitle = {Proceedings of the 36th International Conference on Machine Learning},
  pages = {6555--6565},
  year = {2019},
  note = {arXiv:1906.03805}
}"""
    vectors = True

    def __init__(self, alpha: float = 0.005, radius: Literal["relative", "aligned", "fixed"] = "relative") -> None:
        super().__init__()
        require_finite("alpha", alpha, "0 is plain cross-entropy")
        require_choice("radius", radius, ("relative", "aligned", "fixed"))
        self.alpha, self.radius = alpha, radius

    @property
    def general(self) -> bool:
        return self.alpha > 0

    def adjust(self, logits: Tensor, tokens: Tokens) -> Tensor:
        assert tokens.hidden is not None and tokens.target_row is not None
        eps = torch.full_like(tokens.hidden[:, 0], self.alpha)
        row = tokens.target_row.detach()
        if self.radius != "fixed":
            eps = eps * row.norm(dim=1)
        if self.radius == "aligned":
            eps = eps * ((tokens.hidden.detach() * row).sum(1) > 0)
        return logits.scatter_add(1, tokens.target[:, None].long(), -(eps * tokens.hidden.norm(dim=1))[:, None])
