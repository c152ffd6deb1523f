"""Objectives acting together against the same combination written as loops."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.one_row import one_row
from tests.objectives.naive import length, log_sum_exp
from tests.objectives.naive_history import assert_equal, found, naive_history, sample, seen_before
from torch import Tensor

from decone.engines import select
from decone.engines.contract import Gate, Shift
from decone.objectives import MLE, Compose, Objective, Threshold
from decone.objectives.adversarial import Adversarial
from decone.objectives.contrastive_tying import ContrastiveTying
from decone.objectives.label_smoothing import LabelSmoothing
from decone.objectives.scalegrad import ScaleGrad
from decone.objectives.unlikelihood import Unlikelihood
from decone.training.config import Method

ENGINES = ("reference", "chunked", "one-row")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(select.ENGINES, "one-row", one_row)


class Counting(Objective):
    """Counts targets, penalises the table, and gates the rows of ids never seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(6, dtype=torch.long))
        self.prepared: list[int] = []

    def prepare(self, vocabulary: int) -> None:
        self.prepared.append(vocabulary)

    def observe(self, target: Tensor) -> None:
        self.counts += torch.bincount(target, minlength=6)

    def gate(self) -> Gate:
        return Gate(self.counts < 3, torch.linspace(0, 1, 6), torch.full((6,), 0.3))

    def matrix(self, weight: Tensor) -> Tensor:
        return 0.1 * weight.pow(2).sum()


def together(
    logits: list[Tensor],
    y: int,
    seen: set[int],
    *,
    temperature: float = 1.0,
    gamma: float = 1.0,
    margin: float = math.inf,
    alpha: float = 0.0,
    eps: float = 0.0,
) -> Tensor:
    """Scale, shift, drop; softmax; then unlikelihood and label smoothing over what is left."""
    z = [temperature * v + (0.0 if i in seen else math.log(gamma)) for i, v in enumerate(logits)]
    kept = [i for i in range(len(z)) if i == y or z[i].item() >= z[y].item() - margin]
    total = log_sum_exp([z[i] for i in kept])
    logprob = {i: z[i] - total for i in kept}
    loss = -(1 - eps) * logprob[y] - eps * sum(logprob.values()) / len(kept)
    for c in (seen - {y}) & set(kept):
        loss = loss - alpha * torch.log(1 - logprob[c].exp())
    return loss


COMBINATIONS: list[tuple[list[Objective], dict[str, float]]] = [
    ([Threshold(1.0, 0.8), ScaleGrad(0.3)], {"margin": 1.0, "temperature": 0.8, "gamma": 0.3}),
    ([ScaleGrad(0.3), Unlikelihood(0.7)], {"gamma": 0.3, "alpha": 0.7}),
    ([Threshold(1.5), Unlikelihood(0.7)], {"margin": 1.5, "alpha": 0.7}),
    ([ScaleGrad(0.5), ScaleGrad(0.4), MLE()], {"gamma": 0.2}),
    ([Threshold(1.0, 2.0), Threshold(2.0, 0.3)], {"margin": 1.0, "temperature": 0.6}),
    (
        [LabelSmoothing(0.2), Unlikelihood(0.7), ScaleGrad(0.3), Threshold(1.0, 0.8)],
        {"eps": 0.2, "alpha": 0.7, "gamma": 0.3, "margin": 1.0, "temperature": 0.8},
    ),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(("parts", "settings"), COMBINATIONS, ids=[str(settings) for _, settings in COMBINATIONS])
def test_parts_act_as_one_loop_would(parts: list[Any], settings: dict[str, float], each: bool, engine: str) -> None:
    hidden, weight, bias, target = sample()
    document = torch.tensor([[0, 0, 0, 5, 5, 0, 0], [1, 1, 1, 1, 1, 2, 2]])
    up = torch.randn(target.shape).double() if each else None
    expected = naive_history(hidden, weight, bias, target, partial(together, **settings), up=up, document=document)
    for order in (parts, parts[::-1]):
        ours = found(Compose(*order), hidden, weight, bias, target, up=up, document=document, engine=engine)
        assert_equal(ours, expected)


@given(st.integers(1, 3), st.integers(1, 8), st.integers(2, 6), st.integers(0, 99), st.sampled_from(ENGINES[:2]))
def test_any_shape(B: int, T: int, V: int, seed: int, engine: str) -> None:
    hidden, weight, _, target = sample(B, T, V, 2, seed=seed)
    expected = naive_history(hidden, weight, None, target, partial(together, gamma=0.3, alpha=0.7, margin=2.0))
    both = Compose(ScaleGrad(0.3), Compose(Unlikelihood(0.7), Threshold(2.0)))
    assert_equal(found(both, hidden, weight, None, target, engine=engine), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_adjusts_act_one_after_the_other(engine: str) -> None:
    """Softminus lifts the target relative to the rest; the adversary then lowers it, or did so before."""
    hidden, weight, bias, target = sample(1, 4)
    target.clamp_(min=0)
    adversary, soft = Adversarial(0.3, "fixed"), Threshold(1.0, softminus=1.0)

    def expected(first: str) -> Tensor:
        total = torch.zeros(()).double()
        for h, y in zip(hidden[0], target[0].tolist(), strict=True):
            z = [(h * row).sum() + bias[i] for i, row in enumerate(weight)]
            for step in ("lower", "soft") if first == "lower" else ("soft", "lower"):
                if step == "lower":
                    z[y] = z[y] - 0.3 * length(h)
                else:
                    tau = z[y] - 1.0
                    z = [torch.log((v - tau).exp() - 1) + tau if v > tau else v * 0 - math.inf for v in z]
            total = total + log_sum_exp([v for v in z if v > -math.inf]) - z[y]
        return total

    for parts, first in (((adversary, soft), "lower"), ((soft, adversary), "soft")):
        torch.testing.assert_close(
            found(Compose(*parts), hidden, weight, bias, target, engine=engine)[0], expected(first)
        )
    assert not torch.isclose(expected("lower"), expected("soft"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gate_acts_on_the_gradient_of_all_parts(engine: str) -> None:
    hidden, weight, bias, target = sample()
    both = Compose(Counting(), Unlikelihood(0.7)).eval()
    counts = torch.tensor([9, 0, 9, 0, 9, 0])
    both.parts[0].counts += counts  # type: ignore[operator]  # a module's attributes are not typed
    _, (dh, dw, db) = found(both, hidden, weight, bias, target, engine=engine)
    _, (open_dh, *_) = found(Unlikelihood(0.7), hidden, weight, bias, target, engine=engine)
    torch.testing.assert_close(dh, open_dh)
    gate = both.gate()
    assert gate is not None
    expected, flat = [torch.zeros_like(weight), torch.zeros_like(bias)], hidden.flatten(0, 1)
    for n, (y, seen) in enumerate(zip(target.flatten().tolist(), seen_before(target), strict=True)):
        if y == -100:
            continue
        z = (weight @ flat[n] + bias).requires_grad_()
        (slope,) = torch.autograd.grad(together(list(z), y, seen, alpha=0.7), z)
        factor = (gate.on_rare if gate.rare[y] else gate.on_common).double().clone()
        factor[y] = 1.0
        expected[0] += torch.outer(factor * slope, flat[n])
        expected[1] += factor * slope
    torch.testing.assert_close(dw, expected[0])
    torch.testing.assert_close(db, expected[1])


def test_counters_see_each_step_once_and_are_saved() -> None:
    hidden, weight, _, target = sample()
    both = Compose(Counting(), ScaleGrad(0.5))
    counted = int((target >= 0).sum())
    loss = both(hidden, weight, target)
    assert int(both.parts[0].counts.sum()) == counted
    assert both.parts[0].prepared == [6]  # type: ignore[operator, union-attr]
    torch.testing.assert_close(loss.matrix, 0.1 * weight.pow(2).sum())
    with both.step(target):
        for h, t in zip(hidden, target, strict=True):
            both(h, weight, t)
    assert int(both.parts[0].counts.sum()) == 2 * counted  # type: ignore[operator, union-attr]
    both.eval()
    both(hidden, weight, target)
    fresh = Compose(Counting(), ScaleGrad(0.5))
    fresh.load_state_dict(both.state_dict())
    assert torch.equal(fresh.parts[0].counts, both.parts[0].counts)  # type: ignore[arg-type]
    assert int(fresh.parts[0].counts.sum()) == 2 * counted  # type: ignore[operator, union-attr]


def test_one_part_is_that_part_and_unions_hold() -> None:
    hidden, weight, bias, target = sample()
    for part in (MLE(), Threshold(1.0), ScaleGrad(0.3), LabelSmoothing(0.1)):
        alone, whole = (found(rule, hidden, weight, bias, target) for rule in (part, Compose(part)))
        assert torch.equal(alone[0], whole[0])
        assert all(map(torch.equal, alone[1], whole[1]))
    plain, mixed = Compose(MLE(), Threshold()), Compose(ScaleGrad(), Adversarial(), Unlikelihood())
    assert not plain.history
    assert not plain.vectors
    assert not plain.general
    assert plain.shift() is None
    assert mixed.history
    assert mixed.vectors
    assert mixed.general
    assert not mixed.whole_batch
    assert Compose(Unlikelihood(flatten=True), Threshold()).whole_batch
    shift = Compose(ScaleGrad(0.5), ScaleGrad(0.2)).shift()
    assert isinstance(shift, Shift)
    assert shift.earlier == pytest.approx(-math.log(0.1))


def test_what_cannot_be_joined_says_why() -> None:
    with pytest.raises(ValueError, match="nothing to compose"):
        Compose()
    with pytest.raises(ValueError, match=r"Counting and Counting each gate .* keep one"):
        Compose(Counting(), Compose(Counting(), MLE()))
    with pytest.raises(ValueError, match=r"ContrastiveTying evaluates the loss in its own way.*use it alone"):
        Compose(Threshold(), ContrastiveTying())
    with pytest.raises(ValueError, match="another along the whole batch; drop `flatten`"):
        Compose(ScaleGrad(), Unlikelihood(flatten=True))


def test_composition_on_the_command_line() -> None:
    method = Method.parse("threshold:margin=1,temperature=0.5+scalegrad:gamma=0.5+unlikelihood+row-adamw:decay=always")
    assert [name for name, _ in method.terms] == ["threshold", "scalegrad", "unlikelihood"]
    assert method.optimizer == "row-adamw"
    assert method.optimizer_settings == {"decay": "always"}
    built = method.build_objective()
    assert isinstance(built, Compose)
    assert built.scale() == 0.5
    assert [type(part) for part in built.parts] == [Threshold, ScaleGrad, Unlikelihood]
    assert built.parts[0] is not method.build_objective().parts[0]  # type: ignore[union-attr, index]
    for alone in ("mle", "scalegrad:gamma=0.5", "unlikelihood", "threshold:margin=1", "unlikelihood:flatten=true"):
        assert not isinstance(Method.parse(alone).build_objective(), Compose)
    assert isinstance(Method.parse("mle+adamw").build_objective(), MLE)


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("mle+scalgrad", "neither an objective nor an optimiser; did you mean 'scalegrad'"),
        ("mle+row-adam", "did you mean 'row-adamw'"),
        ("mle+row-adamw+scalegrad", "name one optimiser, and name it last"),
        ("mle+adamw+adamw", "name one optimiser"),
        ("row-adamw", "unknown method 'row-adamw'"),
        ("mle+", "lacks a name"),
        ("mle+scalegrad:gamma=2", r"gamma must lie in \(0, 1\]"),
        ("mle+contrastive_tying", "use it alone"),
        ("mle+adamw:decay=always", "has no setting 'decay'"),
    ],
)
def test_mistakes_on_the_command_line(text: str, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        Method.parse(text)
