"""How the work of a product is divided, and what stays out of it; the numbers are tested on the whole engine."""

import pytest
import torch
from tests.engines.triton.cases import DEVICES, RULES, gradients, sample

from decone.engines.triton import gradients as module
from decone.engines.triton import triton


@pytest.mark.parametrize(
    ("processors", "groups", "wanted"), [(132, 16, 1), (132, 1, 8), (132, 4, 4), (1, 1, 1), (10**6, 1, 8)]
)
def test_sums_are_divided_until_every_processor_has_work(
    processors: int, groups: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_processors", lambda device: processors)
    assert module._split(torch.zeros(1, 4096, device="meta"), 128, groups) == wanted


@pytest.mark.parametrize("device", DEVICES)
def test_divided_sums_are_the_same_gradient(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, bias, tokens = sample(21, 37, 20, device=device)
    rule = RULES["margin 1"](37, tokens)
    _, one = gradients(triton, rule, (hidden, weight, bias), tokens)
    monkeypatch.setattr(module, "_split", lambda *_: 3)
    _, three = gradients(triton, rule, (hidden, weight, bias), tokens)
    for mine, other in zip(three, one, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-6)
