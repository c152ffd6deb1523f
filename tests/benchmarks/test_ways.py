"""Every way computes the loss it is named after: against the readable engine in float64, at a tiny size."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from benchmarks.engines_bench.exactness import gradients, judge, samples, truth
from benchmarks.engines_bench.ways import LOSSES, PEERS, Ours, UnavailableError, Way, build, losses, objective, ways
from benchmarks.engines_bench.workloads import WORKLOADS, Inputs, generate

SMALL = replace(WORKLOADS["W1"], B=2, T=48, H=32, V=512)
FULL = losses(list(LOSSES), [0.0, 1.0, 5.0])


def judged(way: Way, true: Way | None = None) -> dict[str, Any]:
    """A way against float64, or against what another way should give."""
    given = samples(generate(SMALL))
    return judge(lambda: build(way, "cpu"), [truth(true or way, sample) for sample in given], given)


@pytest.mark.parametrize("loss", FULL)
@pytest.mark.parametrize("name", ["chunked", "reference", "naive"])
def test_a_way_agrees_with_float64(name: str, loss: str) -> None:
    found = judged(Way(name, loss))
    assert max(found["errors"].values()) < 1e-5, found
    assert found["zeros_differ"] == 0
    assert found["repeats"]
    assert (found["zeros"] > 0) is loss.startswith(("threshold", "agg"))


@pytest.mark.parametrize("name", ["dense", "lce", "lce-tuned"])
def test_plain_cross_entropy_of_torch_agrees(name: str) -> None:
    try:
        found = judged(Way(name, "ce"))
    except UnavailableError as missing:
        pytest.skip(str(missing))
    assert max(found["errors"].values()) < 1e-5
    assert found["zeros_differ"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compiled", "cce-compiled"])
def test_compiled_peers_agree(name: str) -> None:
    try:
        found = judged(Way(name, "ce"))
    except UnavailableError as missing:
        pytest.skip(str(missing))
    assert max(found["errors"].values()) < 1e-5
    assert found["zeros_differ"] == 0


def test_the_naive_window_forgets_as_ours_does() -> None:
    """Three steps of two batches: counts of both must have come in, and the gates must still agree."""
    first, second = generate(SMALL), generate(replace(SMALL, seed=1))
    inputs = [first, Inputs(first.hidden, first.weight, second.target), first]
    way = Way("naive", "agg")
    call, rule = build(way, "cpu"), objective(way)
    for given in inputs:
        mine = gradients(call, given)
        wide = Inputs(given.hidden.double(), given.weight.double(), given.target)
        true = gradients(lambda same: rule(*same, engine="reference", nll=False).mean(), wide)
        assert all(torch.allclose(a.double(), b, atol=1e-5) for a, b in zip(mine, true, strict=True))


def test_the_judge_sees_a_wrong_gradient_and_a_zero_that_is_none() -> None:
    plain = judged(Way("dense", "ce"), Way("naive", "threshold:1"))
    assert plain["errors"]["weight"] > 1e-3
    assert plain["zeros_differ"] == plain["zeros"] > 0


@pytest.mark.parametrize("name", ["liger", "cce", "cce-exact", "quack", "triton"])
def test_what_needs_a_gpu_says_so(name: str) -> None:
    with pytest.raises(UnavailableError, match=r"GPU|no CPU path|cannot be imported"):
        build(Way(name, "ce"), "cpu")


def test_peers_are_asked_for_plain_cross_entropy_alone() -> None:
    found = ways(FULL, ["chunked"], list(PEERS), ["naive"])
    assert {way.loss for way in found if way.peer} == {"ce"}
    assert [way.loss for way in found if way.ours] == FULL
    assert [way.loss for way in found if way.name == "naive"] == FULL[1:]
    with pytest.raises(UnavailableError, match="plain cross-entropy alone"):
        build(Way("lce", "agg"), "cpu")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="choose of"):
        losses(["treshold"], [1.0])
    with pytest.raises(ValueError, match="choose of"):
        ways(["ce"], ["chunky"], [], [])


def test_an_engine_tells_its_live_share() -> None:
    call = build(Way("chunked", "threshold:1"), "cpu")
    assert isinstance(call, Ours)
    live = call.live(generate(SMALL))
    assert live is not None
    assert 0 < live <= 1
