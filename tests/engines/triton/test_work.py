"""Amount of work: positions of a chunk, tiles, divided sums."""

import pytest
import torch
from tests.engines.triton.cases import DEVICES, RULES, Gated, gate, gradients, sample

from decone.engines.contract import PLAIN
from decone.engines.triton import engine, triton
from decone.engines.triton.engine import TiledInputs, evaluate
from decone.engines.triton.launch import TileChunk, TileSums
from decone.objectives import MLE, get

ALL = (True, True, False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("room", "expected"), [(1, [16] * 3), (2, [32, 16]), (9, [48])])
def test_a_chunk_is_what_the_budget_holds(
    room: int, expected: list[int], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda":
        pytest.skip("tiles are larger on a GPU")
    sizes, true = [], engine.sweep_tiles

    def sweep_tiles(chunk: TileChunk, *given: object, **more: object) -> TileSums:
        sizes.append(chunk.hidden.size(0))
        return true(chunk, *given, **more)

    monkeypatch.setattr(engine, "sweep_tiles", sweep_tiles)
    hidden, weight, _, tokens = sample(35, 23, 8)
    inputs = TiledInputs(hidden, weight, None, tokens, MLE(), None, PLAIN, room * 16 * 23 * 4 + 3)
    evaluate(inputs, ALL, torch.ones(35), True)
    assert sizes == expected
    sizes.clear()
    everything = 9 * 16 * 23 * 4
    gated = TiledInputs(hidden, weight, None, tokens, Gated(gate(23)), gate(23), PLAIN, everything)
    evaluate(gated, ALL, None, True)
    assert sizes == [64]  # one tile more, because no tile holds both classes


def test_pairs_count_for_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, _, tokens = sample(35, 23, 8, sequence=35)
    inputs = TiledInputs(hidden, weight, None, tokens, get("unlikelihood"), None, PLAIN, 16 * 23 * 4)
    with pytest.raises(
        ValueError, match=r"chunk_bytes must hold what 16 positions .* up to \d+ earlier .* got 1472; raise it"
    ):
        engine._chunk_rows(inputs, 16, engine.build_history(tokens.with_earlier(23), 23))
    assert engine._chunk_rows(inputs, 16, None) == 16


@pytest.mark.parametrize("device", DEVICES)
def test_a_long_history_that_only_shifts_needs_no_room(device: str) -> None:
    hidden, weight, _, tokens = sample(700 if device == "cuda" else 35, 23, 8, sequence=700, device=device)
    inputs = TiledInputs(
        hidden, weight, None, tokens, get("scalegrad"), None, PLAIN, (128 if device == "cuda" else 16) * 23 * 4
    )
    assert evaluate(inputs, ALL, None, True)[0].loss.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_a_forward_and_a_backward_pass_ask_for_one_tile(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, true = [], engine.quickest
    monkeypatch.setattr(engine, "quickest", lambda key, *more: keys.append(key) or true(key, *more))
    hidden, weight, _, tokens = sample(5, 23, 8, device=device)
    inputs = TiledInputs(hidden, weight, None, tokens, MLE(), None, PLAIN, 2**20)
    evaluate(inputs, ALL, None, True)
    evaluate(inputs, ALL, torch.ones(5, device=device), False)
    logits = [key for key in keys if key[0] == "logits"]  # the others are for the products of the gradient
    assert len(logits) == 2
    assert logits[0] == logits[1]


@pytest.mark.parametrize(
    ("processors", "groups", "expected"), [(132, 16, 1), (132, 1, 8), (132, 4, 4), (1, 1, 1), (10**6, 1, 8)]
)
def test_sums_are_divided_until_every_processor_has_work(
    processors: int, groups: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_processors", lambda device: processors)
    assert engine._split(torch.zeros(1, 4096, device="meta"), 128, groups) == expected


@pytest.mark.parametrize("device", DEVICES)
def test_divided_sums_are_the_same_gradient(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, bias, tokens = sample(21, 37, 20, device=device)
    rule = RULES["margin 1"](37, tokens)
    _, one = gradients(triton, rule, (hidden, weight, bias), tokens)
    monkeypatch.setattr(engine, "_split", lambda *_: 3)
    _, three = gradients(triton, rule, (hidden, weight, bias), tokens)
    for mine, other in zip(three, one, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-6)
