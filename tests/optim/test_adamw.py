"""The optimiser of a method that names none."""

import pytest
import torch

from decone.optim import adamw


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
