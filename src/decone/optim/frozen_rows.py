"""Rows of a table that an optimiser does not move: put back after each of its steps.

Yu et al., "Rare Tokens Degenerate All Tokens", ACL 2022, arXiv 2109.03127, Table 1, freezes rare rows altogether: as
input embeddings and in the output, and without the momentum and weight decay that reach a row with zero gradient.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class FrozenRows:
    """Rows of a table that stay as they are, input and output side, against momentum and weight decay too.

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
