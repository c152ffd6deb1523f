"""Kernels by their launches: targets' logits, one sweep, slopes, the products over live columns, targets' rows.

Each is compared with the complete product; dead entries hold NaN, so that reading one shows.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.engines.triton.cases import DEVICES, sample
from torch import Tensor

from decone.engines.contract import Readout, Shift
from decone.engines.triton.history import build_history
from decone.engines.triton.launch import (
    LogitRecipe,
    TileChunk,
    TileSums,
    add_table_gradient,
    add_target_rows,
    hidden_gradient,
    input_precision,
    sweep_tiles,
    target_logits,
    to_slopes,
)
from decone.engines.triton.tiles import Tile, candidates, list_live_columns, log_sum


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("columns", [16, 64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (19, 23, 20), (32, 40, 16)], ids=str)
def test_targets_logits(shape: tuple[int, int, int], columns: int, device: str) -> None:
    hidden, weight, bias, tokens = sample(*shape, device=device)
    history = build_history(tokens.with_earlier(shape[1]), shape[1])
    earlier = tokens.with_earlier(shape[1]).earlier_mask()
    tile = Tile(16, columns, 16)
    for readout, shift, b in ((Readout(), None, None), (Readout(1.5, 2.0), Shift(0.7, -0.2), bias)):
        recipe = LogitRecipe(tile, "ieee", readout, 0.5, shift)
        plain, ruled = target_logits(hidden, weight, b, tokens.target, history, recipe)
        expected = readout(torch.nn.functional.linear(hidden, weight, b))
        torch.testing.assert_close(plain, expected.gather(1, tokens.target[:, None]).squeeze(1), rtol=0, atol=2e-6)
        expected = expected * 0.5 + (0 if shift is None else torch.where(earlier, shift.earlier, shift.novel))
        torch.testing.assert_close(ruled, expected.gather(1, tokens.target[:, None]).squeeze(1), rtol=0, atol=2e-6)


def test_float32_is_multiplied_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    result = {}
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace())  # as it was before there were two switches
    for setting in ("highest", "high"):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda setting=setting: setting)
        result[setting] = input_precision(torch.float32), input_precision(torch.bfloat16)
    assert result == {"highest": ("ieee", "ieee"), "high": ("tf32", "ieee")}
    assert candidates(torch.float32).logits


@pytest.mark.parametrize(
    ("product", "common", "expected"), [("tf32", "none", "tf32"), ("ieee", "tf32", "ieee"), ("none", "tf32", "tf32")]
)
def test_the_newer_switches_are_read_first(
    product: str, common: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> str:
        raise RuntimeError("legacy and new interfaces are mixed")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(fp32_precision=product))
    monkeypatch.setattr(torch, "backends", SimpleNamespace(cuda=torch.backends.cuda, fp32_precision=common))
    assert input_precision(torch.float32) == expected


@pytest.mark.parametrize("device", DEVICES)
def test_a_small_logit_keeps_its_digits_under_a_cap(device: str) -> None:
    hidden = torch.logspace(-6, 0.5, 60, device=device)[:, None] * torch.tensor([[1.0, -1.0]], device=device)
    hidden = hidden.view(-1, 1)
    target = torch.zeros(120, dtype=torch.long, device=device)
    recipe = LogitRecipe(Tile(16, 16, 16), "ieee", Readout(softcap=1.0))
    plain, _ = target_logits(hidden, torch.ones(1, 1, device=device), None, target, None, recipe)
    torch.testing.assert_close(plain.double(), hidden[:, 0].double().tanh(), rtol=4e-7, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_a_target_that_is_no_row_reads_nothing(device: str) -> None:
    hidden, weight, bias, tokens = sample(19, 23, 20, device=device)
    target = tokens.target.clone()
    target[3], target[4], target[5] = -1, 23, -(2**40)
    recipe = LogitRecipe(Tile(16, 16, 16), "ieee", Readout())
    plain, _ = target_logits(hidden, weight, bias, target, None, recipe)
    assert plain[3:6].tolist() == [0.0] * 3
    assert plain.count_nonzero() == 16


C, V, H, FILLED = 32, 41, 20, 27


def chunk_of(device: str, floored: bool) -> tuple[TileChunk, Tensor, Tensor, Tensor, LogitRecipe, Tensor]:
    """A chunk whose last places repeat the last position, its table and bias, and the logits it should see."""
    hidden, weight, bias, tokens = sample(FILLED, V, H, device=device)
    tokens = tokens.with_earlier(V)
    bias[[v for v in range(V) if v not in tokens.target]] -= 6.0
    recipe = LogitRecipe(Tile(16, 16, 16), "ieee", Readout(1.2, 9.0), 0.8, Shift(0.5, -0.1))
    plain = recipe.readout(torch.nn.functional.linear(hidden, weight, bias))
    ruled = plain * 0.8 + torch.where(tokens.earlier_mask(), 0.5, -0.1)
    logit, plain_logit = (t.gather(1, tokens.target[:, None]).squeeze(1) for t in (ruled, plain))
    index = torch.arange(C, device=device).clamp(max=FILLED - 1)
    filled = torch.arange(C, device=device) < FILLED
    floor = torch.where(filled, (logit - 1.0)[index], torch.inf) if floored else None
    history = build_history(tokens, V)
    history = history._replace(
        list_of=history.list_of[index], length=torch.where(filled, history.length[index], 0).int()
    )
    target = torch.where(filled, tokens.target[index], -1)
    ruled_logits = ruled if floor is None else ruled.masked_fill(ruled < floor[:FILLED, None], -torch.inf)
    return (
        TileChunk(hidden[index], target, logit[index], plain_logit[index], floor, history),
        weight,
        bias,
        plain,
        recipe,
        ruled_logits,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("floored", [True, False])
def test_a_sweep(floored: bool, device: str) -> None:
    chunk, weight, bias, plain, recipe, ruled_logits = chunk_of(device, floored)
    entry = torch.full((V, C), torch.nan, device=device)
    result = sweep_tiles(chunk, weight, bias, recipe, plain=True, charged=True, entry=entry)
    filled = chunk.target >= 0
    without_target = ruled_logits.scatter(1, chunk.target[:FILLED, None], -torch.inf)
    sums = log_sum(result.top, result.beyond, filled, chunk.target_logit)
    lse, above = sums.value(), torch.where(filled, -sums.less(result.top), -torch.inf)
    complete = ruled_logits.scatter(1, chunk.target[:FILLED, None], chunk.target_logit[:FILLED, None])
    torch.testing.assert_close(lse[:FILLED], complete.logsumexp(1), rtol=0, atol=2e-6)
    assert not lse[FILLED:].any()
    assert above[:, FILLED:].eq(-torch.inf).all()
    assert result.plain_top is not None
    assert result.plain_beyond is not None
    bare = log_sum(result.plain_top, result.plain_beyond, filled).value()
    torch.testing.assert_close(bare[:FILLED], plain.logsumexp(1), rtol=0, atol=2e-6)
    assert torch.equal(result.count.sum(0)[:FILLED], (without_target > -torch.inf).sum(1))
    if floored:
        assert result.live is not None
        assert result.live.size(0) == 2
        assert not result.live.all()
        assert result.live.any()
        tiles = (without_target > -torch.inf).split(16)
        assert torch.equal(result.live, torch.stack([tile.any(0) for tile in tiles]).to(torch.int8))
    else:
        assert result.live is None
    chance = entry * above.exp().repeat_interleave(16, 0)[:V]
    expected = (without_target - lse[:FILLED, None]).exp() * (1 - (plain / 9.0).square())
    torch.testing.assert_close(chance[:, :FILLED].T, expected, rtol=0, atol=1e-6)
    assert torch.equal(chance[:, :FILLED].T == 0, expected == 0)
    assert not chance[:, FILLED:].any()
    lists = chunk.history
    assert lists is not None
    assert result.pair_logit is not None
    for n in range(FILLED):
        for v in range(V):
            rank = int(lists.rank[lists.list_of[n], lists.slot[v]]) if lists.slot[v] >= 0 else V * C
            if rank < lists.length[n] and v != chunk.target[n]:
                assert result.pair_logit[n, rank].item() == pytest.approx(ruled_logits[n, v].item(), abs=2e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_a_sweep_that_learns_nothing_writes_no_entry(device: str) -> None:
    chunk, weight, bias, _, recipe, _ = chunk_of(device, True)
    result = sweep_tiles(chunk, weight, bias, recipe, plain=False, charged=False, entry=None)
    assert result.entry is None
    assert result.pair_logit is None
    assert result.plain_top is None


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dense", [True, False])
def test_slopes(dense: bool, device: str) -> None:
    chunk = chunk_of(device, True)[0]
    draw = torch.Generator(device).manual_seed(0)
    entry, above = torch.rand(V, C, generator=draw, device=device), torch.randn(3, C, generator=draw, device=device)
    gain = torch.randn(C, generator=draw, device=device)
    live = (torch.rand(2, V, generator=draw, device=device) < 0.5).to(torch.int8)
    live[1, :16] = 0  # a whole tile
    lists = chunk.history
    assert lists is not None
    slope = torch.randn(C, lists.longest, generator=draw, device=device)
    expected = entry * above.exp().repeat_interleave(16, 0)[:V] * gain
    for n in range(FILLED):
        for v in range(V):
            rank = int(lists.rank[lists.list_of[n], lists.slot[v]]) if lists.slot[v] >= 0 else V * C
            if rank < lists.length[n] and v != chunk.target[n]:
                expected[v, n] = slope[n, rank]
    alive = torch.ones(V, C, dtype=torch.bool) if dense else live.bool().T.repeat_interleave(16, 1)
    alive = alive.to(device)
    expected = torch.where(alive, expected, entry)
    nothing = torch.zeros(0, C, device=device)
    swept = TileSums(entry, None if dense else live, nothing, nothing, nothing.int(), None, None, None)
    sums = to_slopes(chunk, swept, above, gain, slope, chunk_of(device, True)[4].tile, True)
    torch.testing.assert_close(entry, expected, rtol=1e-5, atol=1e-6)
    assert sums is not None
    torch.testing.assert_close(sums, torch.where(alive, expected, 0.0).view(V, 2, 16).sum(2).T, rtol=1e-5, atol=1e-5)
    lifted, true = entry.clone(), torch.randn(V, C, generator=draw, device=device)
    swept = replace(swept, entry=true.clone())
    expected = to_slopes(chunk, swept, above, gain, slope, chunk_of(device, True)[4].tile, True)
    plain = swept.entry
    swept = replace(swept, entry=true.clone())
    up = torch.tensor(8.0, device=device)
    sums = to_slopes(chunk, swept, above, gain, slope, chunk_of(device, True)[4].tile, True, up)
    assert torch.equal(sums, expected)
    assert torch.equal(swept.entry, torch.where(alive, plain * 8, true))
    swept = replace(swept, entry=lifted)
    assert to_slopes(chunk, swept, above, gain, None, chunk_of(device, True)[4].tile, False) is None


PRODUCT = (48, 41, 20)
TILE = Tile(16, 16, 16)


def problem(device: str) -> tuple[torch.Tensor, ...]:
    C, V, H = PRODUCT
    draw = torch.Generator(device).manual_seed(0)
    entry, hidden, weight = (torch.randn(s, generator=draw, device=device) for s in ((V, C), (C, H), (V, H)))
    live = (torch.rand(3, V, generator=draw, device=device) < 0.4).to(torch.int8)
    live[1] = 0  # a tile that keeps nothing
    entry[~live.bool().T.repeat_interleave(16, 1)] = 0
    return entry, hidden, weight, live


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("split", [1, 3])
@pytest.mark.parametrize("dense", [True, False])
def test_the_gradient_of_hidden_states(dense: bool, split: int, device: str) -> None:
    entry, _, weight, live = problem(device)
    expected = entry.T @ weight
    columns = None if dense else list_live_columns(live, 16, 3)
    if not dense:
        entry[~live.bool().T.repeat_interleave(16, 1)] = torch.nan
    result = hidden_gradient(entry, weight, columns, 16, split, TILE, "ieee")
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("common", [None, 0, 1, 3])
@pytest.mark.parametrize("dense", [True, False])
def test_the_gradient_of_the_table(dense: bool, common: int | None, device: str) -> None:
    entry, hidden, _, live = problem(device)
    _, V, H = PRODUCT
    border = None if common is None else torch.tensor(common, device=device)
    factors = (
        None if common is None else (torch.linspace(0, 1, V, device=device), torch.linspace(2, 0, V, device=device))
    )
    expected = torch.ones(V, H, device=device)  # added to, not overwritten
    for tile in range(3):
        product = entry[:, 16 * tile : 16 * tile + 16] @ hidden[16 * tile : 16 * tile + 16]
        expected += product if factors is None or common is None else product * factors[int(tile >= common)][:, None]
    result = torch.ones(V, H, device=device)
    columns = None if dense else list_live_columns(live, 16, 3 if border is None else border)
    add_table_gradient(entry, hidden, columns, border, factors, result, 16, TILE, "ieee")
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    if not dense:
        assert torch.equal(result == 1, expected == 1)
        assert (result == 1).all(1).any()  # dead rows are not touched


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("N", "V"), [(1, 1), (20, 7), (40, 1), (33, 50)])  # runs shorter and longer than a tile
def test_target_rows(N: int, V: int, device: str) -> None:
    draw = torch.Generator(device).manual_seed(0)
    hidden, slope = torch.randn(N, 20, generator=draw, device=device), torch.randn(N, generator=draw, device=device)
    target = torch.randint(V, (N,), generator=draw, device=device)
    table, bias = torch.ones(V, 20, device=device), torch.ones(V, device=device)
    add_target_rows(hidden, slope, target, table, bias)
    torch.testing.assert_close(table, 1 + torch.zeros_like(table).index_add(0, target, slope[:, None] * hidden))
    torch.testing.assert_close(bias, 1 + torch.zeros_like(bias).index_add(0, target, slope))
    only = torch.ones(V, device=device)
    add_target_rows(hidden, slope, target, None, only)
    assert torch.equal(only, bias)
    add_target_rows(hidden, slope, target, None, None)


@pytest.mark.parametrize("device", DEVICES)
def test_a_target_that_is_no_row_writes_nothing(device: str) -> None:
    room = torch.zeros(9, 20, device=device)
    bias = torch.zeros(9, device=device)
    target = torch.tensor([-1, 0, 1, 5, 2, -1], device=device)
    add_target_rows(torch.ones(6, 20, device=device), torch.ones(6, device=device), target, room[2:7], bias[2:7])
    assert bias.tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert torch.equal(room, bias[:, None].expand(9, 20))
