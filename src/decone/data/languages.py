"""The simulated low-resource language: a second copy of the vocabulary that a share of the training windows speak.

Turumtaev, "Stop Jostling", Section 4.1 (after K et al. 2020): the ids of a window are shifted by the size of the
vocabulary. Both copies obey the same text, so every low-resource token has one true translation.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor


@dataclass(frozen=True)
class Languages:
    """How many copies of the vocabulary there are, and how often the second is spoken.

    Attributes:
        size: tokens of one copy.
        low_resource: probability of a training window to be in the second copy; 0 leaves one language only.
    """

    size: int
    low_resource: float

    @property
    def simulated(self) -> bool:
        """Whether there is a second copy."""
        return self.low_resource > 0

    @property
    def vocabulary(self) -> int:
        """Token ids of all copies together."""
        return self.size * (2 if self.simulated else 1)

    def offsets(self) -> dict[str, int]:
        """First id of each language by name: HR and LR, or `all` when there is one.

        Example:
            >>> Languages(65, 0.02).offsets()
            {'HR': 0, 'LR': 65}
        """
        return {"HR": 0, "LR": self.size} if self.simulated else {"all": 0}

    def ids(self, name: str) -> Int64[Tensor, " V"]:
        """All token ids of a language."""
        start = self.offsets()[name]
        return torch.arange(start, start + self.size)
