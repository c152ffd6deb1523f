"""Targets' logits against plain products."""

import pytest
import torch
from tests.engines.triton.cases import DEVICES, sample

from decone.engines.contract import Readout, Shift
from decone.engines.triton.history import look_back
from decone.engines.triton.logits import Recipe, input_precision, target_logits
from decone.engines.triton.tiles import Tile, candidates


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("columns", [16, 64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (19, 23, 20), (32, 40, 16)], ids=str)
def test_targets_logits(shape: tuple[int, int, int], columns: int, device: str) -> None:
    hidden, weight, bias, tokens = sample(*shape, device=device)
    history = look_back(tokens.remembering(shape[1]), shape[1])
    seen = tokens.remembering(shape[1]).seen()
    tile = Tile(16, columns, 16)
    for readout, shift, b in ((Readout(), None, None), (Readout(1.5, 2.0), Shift(0.7, -0.2), bias)):
        recipe = Recipe(tile, "ieee", readout, 0.5, shift)
        plain, ruled = target_logits(hidden, weight, b, tokens.target, history, recipe)
        wanted = readout(torch.nn.functional.linear(hidden, weight, b))
        torch.testing.assert_close(plain, wanted.gather(1, tokens.target[:, None]).squeeze(1), rtol=0, atol=2e-6)
        wanted = wanted * 0.5 + (0 if shift is None else torch.where(seen, shift.seen, shift.novel))
        torch.testing.assert_close(ruled, wanted.gather(1, tokens.target[:, None]).squeeze(1), rtol=0, atol=2e-6)


def test_float32_is_multiplied_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for setting in ("highest", "high"):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda setting=setting: setting)
        found[setting] = input_precision(torch.float32), input_precision(torch.bfloat16)
    assert found == {"highest": ("ieee", "ieee"), "high": ("tf32", "ieee")}
    assert candidates(torch.float32).logits
