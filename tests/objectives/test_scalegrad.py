"""ScaleGrad against equation 4 in loops, its novel sets against brute force, and the authors' epsilon."""

import math
from functools import partial
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.one_row import one_row
from tests.objectives.naive_history import assert_equal, found, naive_history, sample, seen_before, softmax
from torch import Tensor
from torch.nn import functional as F

from decone.engines import select
from decone.objectives import MLE
from decone.objectives.scalegrad import ScaleGrad

ENGINES = ("reference", "chunked", "one-row")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(select.ENGINES, "one-row", one_row)


def equation_4(logits: list[Tensor], y: int, seen: set[int], gamma: float = 0.2, eps: float = 0.0) -> Tensor:
    chance = softmax(logits)
    scaled = [(p if i in seen else gamma * p) + eps for i, p in enumerate(chance)]
    return -(scaled[y] / sum(scaled)).log()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("gamma", "eps"), [(0.2, 0.0), (0.8, 0.0), (0.5, 1e-8), (0.2, 1e-2)])
def test_equation_4(gamma: float, eps: float, packed: bool, each: bool, engine: str) -> None:
    hidden, weight, bias, target = sample()
    document = torch.tensor([[0, 0, 0, 5, 5, 0, 0], [1, 1, 1, 1, 2, 2, 2]]) if packed else None
    up = torch.randn(target.shape).double() if each else None
    one = partial(equation_4, gamma=gamma, eps=eps)
    theirs = naive_history(hidden, weight, bias, target, one, up=up, document=document)
    objective = ScaleGrad(gamma, eps)
    assert_equal(found(objective, hidden, weight, bias, target, up=up, document=document, engine=engine), theirs)


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 7), st.integers(0, 99), st.sampled_from(ENGINES[:2]))
def test_any_shape_and_more_positions_than_ids(B: int, T: int, V: int, seed: int, engine: str) -> None:
    hidden, weight, _, target = sample(B, T, V, 2, seed=seed)
    theirs = naive_history(hidden, weight, None, target, equation_4)
    assert_equal(found(ScaleGrad(), hidden, weight, None, target, engine=engine), theirs)


def test_equation_6_of_the_gradient() -> None:
    logits = torch.randn(1, 4, 6).double().requires_grad_()
    target = torch.tensor([[0, 3, 0, 3]])
    ScaleGrad(0.3)(logits, torch.eye(6).double(), target).tokens.backward()
    chance = logits.detach()[0].softmax(-1)
    for t, seen in enumerate(seen_before(target)):
        scaled = torch.tensor([float(p) * (1 if i in seen else 0.3) for i, p in enumerate(chance[t])]).double()
        expected = scaled / scaled.sum() - F.one_hot(target[0, t], 6)
        torch.testing.assert_close(logits.grad[0, t], expected, rtol=0, atol=1e-7)  # type: ignore[index]


@pytest.mark.parametrize("engine", ["reference", "chunked"])
def test_novel_sets_are_those_of_brute_force(engine: str) -> None:
    """Read back from the loss: with equal logits, exp(loss) tells how many ids are seen and whether the target is."""
    draw = torch.Generator().manual_seed(1)
    V, gamma = 9, 0.5
    target = torch.randint(V, (4, 12), generator=draw)
    target[1, 5:] = -100  # padding on the right
    target[2, :4] = -100  # and on the left
    target[3, ::2] = 0  # id 0 is a token like any other
    document = torch.randint(3, (4, 12), generator=draw).sort(1).values
    hidden, weight = torch.zeros(4, 12, 2).double(), torch.zeros(V, 2).double()
    each = ScaleGrad(gamma)(hidden, weight, target, document=document, reduction="none", engine=engine).tokens
    for n, (y, seen) in enumerate(zip(target.flatten().tolist(), seen_before(target, document), strict=True)):
        odds = len(seen) + gamma * (V - len(seen))
        expected = 0.0 if y == -100 else math.log(odds / (1 if y in seen else gamma))
        assert each.flatten()[n].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_gamma_1_is_plain_cross_entropy_to_the_bit(dtype: torch.dtype, engine: str) -> None:
    hidden, weight, bias, target = sample(dtype=dtype)
    ours = found(ScaleGrad(gamma=1.0), hidden, weight, bias, target, engine=engine)
    plain = found(MLE(), hidden, weight, bias, target, engine=engine)
    assert torch.equal(ours[0], plain[0])
    assert all(map(torch.equal, ours[1], plain[1]))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_float32_is_near_float64(eps: float, engine: str) -> None:
    hidden, weight, bias, target = sample(dtype=torch.float32)
    theirs = naive_history(hidden, weight, bias, target, partial(equation_4, eps=eps))
    assert_equal(found(ScaleGrad(0.2, eps), hidden, weight, bias, target, engine=engine), theirs, 1e-5)


@pytest.mark.parametrize("spread", [1.0, 6.0])
def test_the_authors_epsilon_has_its_closed_form(spread: float) -> None:
    """loss = log(Z0 + V eps) - log(q_y + eps), with q the scaled probabilities and Z0 their sum."""
    z, target = (spread * torch.randn(1, 9, 30)).double().requires_grad_(), torch.randint(30, (1, 9))
    each = ScaleGrad(0.2, 1e-8)(z, torch.eye(30).double(), target, reduction="none").tokens
    (slope,) = torch.autograd.grad(each.sum(), z)
    for t, seen in enumerate(seen_before(target)):
        p, y = z.detach()[0, t].softmax(-1), int(target[0, t])
        q = p * torch.tensor([1.0 if i in seen else 0.2 for i in range(30)]).double()
        Z, own = q.sum() + 30e-8, q[y] / (q[y] + 1e-8)
        torch.testing.assert_close(each[0, t].detach(), Z.log() - (q[y] + 1e-8).log())
        expected = (q - p * q.sum()) / Z - own * (F.one_hot(target[0, t], 30) - p)
        torch.testing.assert_close(slope[0, t], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("engine", ["reference", "chunked"])
@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_gradients_by_finite_differences_and_tied_tables(eps: float, engine: str) -> None:
    hidden, weight, _, target = sample(1, 4, 5, 3)

    def loss(table: Tensor) -> Tensor:  # the table is embedding and head
        total: Tensor = ScaleGrad(0.4, eps)(
            torch.tanh(hidden + table[target.clamp(min=0)]), table, target, engine=engine
        ).tokens
        return total

    assert torch.autograd.gradcheck(loss, weight.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"gamma": 0.0}, r"gamma must lie in \(0, 1\], got 0.0; 1 is plain"),
        ({"gamma": 1.5}, "got 1.5"),
        ({"gamma": math.nan}, "got nan"),
        ({"eps": -1e-9}, "1e-8 is the authors' code"),
        ({"eps": math.nan}, "0 or more"),
    ],
)
def test_wrong_settings(wrong: dict[str, Any], mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=mend):
        ScaleGrad(**wrong)
