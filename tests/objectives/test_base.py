"""What every objective inherits: three normalisers, ignored positions, counters, packed documents, and errors."""

import math
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from decone.engines.contract import Shift, Tokens
from decone.objectives import MLE, Objective, Threshold

ENGINES = ("reference", "chunked")


class Penalised(Objective):
    def matrix(self, weight: Tensor) -> Tensor:
        return 0.1 * weight.pow(2).sum()


class Counting(Objective):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[int]] = []

    def prepare(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def observe(self, target: Tensor) -> None:
        assert self.vocabulary == 6  # known before the first target is seen
        self.calls.append(target.tolist())


class Novel(Objective):
    """Multiplies the probability of tokens that are new to their sequence by 0.2."""

    history = True

    def shift(self) -> Shift:
        return Shift(novel=math.log(0.2))


class Repeats(Objective):
    """Charges half the probability given to tokens that were targets before."""

    history = True

    def extra(self, logprob: Tensor, tokens: Tokens) -> Tensor:
        return 0.5 * (logprob.exp() * tokens.earlier_mask()).sum(1)


@pytest.fixture
def untyped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns off the shape checks that only tests have, so that a user's error reaches the message for users."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def sample() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden, weight = torch.randn(2, 2, 3, 4).double().requires_grad_(), torch.randn(6, 4).double().requires_grad_()
    target = torch.tensor([[[0, 5, -100], [1, 1, 2]], [[-100, -100, -100], [3, 0, -100]]])
    return hidden, weight, torch.randn(6).double(), target


@pytest.mark.parametrize("engine", ENGINES)
def test_the_three_numbers(engine: str) -> None:
    hidden, weight, bias, target = sample()
    loss = Penalised()(hidden, weight, target, bias=bias, engine=engine)
    summed = F.cross_entropy(F.linear(hidden, weight, bias).flatten(0, 2), target.flatten(), reduction="sum")
    assert loss.count.item() == 7
    assert loss.count.dtype == torch.int64
    torch.testing.assert_close(loss.tokens, summed)
    torch.testing.assert_close(loss.matrix, 0.1 * weight.pow(2).sum())
    torch.testing.assert_close(loss.mean(), summed / 7 + 0.1 * weight.pow(2).sum())
    assert loss.nll is not None
    assert not loss.nll.requires_grad
    torch.testing.assert_close(loss.nll, summed.detach())
    ours = torch.autograd.grad(loss.mean(), (hidden, weight))
    theirs = torch.autograd.grad(summed / 7 + 0.1 * weight.pow(2).sum(), (hidden, weight))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_plain_nll_knows_neither_threshold_nor_temperature(engine: str) -> None:
    hidden, weight, bias, target = sample()
    loss = Threshold(margin=0.1, temperature=3.0)(hidden, weight, target, bias=bias, engine=engine)
    plain = F.cross_entropy(F.linear(hidden, weight, bias).flatten(0, 2), target.flatten(), reduction="sum")
    assert loss.nll is not None
    assert not torch.isclose(loss.tokens, plain)
    torch.testing.assert_close(loss.nll, plain.detach())
    assert MLE()(hidden, weight, target, engine=engine, nll=False).nll is None


@pytest.mark.parametrize("engine", ENGINES)
def test_one_loss_per_target_has_the_shape_of_the_targets(engine: str) -> None:
    hidden, weight, bias, target = sample()
    loss = MLE()(hidden, weight, target, bias=bias, engine=engine, reduction="none")
    plain = F.cross_entropy(F.linear(hidden, weight, bias).flatten(0, 2), target.flatten(), reduction="none")
    torch.testing.assert_close(loss.tokens, plain.view(target.shape))
    assert (loss.tokens[target == -100] == 0).all()
    torch.testing.assert_close(loss.mean(), plain.sum() / 7)


@pytest.mark.parametrize("engine", ENGINES)
def test_any_id_can_be_the_one_to_ignore(engine: str) -> None:
    hidden, weight, bias, target = sample()
    shown = target.masked_fill(target == -100, 4)
    loss = MLE()(hidden, weight, shown, bias=bias, ignore_index=4, engine=engine)
    torch.testing.assert_close(loss.mean(), MLE()(hidden, weight, target, bias=bias, engine=engine).mean())


@pytest.mark.parametrize("engine", ENGINES)
def test_micro_batches_add_up_to_the_whole(engine: str) -> None:
    hidden, weight, bias, target = sample()
    whole = torch.autograd.grad(MLE()(hidden, weight, target, bias=bias, engine=engine).mean(), weight)[0]
    parts = [MLE()(h, weight, t, bias=bias, engine=engine) for h, t in zip(hidden, target, strict=True)]
    step = sum((part.tokens for part in parts), torch.zeros(()).double()) / sum(int(part.count) for part in parts)
    torch.testing.assert_close(torch.autograd.grad(step, weight)[0], whole)


def test_counters_see_each_target_once_per_optimiser_step() -> None:
    hidden, weight, _, target = sample()
    objective = Counting()
    objective(hidden, weight, target)
    assert objective.calls == [[0, 5, 1, 1, 2, 3, 0]]  # a call of its own is a step; ignored positions are not seen
    with objective.step(target):
        for h, t in zip(hidden, target, strict=True):
            objective(h, weight, t)
    assert objective.calls[1:] == [[0, 5, 1, 1, 2, 3, 0]]
    with objective.step(torch.tensor([1, 9, 9]), ignore_index=9):
        pass
    assert objective.calls[2:] == [[1]]
    objective.eval()
    objective(hidden, weight, target)
    with objective.step(target):
        objective(hidden, weight, target)
    assert len(objective.calls) == 3
    objective.train()
    with pytest.raises(KeyError), objective.step(target):
        raise KeyError
    objective(hidden, weight, target)
    assert len(objective.calls) == 5  # the step that failed, and the call after it


def earlier(target: Tensor, document: Tensor | None) -> list[set[int]]:
    """The ids that were targets before each position, in its own sequence and document."""
    seen = []
    for b, row in enumerate(target.tolist()):
        for t in range(len(row)):
            before = [s for s in range(t) if document is None or document[b, s] == document[b, t]]
            seen.append({row[s] for s in before} - {-100})
    return seen


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [Novel, Repeats])
def test_history_stays_inside_sequence_and_document(kind: type[Objective], packed: bool, engine: str) -> None:
    target = torch.tensor([[1, 1, 2, 1, 2, 3], [2, -100, 1, 2, 2, 0]])
    document = torch.tensor([[0, 0, 0, 7, 7, 7], [7, 7, 0, 0, 7, 7]]) if packed else None  # one returns after a gap
    hidden, weight = torch.randn(2, 6, 3).double().requires_grad_(), torch.randn(5, 3).double().requires_grad_()
    loss = kind()(hidden, weight, target, document=document, engine=engine)
    total = torch.zeros(()).double()
    for h, y, seen in zip(hidden.flatten(0, 1), target.flatten().tolist(), earlier(target, document), strict=True):
        if y == -100:
            continue
        odds = [math.e ** (h @ w) * (0.2 if kind is Novel and i not in seen else 1) for i, w in enumerate(weight)]
        chance = [odd / sum(odds) for odd in odds]
        total = total - chance[y].log() + (0.5 * sum(chance[i] for i in seen) if kind is Repeats else 0)
    torch.testing.assert_close(loss.tokens, total, rtol=0, atol=1e-10)
    ours, theirs = (torch.autograd.grad(value, (hidden, weight)) for value in (loss.tokens, total))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_history_with_nothing_to_count(engine: str) -> None:
    hidden = torch.randn(2, 3, 4, requires_grad=True)
    document = torch.zeros(2, 3, dtype=torch.long)
    for given in (None, document):
        loss = Repeats()(hidden, torch.randn(5, 4), torch.full((2, 3), -100), document=given, engine=engine)
        loss.mean().backward()
        assert loss.mean().item() == 0
        assert hidden.grad is not None
        assert not hidden.grad.any()


def test_looking_back_without_asking_is_an_error() -> None:
    tokens = Tokens(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ValueError, match="set `history = True`"):
        tokens.earlier_mask()


def test_only_overridden_hooks_need_autograd() -> None:
    assert not MLE().general
    assert not Novel().general
    assert Repeats().general
    assert not Threshold().general
    assert Threshold(softminus=1.0).general
    assert Threshold(below="detached").general


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"target": torch.zeros(2, 4).long()}, "needs a target of shape .2, 3.*shift both"),
    ({"hidden": torch.zeros(2, 3, 5)}, r"must be \[V, 5\]"),
    ({"weight": torch.zeros(6)}, r"must be \[V, 4\]"),
    ({"bias": torch.zeros(5)}, r"must be \[6\]"),
    ({"document": torch.zeros(2, 2).long()}, "shape of target"),
    ({"reduction": "mean"}, r"choose 'sum' \(and loss.mean"),
    ({"engine": "chunk"}, "unknown engine 'chunk'; choose one of auto"),
    ({"target": torch.full((2, 3), 6)}, "target 6 is outside the vocabulary of 6; mark.*-100"),
    ({"target": torch.full((2, 3), -1)}, "target -1 is outside.*ignore_index"),
    ({"target": torch.full((2, 3), -100), "ignore_index": -1}, "target -100 is outside.*ignore_index .-1"),
    ({"target": torch.zeros(2, 3)}, r"whole numbers, pass target.long\(\)"),
    ({"hidden": torch.zeros(2, 3, 4).bfloat16()}, "mix bfloat16, float32; cast them, or call in torch.autocast"),
]


@pytest.mark.parametrize(("wrong", "mend"), WRONG, ids=[mend[:24] for _, mend in WRONG])
@pytest.mark.usefixtures("untyped")
def test_wrong_inputs_are_refused_with_the_mend(wrong: dict[str, Any], mend: str) -> None:
    right = {"hidden": torch.zeros(2, 3, 4), "weight": torch.zeros(6, 4), "target": torch.zeros(2, 3).long()}
    with pytest.raises(ValueError, match=mend):
        MLE()(**(right | wrong))
