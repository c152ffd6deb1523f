"""The optimiser of a method that names none, and frozen rows under several optimisers."""

import pytest
import torch
from torch import Tensor

from decone.optim import FrozenRows, RowAdamW, adamw


@pytest.mark.parametrize("fused", [False, True])
def test_steps_are_those_of_torch(fused: bool) -> None:
    one, two = (torch.nn.Parameter(torch.arange(6.0).view(3, 2)) for _ in range(2))
    built = adamw.build([{"params": [one], "weight_decay": 0.1}], [one], lr=0.1, betas=(0.8, 0.9), fused=fused)
    expected = torch.optim.AdamW([two], lr=0.1, betas=(0.8, 0.9), weight_decay=0.1, fused=fused)
    for _ in range(3):
        one.grad = two.grad = torch.randn(3, 2)
        built.step()
        expected.step()
    assert torch.equal(one, two)


def optimizers(table: torch.nn.Parameter) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.AdamW([table], lr=0.1, weight_decay=0.1),
        torch.optim.SGD([table], lr=0.1, momentum=0.9),
        RowAdamW([table], lr=0.1, rows=[table]),
        RowAdamW([table], lr=0.1, rows=[table], momentum="decay", decay="always"),
    ]


@pytest.mark.parametrize("kind", range(4))
def test_rows_stay_against_momentum_and_decay_and_leave_no_trace(kind: int) -> None:
    begin, ids = torch.randn(5, 3), torch.tensor([1, 4])
    table, other = torch.nn.Parameter(begin.clone()), torch.nn.Parameter(begin.clone())
    optimizer, plain = optimizers(table)[kind], optimizers(other)[kind]
    rows = FrozenRows(table, ids)
    for _ in range(4):
        gradient = torch.randn(5, 3)
        for leaf, step in ((table, optimizer), (other, plain)):
            leaf.grad = gradient.clone()
            step.step()
        rows.restore(optimizer)
        assert torch.equal(table.detach()[ids], begin[ids])
    others = torch.tensor([0, 2, 3])
    torch.testing.assert_close(table.detach()[others], other.detach()[others])  # RowAdamW may round another way
    for value in optimizer.state[table].values():
        if isinstance(value, Tensor) and value.dim():
            assert not value[ids].any()
    table.grad = torch.zeros(5, 3)  # let go: nothing is left that pushes the rows, but decay
    optimizer.step()
    decay = 1 - 0.1 * optimizer.param_groups[0]["weight_decay"]
    expected = begin[ids] * (decay if kind in (0, 3) else 1.0)
    torch.testing.assert_close(table.detach()[ids], expected)
    FrozenRows(table, ids).restore()
