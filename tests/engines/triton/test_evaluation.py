"""How much is done at a time."""

import pytest
import torch
from tests.engines.triton.cases import DEVICES, Gated, gate, sample

from decone.engines.contract import PLAIN
from decone.engines.triton import evaluation
from decone.engines.triton.evaluation import Job, Wanted, evaluate
from decone.engines.triton.forward import Chunk, Swept
from decone.objectives import MLE, get


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("room", "wanted"), [(1, [16] * 3), (2, [32, 16]), (9, [48])])
def test_a_chunk_is_what_the_budget_holds(
    room: int, wanted: list[int], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda":
        pytest.skip("tiles are larger on a GPU")
    sizes, true = [], evaluation.sweep

    def sweep(chunk: Chunk, *given: object, **more: object) -> Swept:
        sizes.append(chunk.hidden.size(0))
        return true(chunk, *given, **more)

    monkeypatch.setattr(evaluation, "sweep", sweep)
    hidden, weight, _, tokens = sample(35, 23, 8)
    job = Job(hidden, weight, None, tokens, MLE(), PLAIN, room * 16 * 23 * 4 + 3, None)
    evaluate(job, Wanted(True, True, False, torch.ones(35)), True)
    assert sizes == wanted
    sizes.clear()
    everything = 9 * 16 * 23 * 4
    gated = Job(hidden, weight, None, tokens, Gated(gate(23)), PLAIN, everything, gate(23))
    evaluate(gated, None, True)
    assert sizes == [64]  # one tile more, because no tile holds both classes


def test_pairs_count_for_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, _, tokens = sample(35, 23, 8, sequence=35)
    job = Job(hidden, weight, None, tokens, get("unlikelihood"), PLAIN, 16 * 23 * 4, None)
    with pytest.raises(
        ValueError, match=r"chunk_bytes must hold what 16 positions .* up to \d+ earlier .* got 1472; raise it"
    ):
        evaluation._chunk_rows(job, 16, evaluation.look_back(tokens.with_earlier(23), 23))
    assert evaluation._chunk_rows(job, 16, None) == 16


@pytest.mark.parametrize("device", DEVICES)
def test_a_long_history_that_only_shifts_needs_no_room(device: str) -> None:
    hidden, weight, _, tokens = sample(700 if device == "cuda" else 35, 23, 8, sequence=700, device=device)
    job = Job(hidden, weight, None, tokens, get("scalegrad"), PLAIN, (128 if device == "cuda" else 16) * 23 * 4, None)
    assert evaluate(job, None, True).loss.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_a_forward_and_a_backward_pass_ask_for_one_tile(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, true = [], evaluation.quickest
    monkeypatch.setattr(evaluation, "quickest", lambda key, *more: asked.append(key) or true(key, *more))
    hidden, weight, _, tokens = sample(5, 23, 8, device=device)
    job = Job(hidden, weight, None, tokens, MLE(), PLAIN, 2**20, None)
    evaluate(job, None, True)
    evaluate(job, Wanted(True, True, False, torch.ones(5, device=device)), False)
    assert len(asked) == 2
    assert asked[0] == asked[1]
