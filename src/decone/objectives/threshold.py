"""Thresholding: a non-target token whose logit lies more than a margin below the target's gets no push.

Turumtaev, "Stop Jostling: Adaptive Negative Sampling Reduces the Marginalization of Low-Resource Language Tokens by
Cross-Entropy Loss", arXiv 2601.22439, Algorithm 1:

    keep(i) = z_i >= z_y - margin        all other logits become -inf before the softmax

The threshold selects and carries no gradient, so dropped rows of the table get a gradient of exactly zero.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from decone.engines.contract import Tokens
from decone.objectives.base import Objective, require_choice


class Threshold(Objective):
    """Cross-entropy over the tokens within `margin` of the target.

    Args:
        margin: distance below the target's logit from which tokens are dropped, in logits, >= 0; inf is plain
            cross-entropy (Algorithm 1).
        temperature: factor T on the logits before the threshold and the loss, > 0; evaluation uses the raw logits
            (Section 4.3, "margin=1, T=0.46").
        alpha: replaces the margin by alpha times norms, >= 0 (Appendix B, Table 5).
        norms: which norms: "both" |w_y||h|, "target" |w_y|, "hidden" |h|.
        softminus: constant C > 0 of the smooth variant, which lowers every kept logit z to
            C log(exp((z - tau) / C) - 1) + tau with tau the threshold (Appendix G.1, Table 7); None is off.
        detach: no gradient through tau in softminus ("DT" in Table 7).
        below: "dropped" removes logits under the threshold; "detached" leaves their value in the softmax and only
            stops their gradient ("DUT", Appendix G.2, Table 8).

    Raises:
        ValueError: a setting is outside its range, or two exclude each other.

    Example:
        >>> hidden = torch.tensor([[1.0, 0.0]])
        >>> weight = torch.tensor([[2.0, 0.0], [1.5, 0.0], [-3.0, 0.0]], requires_grad=True)
        >>> Threshold(margin=1.0)(hidden, weight, torch.tensor([0])).mean().backward()
        >>> weight.grad[2]
        tensor([0., 0.])
    """

    paper: ClassVar[str] = "Turumtaev 2026, Stop Jostling, arXiv 2601.22439, Algorithm 1"
    cures: ClassVar[str] = "low-resource languages and rare tokens pushed into a cone"
    cost: ClassVar[str] = "1; less where most tokens are dropped"
    identity: ClassVar[dict[str, Any] | None] = {"margin": math.inf}
    citation: ClassVar[str] = """@misc{turumtaev2026stop,
  title = {Stop Jostling: Adaptive Negative Sampling Reduces the Marginalization of Low-Resource Language Tokens
           by Cross-Entropy Loss},
  author = {Turumtaev, Galim},
  year = {2026},
  note = {arXiv:2601.22439}
}"""

    def __init__(
        self,
        margin: float = 1.0,
        temperature: float = 1.0,
        alpha: float | None = None,
        norms: Literal["both", "target", "hidden"] = "both",
        softminus: float | None = None,
        detach: bool = False,
        below: Literal["dropped", "detached"] = "dropped",
    ) -> None:
        super().__init__()
        if not margin >= 0:
            raise ValueError(f"margin must be 0 or more, got {margin}; inf is plain cross-entropy")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}; 1 changes nothing")
        if alpha is not None and not alpha >= 0:
            raise ValueError(f"alpha must be 0 or more, got {alpha}; leave it out to use margin")
        require_choice("norms", norms, ("both", "target", "hidden"))
        require_choice("below", below, ("dropped", "detached"))
        if softminus is not None and not 0 < softminus < math.inf:
            raise ValueError(f"softminus must be positive and finite, got {softminus}; leave it out to switch it off")
        if softminus is not None and (below == "detached" or (margin if alpha is None else alpha) == math.inf):
            raise ValueError("softminus needs a finite margin and below='dropped'; change one of them")
        if detach and softminus is None:
            raise ValueError("detach acts on the threshold of softminus; add softminus, or leave detach out")
        if norms != "both" and alpha is None:
            raise ValueError(f"norms={norms} acts with alpha; add alpha, or leave norms out")
        self.margin, self.temperature, self.alpha, self.norms = margin, temperature, alpha, norms
        self.softminus, self.detach, self.below = softminus, detach, below
        self.vectors = alpha is not None

    @property
    def general(self) -> bool:
        return self.softminus is not None or self.below == "detached"

    def scale(self) -> float:
        return self.temperature

    def floor(self, target_logit: Tensor, tokens: Tokens) -> Tensor | None:
        return None if self.general else target_logit - self._margin(tokens, target_logit).detach()

    def adjust(self, logits: Tensor, tokens: Tokens) -> Tensor:
        target = tokens.target[:, None]
        floor = logits.gather(1, target) - self._margin(tokens, logits).view(-1, 1)
        above_floor = (logits >= floor).scatter(1, target, True)
        if self.softminus is None:
            return torch.where(above_floor, logits, logits.detach())
        floor = floor.detach() if self.detach else floor
        above_floor = (logits > floor).scatter(1, target, True)
        above = (logits - floor) / self.softminus
        # log(exp(x) - 1) without overflow, clamped as in the published code so that x -> 0 stays finite.
        log = torch.where(above > 1, above + torch.log(-torch.expm1(-above.clamp(min=1))), _log_expm1(above))
        return torch.where(above_floor, self.softminus * log + floor, -math.inf)

    def _margin(self, tokens: Tokens, logits: Tensor) -> Tensor:
        if self.alpha is None:
            return torch.full((1,), self.margin, device=logits.device, dtype=logits.dtype)
        assert tokens.hidden is not None and tokens.target_row is not None
        norm = torch.full((1,), self.alpha, device=tokens.target.device, dtype=tokens.hidden.dtype)
        if self.norms != "hidden":
            norm = norm * tokens.target_row.norm(dim=1)
        if self.norms != "target":
            norm = norm * tokens.hidden.norm(dim=1)
        return norm


def _log_expm1(x: Tensor) -> Tensor:
    # Not hardtanh: its gradient at exactly 1 is zero, and with C = margin that is where the target stands.
    return torch.expm1(x.clamp(-1.0, 1.0)).clamp(min=1e-9).log()
