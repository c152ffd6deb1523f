"""Thresholding, every variant and engine, against loops over tokens and vocabulary in float64."""

import math
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.objectives.naive import Naive, naive
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import decone.engines.chunked as chunked_module
from decone.engines import select
from decone.engines.contract import Tokens
from decone.objectives import Threshold

ENGINES = ("reference", "chunked", "one-row")
VARIANTS: list[dict[str, Any]] = [
    {"margin": 0.0},
    {"margin": 0.6},
    {"margin": 3.5},
    {"margin": math.inf},
    {"margin": 1.0, "temperature": 0.46},
    {"alpha": 0.25},
    {"alpha": 0.3, "norms": "target"},
    {"alpha": 0.3, "norms": "hidden"},
    {"alpha": 0.25, "temperature": 1.7},
    {"margin": 1.0, "softminus": 1.0},
    {"margin": 1.0, "softminus": 1.0, "detach": True},
    {"margin": 2.0, "softminus": 5.0},
    {"margin": 5.0, "softminus": 5.0, "detach": True},
    {"margin": 0.0, "softminus": 1.0},
    {"margin": 0.6, "softminus": 1.0, "temperature": 0.5, "detach": True},
    {"alpha": 0.4, "softminus": 1.0},
    {"alpha": 0.8, "softminus": 1.0, "norms": "target", "temperature": 1.3},
    {"alpha": 0.8, "softminus": 5.0, "norms": "hidden", "detach": True},
    {"margin": 0.6, "below": "detached"},
    {"alpha": 0.25, "below": "detached", "temperature": 1.5},
]
TRUE_GRADIENTS = [v for v in VARIANTS if not v.get("detach") and v.get("below") != "detached"]


def title(variant: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in variant.items())


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(select.ENGINES, "one-row", partial(chunked_module.chunked, chunk_bytes=1))
        yield


Case = tuple[Tensor, Tensor, Tensor, Tensor, Naive]


def sample(
    variant: dict[str, Any], dtype: torch.dtype, *, shape: tuple[int, ...] = (2, 3), distance: float = 0.02
) -> Case:
    """Random inputs no logit of which is near its threshold, where formats may rightly disagree."""
    return _sample(tuple(variant.items()), dtype, shape, distance)


@cache  # the loops are slow, and every engine is held against the same case
def _sample(items: tuple[tuple[str, Any], ...], dtype: torch.dtype, shape: tuple[int, ...], distance: float) -> Case:
    variant = dict(items)
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        hidden = torch.randn(*shape, 4, generator=draw, dtype=torch.float64).to(dtype)
        weight = torch.randn(9, 4, generator=draw, dtype=torch.float64).to(dtype)
        bias = torch.randn(9, generator=draw, dtype=torch.float64).to(dtype)
        target = torch.randint(9, shape, generator=draw)
        target.view(-1)[1:2] = -100
        expected = naive(hidden, weight, bias, target, **variant)
        if expected.distance > distance:
            return hidden, weight, bias, target, expected
    raise AssertionError("no sample far enough from the threshold")


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().clone().requires_grad_() for t in tensors]


def far(ours: Tensor | None, expected: Tensor | None) -> float:
    """Largest difference, relative to the largest expected number."""
    assert ours is not None and expected is not None
    return ((ours.double() - expected.reshape(ours.shape)).abs().max() / expected.abs().max().clamp(min=1e-9)).item()


def zero_rows(gradient: Tensor | None) -> list[bool]:
    assert gradient is not None
    return (gradient == 0).all(1).tolist()


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
        assert ours is not None and theirs is not None and ours.dtype == dtype
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
        assert leaf.grad is not None and theirs is not None
        torch.testing.assert_close(leaf.grad, theirs.reshape(leaf.shape), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("engine", "reduction"), [("reference", "sum"), ("one-row", "sum"), ("one-row", "none")])
@pytest.mark.parametrize("variant", TRUE_GRADIENTS, ids=title)
def test_gradients_are_derivatives(variant: dict[str, Any], engine: str, reduction: str) -> None:
    hidden, weight, bias, target, _ = sample(variant, torch.float64)

    def loss(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return Threshold(**variant)(h, w, target, bias=b, engine=engine, reduction=reduction).tokens

    assert torch.autograd.gradcheck(loss, leaves(hidden, weight, bias), atol=1e-6, fast_mode=True)


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
    assert sum(never) >= 20 and zero_rows(w.grad) == never == zero_rows(expected.weight)


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
    assert h.grad is not None and w.grad is not None and b.grad is not None
    assert h.grad.dtype == w.grad.dtype == b.grad.dtype == dtype
    assert zero_rows(w.grad) == zero_rows(expected.weight)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[5], VARIANTS[10], VARIANTS[18]], ids=title)
def test_autocast_multiplies_in_bfloat16_and_returns_the_type_of_the_parameters(
    variant: dict[str, Any], engine: str
) -> None:
    hidden, weight, bias, target, expected = sample(variant, torch.float32, distance=0.1)
    h, w, b = leaves(hidden, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        loss = Threshold(**variant)(h, w, target, bias=b, engine=engine)
    loss.tokens.backward()
    for ours, theirs in ((loss.tokens, expected.loss.sum()), (h.grad, expected.hidden), (w.grad, expected.weight)):
        assert ours is not None and ours.dtype == torch.float32
        assert 1e-6 < far(ours, theirs) <= 8 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_autocast_leaves_float64_alone(reduction: Any, engine: str) -> None:
    hidden, weight, bias, target, expected = sample(VARIANTS[1], torch.float64)
    h, w, b = leaves(hidden, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        loss = Threshold(**VARIANTS[1])(h, w, target, bias=b, engine=engine, reduction=reduction)
    loss.tokens.sum().backward()
    torch.testing.assert_close(loss.tokens.sum(), expected.loss.sum(), rtol=0, atol=1e-10)
    torch.testing.assert_close(w.grad, expected.weight, rtol=0, atol=1e-10)


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
        assert leaf.grad is not None and theirs is not None and leaf.grad.dtype == dtype
        theirs = theirs / count
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(leaf.grad.double(), theirs, rtol=0, atol=slack * scale)
    dropped = ~expected.kept.any(0)
    assert not w.grad[dropped].any() and not b.grad[dropped].any()  # type: ignore[index]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_logit_equal_to_the_threshold_stays(engine: str) -> None:
    bias = torch.tensor([3.0, 2.0, torch.tensor(2.0).nextafter(torch.tensor(0.0)).item(), 3.0], requires_grad=True)
    hidden, weight, target = torch.zeros(1, 1), torch.zeros(4, 1), torch.tensor([0])
    Threshold(margin=1.0)(hidden, weight, target, bias=bias, engine=engine).mean().backward()
    assert bias.grad is not None and [g != 0 for g in bias.grad.tolist()] == [True, True, False, True]
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
    assert loss.mean().item() == 0 and loss.count.item() == 0 and loss.nll is not None and loss.nll.item() == 0
    assert h.grad is not None and w.grad is not None and not h.grad.any() and not w.grad.any()
    assert not objective(h, w, torch.full((2, 3), -100), engine=engine, reduction="none").tokens.any()
    assert objective(h[:0], w, torch.zeros(0, 3, dtype=torch.long), engine=engine).mean().item() == 0
    one = objective(h[0, 0], w, torch.tensor(2), engine=engine)  # a single vector, a single id
    expected = naive(h[0, 0], w, None, torch.tensor([2]), **variant).loss.sum()
    torch.testing.assert_close(one.mean().double(), expected, rtol=1e-6, atol=1e-6)
    h, w = leaves(torch.randn(3, 4), torch.randn(1, 4))  # a vocabulary of one leaves no doubt
    objective(h, w, torch.zeros(3, dtype=torch.long), engine=engine).mean().backward()
    assert h.grad is not None and w.grad is not None and not h.grad.any() and not w.grad.any()


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
    assert b.grad is not None and b.grad[1] == 0 and b.grad[3] == 0 and b.grad[2] != 0


@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[5], VARIANTS[9]], ids=title)
@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("quiet", [torch.no_grad, torch.inference_mode])
def test_without_gradients_none_are_made(
    quiet: Any, reduction: Any, variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, weight, bias, target, expected = sample(variant, torch.float64)
    for work in ("_start", "_add", "_finish"):
        monkeypatch.setattr(chunked_module, work, None)
    h, w, b = leaves(hidden, weight, bias)
    for inputs in ((hidden, weight, bias), (h, w, b)):
        with quiet():
            loss = Threshold(**variant)(
                inputs[0], inputs[1], target, bias=inputs[2], engine="chunked", reduction=reduction
            )
        assert not loss.tokens.requires_grad
        torch.testing.assert_close(loss.tokens.sum(), expected.loss.sum(), rtol=0, atol=1e-10)
    with quiet():
        assert Threshold(**variant)(h * 1, w * 1, target, bias=b * 1, engine="chunked").tokens.isfinite()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[9], VARIANTS[15]], ids=title)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_autograd_manners(reduction: Any, variant: dict[str, Any], engine: str) -> None:
    hidden, weight, bias, target, _ = sample(variant, torch.float64)
    objective = Threshold(**variant)

    def total(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return objective(h, w, target, bias=b, engine=engine, reduction=reduction).tokens.sum()

    whole = leaves(hidden, weight, bias)
    loss = total(*whole)
    loss.backward(retain_graph=True)
    once = [leaf.grad.clone() for leaf in whole if leaf.grad is not None]
    loss.backward()
    for leaf, grad in zip(whole, once, strict=True):
        torch.testing.assert_close(leaf.grad, 2 * grad)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()

    for wanted in range(3):  # one input alone
        some = [t.clone().requires_grad_(i == wanted) for i, t in enumerate((hidden, weight, bias))]
        total(*some).backward()
        assert [leaf.grad is not None for leaf in some] == [i == wanted for i in range(3)]
        torch.testing.assert_close(some[wanted].grad, once[wanted])

    for reentrant in (True, False):  # evaluated again during the backward pass
        again = leaves(hidden, weight, bias)
        checkpoint(total, *again, use_reentrant=reentrant).backward()
        for leaf, grad in zip(again, once, strict=True):
            torch.testing.assert_close(leaf.grad, grad)


@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[15]], ids=title)
def test_tied_table(variant: dict[str, Any]) -> None:
    ids, target = torch.tensor([0, 3, 3, 5]), torch.tensor([3, 3, 5, 1])
    table = torch.randn(9, 4, dtype=torch.float64)
    grads = []
    for engine in ENGINES:
        (w,) = leaves(table)
        Threshold(**variant)(torch.tanh(F.embedding(ids, w)), w, target, engine=engine).mean().backward()
        grads.append(w.grad)
    head = naive(torch.tanh(table[ids]), table, None, target, up=torch.full((4,), 0.25), **variant)
    through = head.hidden * (1 - torch.tanh(table[ids]) ** 2)
    for grad in grads:
        torch.testing.assert_close(grad, head.weight.index_add(0, ids, through), rtol=0, atol=1e-10)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_second_derivatives_come_from_the_reference_or_not_at_all(reduction: Any) -> None:
    hidden, weight, _, target, _ = sample({"margin": 1.0}, torch.float64, shape=(2,))
    h, w = leaves(hidden, weight)

    def loss(h: Tensor, w: Tensor, engine: str = "reference") -> Tensor:
        return Threshold(margin=1.0)(h, w, target, engine=engine, reduction=reduction).tokens.sum()

    assert torch.autograd.gradgradcheck(loss, (h, w))
    with pytest.raises(RuntimeError, match=r"second derivative.*engine='reference'"):
        torch.autograd.grad(loss(h, w, "chunked"), h, create_graph=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_changed_before_the_backward_pass_is_noticed(engine: str) -> None:
    h, w = leaves(torch.randn(2, 3), torch.randn(4, 3))
    loss = Threshold()(h, w, torch.tensor([1, 2]), engine=engine, reduction="none").tokens.sum()
    with torch.no_grad():
        w += 1
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_float16_sums_do_not_overflow_before_the_mean() -> None:
    N = 120_000  # the sum of the gradients, 0.75 N, is beyond float16
    h, w = leaves(torch.ones(N, 1, dtype=torch.float16), torch.zeros(4, 1, dtype=torch.float16))
    Threshold()(h, w, torch.zeros(N, dtype=torch.long), engine="chunked").mean().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad.flatten(), torch.tensor([-0.75, 0.25, 0.25, 0.25]).half(), rtol=1e-3, atol=0)


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
