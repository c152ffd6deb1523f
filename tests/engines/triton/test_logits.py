"""Targets' logits against plain products."""

from types import SimpleNamespace

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
    history = look_back(tokens.with_earlier(shape[1]), shape[1])
    seen = tokens.with_earlier(shape[1]).earlier_mask()
    tile = Tile(16, columns, 16)
    for readout, shift, b in ((Readout(), None, None), (Readout(1.5, 2.0), Shift(0.7, -0.2), bias)):
        recipe = Recipe(tile, "ieee", readout, 0.5, shift)
        plain, ruled = target_logits(hidden, weight, b, tokens.target, history, recipe)
        wanted = readout(torch.nn.functional.linear(hidden, weight, b))
        torch.testing.assert_close(plain, wanted.gather(1, tokens.target[:, None]).squeeze(1), rtol=0, atol=2e-6)
        wanted = wanted * 0.5 + (0 if shift is None else torch.where(seen, shift.earlier, shift.novel))
        torch.testing.assert_close(ruled, wanted.gather(1, tokens.target[:, None]).squeeze(1), rtol=0, atol=2e-6)


def test_float32_is_multiplied_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace())  # as it was before there were two switches
    for setting in ("highest", "high"):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda setting=setting: setting)
        found[setting] = input_precision(torch.float32), input_precision(torch.bfloat16)
    assert found == {"highest": ("ieee", "ieee"), "high": ("tf32", "ieee")}
    assert candidates(torch.float32).logits


@pytest.mark.parametrize(
    ("own", "common", "wanted"), [("tf32", "none", "tf32"), ("ieee", "tf32", "ieee"), ("none", "tf32", "tf32")]
)
def test_the_newer_switches_are_read_first(own: str, common: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise RuntimeError("legacy and new interfaces are mixed")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(fp32_precision=own))
    monkeypatch.setattr(torch, "backends", SimpleNamespace(cuda=torch.backends.cuda, fp32_precision=common))
    assert input_precision(torch.float32) == wanted


@pytest.mark.parametrize("device", DEVICES)
def test_a_small_logit_keeps_its_digits_under_a_cap(device: str) -> None:
    hidden = torch.logspace(-6, 0.5, 60, device=device)[:, None] * torch.tensor([[1.0, -1.0]], device=device)
    hidden = hidden.view(-1, 1)
    target = torch.zeros(120, dtype=torch.long, device=device)
    recipe = Recipe(Tile(16, 16, 16), "ieee", Readout(softcap=1.0))
    plain, _ = target_logits(hidden, torch.ones(1, 1, device=device), None, target, None, recipe)
    torch.testing.assert_close(plain.double(), hidden[:, 0].double().tanh(), rtol=4e-7, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_a_target_that_is_no_row_reads_nothing(device: str) -> None:
    hidden, weight, bias, tokens = sample(19, 23, 20, device=device)
    target = tokens.target.clone()
    target[3], target[4], target[5] = -1, 23, -(2**40)
    recipe = Recipe(Tile(16, 16, 16), "ieee", Readout())
    plain, _ = target_logits(hidden, weight, bias, target, None, recipe)
    assert plain[3:6].tolist() == [0.0] * 3
    assert plain.count_nonzero() == 16
