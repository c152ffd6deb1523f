"""A penalty that holds the singular values of the table near a slow decay; not the method of the paper it follows.

After Wang et al., "Improving Neural Language Generation with Spectrum Control", ICLR 2020. With the K = min(V, H)
singular values s_1 >= s_2 >= ... of the table and a prescribed shape p:

    exponential  p_k = exp(-rate ((k - 1) / (K - 1))^power)        polynomial  p_k = k^-rate
    gamma  sum over k of (s_k - c p_k)^2  /  sum over k of s_k^2

What departs from the paper: there the table is a product U diag(s) V', its factors are parameters of their own, kept
near orthogonal by penalties, and the decay acts on the parameter s. Here the table stays one parameter and the penalty
acts on its singular values, so that nothing in the model changes. The division by the total, which makes gamma free of
the table's size, the fitted c, and counting k from 0 to 1 are ours too; the paper's constants do not carry over. Both
decays are stated here as this penalty's own; they have not been compared with the paper's equations.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from decone.engines.contract import upcast
from decone.objectives.base import Objective, require_choice, require_finite


class SpectrumPenalty(Objective):
    """Cross-entropy plus the relative squared distance of the table's singular values from a prescribed decay.

    Args:
        gamma: strength, >= 0; 0 is plain cross-entropy. With a fitted `scale` the distance lies between 0 and 1.
        decay: "exponential" or "polynomial".
        rate: how steep, >= 0; 0 asks for equal singular values. With "exponential", exp(-rate) is the smallest of
            them over the largest.
        power: bend of the exponential decay, > 0.
        scale: factor c, the largest singular value asked for, > 0; None takes the c that fits best, so that only the
            shape of the spectrum is prescribed.

    Raises:
        ValueError: a setting is outside its range.

    Example:
        >>> SpectrumPenalty(rate=0.0).matrix(5 * torch.eye(4, 3)).item()  # all singular values equal
        0.0
    """

    paper: ClassVar[str] = "after Wang et al. 2020, Spectrum Control, ICLR; a penalty instead of a reparametrisation"
    cures: ClassVar[str] = "a table dominated by a few directions"
    cost: ClassVar[str] = "1, and one H x H Gram matrix of the table per call"
    identity: ClassVar[dict[str, Any] | None] = {"gamma": 0.0}
    citation: ClassVar[str] = """@inproceedings{wang2020improving,
  title = {Improving Neural Language Generation with Spectrum Control},
  author = {Wang, Lingxiao and Huang, Jing and Huang, Kevin and Hu, Ziniu and Wang, Guangtao and Gu, Quanquan},
  booktitle = {International Conference on Learning Representations},
  year = {2020},
  url = {https://openreview.net/forum?id=ByxY8CNtvr}
}"""

    def __init__(
        self,
        gamma: float = 1.0,
        decay: Literal["exponential", "polynomial"] = "exponential",
        rate: float = 1.0,
        power: float = 1.0,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        require_finite("gamma", gamma, "0 is plain cross-entropy")
        require_choice("decay", decay, ("exponential", "polynomial"))
        require_finite("rate", rate, "0 asks for equal singular values")
        if not 0 < power < math.inf:
            raise ValueError(f"power must be positive and finite, got {power}; 1 is the plain exponential")
        if scale is not None and not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {scale}; leave it out to fit it")
        self.gamma, self.decay, self.rate, self.power, self.scale_to = gamma, decay, rate, power, scale

    def shape(self, K: int) -> Float[Tensor, " K"]:
        """The prescribed decay of K singular values, beginning at 1, in float64."""
        index = torch.arange(K, dtype=torch.float64)
        if self.decay == "polynomial":
            return (index + 1).pow(-self.rate)
        return torch.exp(-self.rate * (index / max(1, K - 1)).pow(self.power))

    def matrix(self, weight: Float[Tensor, "V H"]) -> Float[Tensor, ""]:
        if self.gamma == 0:
            return super().matrix(weight)
        rows = upcast(weight)
        values = singular_values(rows)
        shape = self.shape(values.numel()).to(values)
        # The best factor is where the distance is stationary, so it needs no gradient of its own.
        factor = (values.detach() @ shape) / (shape @ shape) if self.scale_to is None else self.scale_to
        distance = (values - factor * shape).pow(2).sum()
        total = values.pow(2).sum() if self.scale_to is None else (factor * shape).pow(2).sum()
        return (self.gamma * distance / total.clamp(min=torch.finfo(values.dtype).tiny)).to(rows.dtype)


def singular_values(table: Float[Tensor, "V H"]) -> Float[Tensor, " K"]:
    """All singular values, falling, by way of the smaller Gram matrix.

    Values below about 1e-8 of the largest in float64 (3e-4 in float32) are lost in rounding, which is why this is not
    for measuring; a full decomposition costs several times as much.
    """
    gram = table.T @ table if table.size(0) >= table.size(1) else table @ table.T
    if gram.device.type != "mps":
        gram = gram.double()
    square = torch.linalg.eigvalsh(gram).flip(0)
    # The root is steep at 0: what is only rounding there must not become a gradient.
    floor = square[0].detach().clamp(min=0) * torch.finfo(table.dtype).eps
    return torch.where(square > floor, square, floor + torch.finfo(square.dtype).tiny).sqrt()
