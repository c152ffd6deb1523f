"""Thresholding, every variant and engine, against loops over tokens and vocabulary in float64."""

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.objectives.cases import ENGINES, TRUE_GRADIENTS, VARIANTS, far, leaves, sample, title, zero_rows
from tests.objectives.naive import naive
from torch import Tensor

from decone.objectives import Threshold


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("variant", VARIANTS, ids=title)
def test_value_and_gradients_match_the_loops(variant: dict[str, Any], dtype: torch.dtype, engine: str) -> None:
    hidden, weight, bias, target, expected = sample(variant, dtype)
    h, w, b = leaves(hidden, weight, bias)
    loss = Threshold(**variant)(h, w, target, bias=b, engine=engine)
    loss.tokens.backward()
    assert int(loss.count) == target.numel() - 1
    found = [
        (loss.tokens, expected.loss.sum()),
        (h.grad, expected.hidden),
        (w.grad, expected.weight),
        (b.grad, expected.bias),
    ]
    for ours, theirs in found:
        assert ours is not None
        assert theirs is not None
        assert ours.dtype == dtype
        if dtype == torch.float64:
            torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=1e-10)
        else:
            assert far(ours, theirs) <= 2e-6
    assert zero_rows(w.grad) == zero_rows(expected.weight)


@pytest.mark.parametrize("engine", ["reference", "one-row"])
@pytest.mark.parametrize("variant", VARIANTS, ids=title)
def test_one_loss_per_target_takes_its_own_gradient(variant: dict[str, Any], engine: str) -> None:
    hidden, weight, bias, target, _ = sample(variant, torch.float64)
    up = torch.randn(target.shape, dtype=torch.float64)
    expected = naive(hidden, weight, bias, target, up=up, **variant)
    h, w, b = leaves(hidden, weight, bias)
    loss = Threshold(**variant)(h, w, target, bias=b, engine=engine, reduction="none")
    assert loss.tokens.shape == target.shape
    torch.testing.assert_close(loss.tokens.flatten(), expected.loss, rtol=0, atol=1e-10)
    (loss.tokens * up).sum().backward()
    for leaf, theirs in ((h, expected.hidden), (w, expected.weight), (b, expected.bias)):
        assert leaf.grad is not None
        assert theirs is not None
        torch.testing.assert_close(leaf.grad, theirs.reshape(leaf.shape), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("engine", "reduction"), [("reference", "sum"), ("chunked", "sum"), ("one-row", "none")])
@pytest.mark.parametrize("variant", TRUE_GRADIENTS, ids=title)
def test_gradients_are_derivatives(variant: dict[str, Any], engine: str, reduction: str) -> None:
    hidden, weight, bias, target, _ = sample(variant, torch.float64, shape=(3,))

    def loss(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return Threshold(**variant)(h, w, target, bias=b, engine=engine, reduction=reduction).tokens

    inputs = leaves(hidden, weight, bias)
    assert torch.autograd.gradcheck(loss, inputs, atol=1e-6, fast_mode=True, check_undefined_grad=False)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("below", ["dropped", "detached"])
def test_dropped_rows_get_exactly_no_gradient(below: Any, margin: float, engine: str) -> None:
    draw = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(6, 16, generator=draw), torch.randn(40, 16, generator=draw)
    target = (hidden @ weight.T).topk(2).indices[:, 1]  # good guesses, so that most rows are dropped
    expected = naive(hidden, weight, None, target, margin=margin, below=below)
    h, w = leaves(hidden, weight)
    Threshold(margin=margin, below=below)(h, w, target, engine=engine).mean().backward()
    never = (~expected.kept.any(0)).tolist()
    assert sum(never) >= 20
    assert zero_rows(w.grad) == never == zero_rows(expected.weight)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[5], VARIANTS[9], VARIANTS[12], VARIANTS[18]], ids=title)
def test_half_precision_stays_within_its_format(variant: dict[str, Any], dtype: torch.dtype, engine: str) -> None:
    hidden, weight, bias, target, expected = sample(variant, dtype, distance=0.1)
    h, w, b = leaves(hidden, weight, bias)
    loss = Threshold(**variant)(h, w, target, bias=b, engine=engine)
    loss.tokens.backward()
    assert loss.tokens.dtype == torch.float32
    for ours, theirs in ((loss.tokens, expected.loss.sum()), (h.grad, expected.hidden), (w.grad, expected.weight)):
        assert far(ours, theirs) <= 8 * torch.finfo(dtype).eps
    assert h.grad is not None
    assert w.grad is not None
    assert b.grad is not None
    assert h.grad.dtype == w.grad.dtype == b.grad.dtype == dtype
    assert zero_rows(w.grad) == zero_rows(expected.weight)


grid = st.integers(-3, 3).map(float)


@st.composite
def grids(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Small whole numbers: logits are exact in every format and ties, with the target and the threshold, are common."""
    N, V, H = draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 2))

    def table(*shape: int) -> Tensor:
        size = math.prod(shape)
        return torch.tensor(draw(st.lists(grid, min_size=size, max_size=size)), dtype=torch.float64).view(shape)

    ids = draw(st.lists(st.one_of(st.integers(0, V - 1), st.just(-100)), min_size=N, max_size=N))
    return table(N, H), table(V, H), table(V), torch.tensor(ids)


@settings(max_examples=60)
@given(
    grids(),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    st.sampled_from([1.0, 0.5, 2.0]),
    st.sampled_from(
        [{}, {"below": "detached"}, *({"softminus": c, "detach": d} for c in (1.0, 5.0) for d in (True, False))]
    ),
    st.sampled_from(ENGINES),
)
@example(  # the target stands exactly C above the threshold, tied with another
    (torch.zeros(1, 1).double(), torch.zeros(2, 1).double(), torch.tensor([0.0, 0.0]).double(), torch.tensor([0])),
    torch.float32, 1.0, 1.0, {"softminus": 1.0, "detach": True}, "chunked",
)  # fmt: skip
def test_ties_and_formats(
    case: tuple[Tensor, Tensor, Tensor, Tensor],
    dtype: torch.dtype,
    margin: float,
    temperature: float,
    way: dict[str, Any],
    engine: str,
) -> None:
    hidden, weight, bias, target = case
    variant = {"margin": margin, "temperature": temperature, **way}
    expected = naive(hidden, weight, bias, target, **variant)
    h, w, b = leaves(hidden.to(dtype), weight.to(dtype), bias.to(dtype))
    loss = Threshold(**variant)(h, w, target, bias=b, engine=engine)
    loss.mean().backward()
    count = max(1, int((target != -100).sum()))
    sharp = 1e-10 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(loss.tokens.double(), expected.loss.sum(), rtol=sharp, atol=sharp)
    slack = sharp if dtype in (torch.float64, torch.float32) else 8 * torch.finfo(dtype).eps
    for leaf, theirs in ((h, expected.hidden), (w, expected.weight), (b, expected.bias)):
        assert leaf.grad is not None
        assert theirs is not None
        assert leaf.grad.dtype == dtype
        theirs = theirs / count
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(leaf.grad.double(), theirs, rtol=0, atol=slack * scale)
    dropped = ~expected.kept.any(0)
    assert not w.grad[dropped].any()
    assert not b.grad[dropped].any()  # type: ignore[index]
