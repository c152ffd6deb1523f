"""Thresholding where formulas break: ties, nothing to count, huge and infinite logits, the clamp of softminus."""

import math
from typing import Any

import jaxtyping
import pytest
import torch
from tests.objectives.cases import ENGINES, VARIANTS, leaves, title
from tests.objectives.naive import naive
from torch.nn import functional as F

from decone.engines.contract import Tokens
from decone.objectives import Threshold


@pytest.mark.parametrize("engine", ENGINES)
def test_a_logit_equal_to_the_threshold_stays(engine: str) -> None:
    bias = torch.tensor([3.0, 2.0, torch.tensor(2.0).nextafter(torch.tensor(0.0)).item(), 3.0], requires_grad=True)
    hidden, weight, target = torch.zeros(1, 1), torch.zeros(4, 1), torch.tensor([0])
    Threshold(margin=1.0)(hidden, weight, target, bias=bias, engine=engine).mean().backward()
    assert bias.grad is not None
    assert [g != 0 for g in bias.grad.tolist()] == [True, True, False, True]
    tied = torch.tensor([3.0, 2.0, 4.0, 3.0])
    loss = Threshold(margin=0.0)(hidden, weight, target, bias=tied, engine=engine).mean()
    torch.testing.assert_close(loss, torch.tensor(2 + math.e).log())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[9], VARIANTS[18]], ids=title)
def test_edges(variant: dict[str, Any], engine: str) -> None:
    objective = Threshold(**variant)
    h, w = leaves(torch.randn(2, 3, 4), torch.randn(5, 4))
    loss = objective(h, w, torch.full((2, 3), -100), engine=engine)
    loss.mean().backward()
    assert loss.mean().item() == 0
    assert loss.count.item() == 0
    assert loss.nll is not None
    assert loss.nll.item() == 0
    assert h.grad is not None
    assert w.grad is not None
    assert not h.grad.any()
    assert not w.grad.any()
    assert not objective(h, w, torch.full((2, 3), -100), engine=engine, reduction="none").tokens.any()
    assert objective(h[:0], w, torch.zeros(0, 3, dtype=torch.long), engine=engine).mean().item() == 0
    one = objective(h[0, 0], w, torch.tensor(2), engine=engine)  # a single vector, a single id
    expected = naive(h[0, 0], w, None, torch.tensor([2]), **variant).loss.sum()
    torch.testing.assert_close(one.mean().double(), expected, rtol=1e-6, atol=1e-6)
    h, w = leaves(torch.randn(3, 4), torch.randn(1, 4))  # a vocabulary of one leaves no doubt
    objective(h, w, torch.zeros(3, dtype=torch.long), engine=engine).mean().backward()
    assert h.grad is not None
    assert w.grad is not None
    assert not h.grad.any()
    assert not w.grad.any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("margin", [1.0, math.inf])
def test_large_logits(margin: float, engine: str) -> None:
    hidden, weight = torch.tensor([[100.0], [-100.0], [1.0]]), torch.tensor([[100.0], [99.0], [-100.0], [0.0]])
    target = torch.tensor([1, 0, 2])
    expected = naive(hidden, weight, None, target, margin=margin)
    h, w = leaves(hidden, weight)
    loss = Threshold(margin=margin)(h, w, target, engine=engine)
    loss.tokens.backward()
    torch.testing.assert_close(loss.tokens.double(), expected.loss.sum())
    torch.testing.assert_close(h.grad, expected.hidden.float())
    torch.testing.assert_close(w.grad, expected.weight.float())


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "variant", [{"margin": math.inf}, {"margin": math.inf, "below": "detached"}, {"margin": 1.0}], ids=title
)
@pytest.mark.parametrize("masked", [1, 2])  # a non-target; the target of the second position
def test_logits_of_minus_infinity(masked: int, variant: dict[str, Any], engine: str, reduction: Any) -> None:
    hidden, weight = torch.randn(2, 3), torch.randn(4, 3)
    bias, target = torch.zeros(4), torch.tensor([0, 2])
    bias[masked] = -math.inf
    h, w, b = leaves(hidden, weight, bias)
    loss = Threshold(**variant)(h, w, target, bias=b, engine=engine, reduction=reduction).tokens.sum()
    loss.backward()
    if variant["margin"] == math.inf:
        x, y, z = leaves(hidden, weight, bias)
        plain = F.cross_entropy(F.linear(x, y, z), target, reduction="sum")
        plain.backward()
        torch.testing.assert_close(loss, plain)
        for ours, theirs in ((h, x), (w, y), (b, z)):
            torch.testing.assert_close(ours.grad, theirs.grad)
    else:
        assert (loss == math.inf) == (masked == 2)
        assert all(bool(leaf.grad.isfinite().all()) for leaf in (h, w, b) if leaf.grad is not None)


@pytest.mark.parametrize("C", [1.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_softminus_is_stable_where_the_published_form_is_not(dtype: torch.dtype, C: float) -> None:
    points = [1e-12, 0.9e-9, 1.1e-9, 1e-5, 0.01, 0.5, 1 - 2e-7, 1.0, 1 + 2e-7, 2.0, 30.0, 90.0, 800.0]
    x = torch.tensor(points, dtype=dtype)
    logits = torch.cat((x.new_tensor([C]), C * x))[None].requires_grad_()  # the target stands C above a threshold of 0
    tokens = Tokens(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    found = Threshold(margin=C, softminus=C, detach=True).adjust(logits, tokens)[0]
    (slope,) = torch.autograd.grad(found.sum(), logits)
    for z, ours, rise in zip(logits.detach()[0].tolist(), found.tolist(), slope[0].tolist(), strict=True):
        at = z / C
        grown = math.expm1(min(at, 700.0))
        exact = at if at > 700 else math.log(max(1e-9, grown))
        assert ours == pytest.approx(C * exact, rel=4 * torch.finfo(dtype).eps, abs=4 * torch.finfo(dtype).eps)
        steep = 1 / -math.expm1(-at) if grown > 1e-9 else 0.0
        assert rise == pytest.approx(steep, rel=16 * torch.finfo(dtype).eps)
        if 1e-4 < at < 700 and dtype == torch.float64:  # and there the published form agrees
            assert ours == pytest.approx(C * math.log(max(1e-9, math.exp(at) - 1)), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("detach", [True, False])
def test_softminus_keeps_the_target_on_the_threshold(detach: bool, engine: str) -> None:
    hidden, weight = torch.zeros(1, 1).double(), torch.zeros(4, 1).double()
    bias = torch.tensor([1.0, 1.0, 2.0, 0.0], dtype=torch.float64)  # tied with the target, above it, below it
    variant = {"margin": 0.0, "softminus": 1.0, "detach": detach}
    expected = naive(hidden, weight, bias, torch.tensor([0]), **variant)
    b = leaves(bias)[0]
    loss = Threshold(**variant)(hidden, weight, torch.tensor([0]), bias=b, engine=engine).tokens
    loss.backward()
    torch.testing.assert_close(loss, math.log(1 + (math.e - 1) / 1e-9) + loss * 0, rtol=1e-12, atol=0)
    torch.testing.assert_close(b.grad, expected.bias, rtol=0, atol=1e-12)
    assert b.grad is not None
    assert b.grad[1] == 0
    assert b.grad[3] == 0
    assert b.grad[2] != 0


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"margin": -0.1}, "0 or more.*inf is plain"),
        ({"margin": math.nan}, "0 or more"),
        ({"temperature": 0.0}, "positive and finite"),
        ({"temperature": math.inf}, "positive and finite"),
        ({"temperature": math.nan}, "positive and finite"),
        ({"alpha": -1.0}, "leave it out to use margin"),
        ({"alpha": math.nan}, "leave it out to use margin"),
        ({"alpha": 1.0, "norms": "each"}, "choose both, target or hidden"),
        ({"below": "gone"}, "choose dropped or detached"),
        ({"softminus": 0.0}, "leave it out"),
        ({"softminus": math.nan}, "leave it out"),
        ({"softminus": 1.0, "margin": math.inf}, "finite margin"),
        ({"softminus": 1.0, "alpha": math.inf}, "finite margin"),
        ({"softminus": 1.0, "below": "detached"}, "below='dropped'"),
    ],
    ids=lambda value: title(value) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_refused_with_the_mend(
    wrong: dict[str, Any], mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the tests' type checks
    with pytest.raises(ValueError, match=mend):
        Threshold(**wrong)
