"""Unlikelihood against equation 2 of the ScaleGrad paper in loops, its equation 7, and the clamp."""

import math
from functools import partial
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.one_row import one_row
from tests.objectives.naive_history import assert_equal, found, naive_history, sample, softmax
from torch import Tensor

from decone.engines import select
from decone.engines.contract import Pairs
from decone.objectives import MLE
from decone.objectives.unlikelihood import Unlikelihood

ENGINES = ("reference", "chunked", "one-row")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(select.ENGINES, "one-row", one_row)


def equation_2(logits: list[Tensor], y: int, seen: set[int], alpha: float = 1.0, clamp: float = 1e-5) -> Tensor:
    chance = softmax(logits)
    loss = -chance[y].log()
    for c in seen - {y}:
        loss = loss - alpha * torch.log((1 - chance[c]).clamp(min=clamp))
    return loss


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("settings", [{}, {"alpha": 0.5}, {"alpha": 2.0, "clamp": 0.7}], ids=str)
def test_equation_2(settings: dict[str, Any], packed: bool, each: bool, engine: str) -> None:
    hidden, weight, bias, target = sample()
    document = torch.tensor([[0, 0, 0, 5, 5, 0, 0], [1, 1, 1, 1, 2, 2, 2]]) if packed else None
    up = torch.randn(target.shape).double() if each else None
    theirs = naive_history(hidden, weight, bias, target, partial(equation_2, **settings), up=up, document=document)
    ours = found(Unlikelihood(**settings), hidden, weight, bias, target, up=up, document=document, engine=engine)
    assert_equal(ours, theirs)


@given(st.integers(1, 3), st.integers(1, 9), st.integers(2, 7), st.integers(0, 99), st.sampled_from(ENGINES[:2]))
def test_any_shape_and_more_positions_than_ids(B: int, T: int, V: int, seed: int, engine: str) -> None:
    hidden, weight, _, target = sample(B, T, V, 2, seed=seed)
    theirs = naive_history(hidden, weight, None, target, equation_2)
    assert_equal(found(Unlikelihood(), hidden, weight, None, target, engine=engine), theirs)


@pytest.mark.parametrize("engine", ENGINES)
def test_flatten_lets_candidates_leak_across_the_batch(engine: str) -> None:
    hidden, weight, bias, target = sample(3, 4)
    document = torch.zeros_like(target)
    theirs = naive_history(hidden, weight, bias, target, equation_2, whole=True)
    leaking = Unlikelihood(flatten=True)
    assert_equal(found(leaking, hidden, weight, bias, target, document=document, engine=engine), theirs)
    alone = found(Unlikelihood(), hidden, weight, bias, target, engine=engine)
    assert not torch.isclose(alone[0], theirs[0].sum())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_equation_7_for_one_negative_token(alpha: float, engine: str) -> None:
    z = (2 * torch.randn(1, 2, 5)).double().requires_grad_()
    each = Unlikelihood(alpha)(z, torch.eye(5).double(), torch.tensor([[3, 1]]), reduction="none", engine=engine).tokens
    (slope,) = torch.autograd.grad(each[0, 1], z)
    p = z.detach()[0, 1].softmax(-1)
    factor = torch.full_like(p, 1 - alpha * float(p[3] / (1 - p[3])))
    factor[3] = 1 + alpha
    expected = factor * p
    expected[1] -= 1
    torch.testing.assert_close(slope[0, 1], expected, rtol=0, atol=1e-12)
    assert not slope[0, 0].any()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_clamped_candidate_is_charged_but_gives_no_gradient(engine: str) -> None:
    logits = torch.tensor([[[0.0, 0.0, 0.0], [20.0, 0.0, 1.0]]]).double()  # 1 - p of token 0 is 8e-9
    target = torch.tensor([[0, 2]])
    eye = torch.eye(3).double()
    loss, (slope, _) = found(Unlikelihood(), logits, eye, None, target, engine=engine)
    plain, (pull, _) = found(MLE(), logits, eye, None, target, engine=engine)
    assert loss.item() - plain.item() == pytest.approx(-math.log(1e-5), rel=1e-12)
    torch.testing.assert_close(slope, pull, rtol=0, atol=1e-15)


def test_one_minus_p_without_cancellation() -> None:
    logprob = torch.tensor([-1e-6, -3e-4], requires_grad=True)  # 1 - exp(-1e-6) is off by 5 % in float32
    pairs = Pairs(torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([0, 0]))
    cost = Unlikelihood(clamp=1e-12).charge(logprob, pairs)
    assert cost is not None
    exact = [-math.log(-math.expm1(float(value))) for value in logprob.detach().double()]
    assert cost.tolist() == pytest.approx(exact, rel=3e-7)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_alpha_0_is_plain_cross_entropy_to_the_bit(dtype: torch.dtype, engine: str) -> None:
    hidden, weight, bias, target = sample(dtype=dtype)
    ours = found(Unlikelihood(alpha=0.0), hidden, weight, bias, target, engine=engine)
    plain = found(MLE(), hidden, weight, bias, target, engine=engine)
    assert torch.equal(ours[0], plain[0])
    assert all(map(torch.equal, ours[1], plain[1]))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)], ids=str)
def test_lower_precision_is_near_float64(dtype: torch.dtype, slack: float, engine: str) -> None:
    hidden, weight, bias, target = sample(dtype=dtype)
    theirs = naive_history(hidden, weight, bias, target, equation_2)
    assert_equal(found(Unlikelihood(), hidden, weight, bias, target, engine=engine), theirs, slack)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_masked_column_costs_nothing(engine: str) -> None:
    hidden, weight, bias, _ = sample(1, 3)
    bias[5] = -math.inf
    loss, grads = found(Unlikelihood(), hidden, weight, bias, torch.tensor([[0, 1, 0]]), engine=engine)
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in grads)
    assert not grads[1][5].any()


@pytest.mark.parametrize("engine", ["reference", "chunked"])
def test_gradients_by_finite_differences_and_tied_tables(engine: str) -> None:
    hidden, weight, _, target = sample(1, 4, 5, 3)

    def loss(table: Tensor) -> Tensor:  # the table is embedding and head
        states = torch.tanh(hidden + table[target.clamp(min=0)])
        total: Tensor = Unlikelihood()(states, table, target, engine=engine).tokens
        return total

    assert torch.autograd.gradcheck(loss, weight.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_to_count(engine: str) -> None:
    hidden = torch.randn(2, 3, 4, requires_grad=True)
    loss = Unlikelihood()(hidden, torch.randn(5, 4), torch.full((2, 3), -100), engine=engine)
    loss.mean().backward()
    assert loss.mean().item() == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"alpha": -1.0}, "alpha must be 0 or more and finite, got -1.0; 0 is plain"),
        ({"alpha": math.nan}, "got nan"),
        ({"alpha": math.inf}, "got inf"),
        ({"clamp": 0.0}, "1e-5 is the authors'"),
        ({"clamp": math.nan}, "clamp must lie"),
    ],
)
def test_wrong_settings(wrong: dict[str, Any], mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=mend):
        Unlikelihood(**wrong)
