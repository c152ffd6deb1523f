"""The spectrum penalty against the formula on a full singular value decomposition."""

import math
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decone.objectives import MLE
from decone.objectives.spectrum_penalty import SpectrumPenalty, singular_values

ENGINES = ("reference", "chunked")
SETTINGS: list[dict[str, Any]] = [
    {},
    {"rate": 0.0},
    {"rate": 2.0, "power": 0.5},
    {"decay": "polynomial", "rate": 0.5},
    {"scale": 3.0},
    {"decay": "polynomial", "scale": 0.7, "gamma": 0.2},
]


def naive(
    weight: Tensor,
    gamma: float = 1.0,
    decay: str = "exponential",
    rate: float = 1.0,
    power: float = 1.0,
    scale: Any = None,
) -> Tensor:
    values = torch.linalg.svdvals(weight)
    K = len(values)
    shape = [
        math.exp(-rate * (k / max(1, K - 1)) ** power) if decay == "exponential" else (k + 1) ** -rate for k in range(K)
    ]
    factor = scale
    if scale is None:  # least squares
        factor = sum(v * p for v, p in zip(values, shape, strict=True)) / sum(p * p for p in shape)
    distance = sum((v - factor * p) ** 2 for v, p in zip(values, shape, strict=True))
    total = sum(v**2 for v in values) if scale is None else sum((factor * p) ** 2 for p in shape)
    return torch.as_tensor(gamma * distance / total)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@given(V=st.integers(1, 9), H=st.integers(1, 6), seed=st.integers(0, 2**20))
def test_the_penalty_is_the_distance_of_the_spectrum(settings: dict[str, Any], V: int, H: int, seed: int) -> None:
    weight = torch.randn(V, H, generator=torch.Generator().manual_seed(seed)).double()
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(singular_values(weight), values, rtol=1e-7, atol=1e-7)
    ours, theirs = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    mine, other = SpectrumPenalty(**settings).matrix(ours), naive(theirs, **settings)
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)
    if values[-1] > 1e-3 * values[0]:
        (one,), (two,) = torch.autograd.grad(mine, ours), torch.autograd.grad(other, theirs)
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_gradcheck(settings: dict[str, Any]) -> None:
    for shape in ((6, 3), (3, 6)):
        assert torch.autograd.gradcheck(
            SpectrumPenalty(**settings).matrix, torch.randn(*shape).double().requires_grad_()
        )


def test_a_table_of_the_prescribed_shape_costs_nothing() -> None:
    for settings in SETTINGS:
        objective = SpectrumPenalty(**{**settings, "gamma": 1.0})
        left, right = (torch.linalg.qr(torch.randn(n, 4).double()).Q for n in (9, 4))
        weight = (left * (settings.get("scale", 5.0) * objective.shape(4)) @ right.T).requires_grad_()
        loss = objective.matrix(weight)
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert weight.grad is not None
        assert weight.grad.abs().max() < 1e-6
        assert objective.matrix(weight.detach() + 1).item() > 1e-3


def test_descent_brings_the_spectrum_to_the_shape() -> None:
    weight = (torch.randn(20, 4).double() + 2).requires_grad_()  # a cone: one direction dominates
    objective = SpectrumPenalty(rate=0.5)
    optimizer = torch.optim.Adam([weight], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        objective.matrix(weight).backward()
        optimizer.step()
    values = torch.linalg.svdvals(weight.detach())
    torch.testing.assert_close(values / values[0], objective.shape(4), rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "table", [torch.zeros(5, 3), torch.ones(5, 3), torch.eye(5, 3)], ids=["zero", "rank one", "equal"]
)
def test_degenerate_tables_have_finite_gradients(table: Tensor, dtype: torch.dtype) -> None:
    for settings in SETTINGS:
        weight = table.to(dtype).requires_grad_()
        loss = SpectrumPenalty(**settings).matrix(weight)
        loss.backward()
        assert loss.isfinite()
        assert loss.dtype == torch.float32
        assert weight.grad is not None
        assert weight.grad.isfinite().all()
        assert weight.grad.float().norm() < 10


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_tokens_are_plain_cross_entropy_and_gamma_zero_is_all_of_it(engine: str, reduction: str) -> None:
    target, grads = torch.tensor([[0, 5, -100], [2, 2, 1]]), []
    table = torch.randn(6, 3).double()
    for objective in (SpectrumPenalty(gamma=0.0), MLE(), SpectrumPenalty(gamma=0.3)):
        w = table.clone().requires_grad_()
        loss = objective(torch.tanh(w[target.clamp(min=0)]), w, target, engine=engine, reduction=reduction)
        penalty = naive(w, 0.3) if isinstance(objective, SpectrumPenalty) and objective.gamma else 0.0
        (loss.mean() - penalty).backward()
        grads.append((loss.tokens.detach(), w.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])
    assert torch.equal(grads[2][0], grads[1][0])
    torch.testing.assert_close(grads[2][1], grads[1][1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"gamma": -1.0}, "0 is plain"),
        ({"gamma": math.nan}, "0 is plain"),
        ({"decay": "linear"}, "choose exponential or polynomial"),
        ({"rate": -1.0}, "0 asks for equal"),
        ({"rate": math.nan}, "0 asks for equal"),
        ({"power": 0.0}, "1 is the plain exponential"),
        ({"scale": 0.0}, "leave it out to fit it"),
    ],
)
def test_wrong_settings_are_refused_with_the_mend(
    wrong: dict[str, Any], mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=mend):
        SpectrumPenalty(**wrong)
