"""AdamW of torch, the optimiser of a method that names none; and rows that an optimiser does not move.

The file is the model of a file for another optimiser: one of the command line is a file in this folder with a function
`build`, whose first parameters are those below; further ones are the settings that a method may give, by their names
and types.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
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


class FrozenRows:
    """Rows of a table that stay as they are, input and output side, against momentum and weight decay too.

    Yu et al., "Rare Tokens Degenerate All Tokens", ACL 2022, arXiv 2109.03127, Table 1, freezes rare rows altogether:
    as input embeddings and in the output, and without the momentum and weight decay that reach a row with zero
    gradient.

    Args:
        table: the parameter, [V, H]; tied or not.
        ids: ids of the rows; their present values stay.

    Example:
        >>> table = torch.nn.Parameter(torch.ones(3, 2))
        >>> rows, optimizer = FrozenRows(table, torch.tensor([2])), torch.optim.AdamW([table], lr=0.1)
        >>> table.sum().backward()
        >>> optimizer.step()
        >>> rows.restore(optimizer)
        >>> table[2].tolist(), bool((table[:2] < 1).all())
        ([1.0, 1.0], True)
    """

    def __init__(self, table: Float[Tensor, "V H"], ids: Int[Tensor, " M"]) -> None:
        self.table, self.ids = table, ids.to(table.device)
        self._values = table.detach()[self.ids].clone()

    @torch.no_grad()
    def restore(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Puts the rows back and zeroes their state in the optimiser; call it after every `step()`."""
        self.table[self.ids] = self._values
        state = {} if optimizer is None else optimizer.state.get(self.table, {})
        for value in state.values():
            if isinstance(value, Tensor) and value.dim() and value.size(0) == self.table.size(0):
                value[self.ids] = 0
