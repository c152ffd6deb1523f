"""Plain AdamW of torch: the optimiser of a method that names none, and the model of a file for another one.

An optimiser of the command line is a file in this folder with a function `build`: its first parameters are those below,
further ones are the settings that a method may give, by their names and types.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def build(
    groups: list[dict[str, Any]], tables: Sequence[Tensor], *, lr: float, betas: tuple[float, float], fused: bool
) -> torch.optim.AdamW:
    """Builds the optimiser.

    Args:
        groups: parameter groups of torch, with the weight decay of each.
        tables: embedding tables among the parameters, for optimisers that treat them by rows; not used here.
        lr: learning rate.
        betas: decay of the first and second moment.
        fused: torch's fused kernel can be used on the device.

    Example:
        >>> table = torch.nn.Parameter(torch.ones(3, 2))
        >>> groups = [{"params": [table], "weight_decay": 0.1}]
        >>> optimizer = build(groups, [table], lr=0.1, betas=(0.9, 0.99), fused=False)
        >>> optimizer.param_groups[0]["weight_decay"]
        0.1
    """
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=fused)
