"""Plain cross-entropy: maximum likelihood, the identity that every other objective reduces to."""

from typing import Any, ClassVar

from decone.objectives.base import Objective


class MLE(Objective):
    """Plain cross-entropy over the whole vocabulary.

    Example:
        >>> import torch
        >>> MLE()(torch.zeros(1, 4), torch.zeros(8, 4), torch.tensor([3])).mean()
        tensor(2.0794)
    """

    paper: ClassVar[str] = "the baseline of every paper"
    cures: ClassVar[str] = "nothing; the baseline"
    cost: ClassVar[str] = "1"
    identity: ClassVar[dict[str, Any] | None] = {}
    citation: ClassVar[str] = """@article{bengio2003neural,
  title = {A Neural Probabilistic Language Model},
  author = {Bengio, Yoshua and Ducharme, R{\\'e}jean and Vincent, Pascal and Jauvin, Christian},
  journal = {Journal of Machine Learning Research},
  volume = {3},
  pages = {1137--1155},
  year = {2003}
}"""
