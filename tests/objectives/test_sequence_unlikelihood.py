"""Repeated n-grams against a search by hand, and the loss of a continuation against a loop that keeps every step."""

import math
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decone import objectives
from decone.objectives.sequence_unlikelihood import SequenceUnlikelihood, repeated


def by_hand(tokens: list[int], n: int, last_window: bool) -> list[bool]:
    marks, seen = [False] * len(tokens), set()
    for start in range(len(tokens) - n + (1 if last_window else 0)):
        gram = tuple(tokens[start : start + n])
        if gram in seen:
            marks[start : start + n] = [True] * n
        seen.add(gram)
    return marks


@settings(max_examples=100)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=9, max_size=9), min_size=1, max_size=3),
    st.integers(1, 11),
    st.booleans(),
)
def test_marks_are_those_of_a_search_by_hand(rows: list[list[int]], n: int, last_window: bool) -> None:
    marks = repeated(torch.tensor(rows), n, last_window=last_window)
    assert marks.tolist() == [by_hand(row, n, last_window) for row in rows]


def test_the_last_window() -> None:
    twice = [1, 2, 3, 4] * 2
    assert repeated(torch.tensor([twice])).int().tolist() == [[0] * 4 + [1] * 4]
    assert repeated(torch.tensor([twice]), last_window=False).int().tolist() == [[0] * 8]
    assert repeated(torch.tensor([[*twice, 9]]), last_window=False).int().tolist() == [[0] * 4 + [1] * 4 + [0]]
    assert repeated(torch.tensor([[7] * 6])).int().tolist() == [[0, 1, 1, 1, 1, 1]]  # windows may overlap


class Causal(torch.nn.Module):
    """Logits from the last token and the mean of all before, so that every token of the prefix matters."""

    def __init__(self, V: int = 5, H: int = 6) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(V, H).double())
        self.mix = torch.nn.Parameter(torch.randn(H, H).double())
        self.out = torch.nn.Parameter(2 * torch.randn(V, H).double())
        self.calls: list[tuple[int, bool]] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.calls.append((ids.size(1), torch.is_grad_enabled()))
        states = self.table[ids]
        past = states.cumsum(1) / torch.arange(1, ids.size(1) + 1)[:, None]
        return torch.tanh(states + past @ self.mix) @ self.out.T


@pytest.mark.parametrize("last_window", [True, False])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_loss_is_that_of_decoding_with_gradients_step_by_step(n: int, last_window: bool) -> None:
    model, prefix = Causal(), torch.randint(5, (3, 4))
    found = SequenceUnlikelihood(12, n, last_window=last_window)(model, prefix)
    ids, chances = prefix, []
    for _ in range(12):
        chance = model(ids)[:, -1].softmax(-1)
        best = chance.argmax(-1, keepdim=True)
        chances.append(chance.gather(1, best))
        ids = torch.cat((ids, best), 1)
    assert torch.equal(found.tokens, ids[:, 4:])
    marks = torch.tensor([by_hand(row, n, last_window) for row in found.tokens.tolist()])
    assert torch.equal(found.repeats, marks)
    assert marks.any()
    expected = (-(1 - torch.cat(chances, 1)).clamp(min=1e-20).log() * marks).sum() / 36
    torch.testing.assert_close(found.loss, expected)
    ours = torch.autograd.grad(found.loss, [model.table, model.mix, model.out])
    theirs = torch.autograd.grad(expected, [model.table, model.mix, model.out])
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_one_pass_with_gradient_and_prefixes_are_not_searched() -> None:
    model, prefix = Causal(), torch.randint(5, (2, 3))
    SequenceUnlikelihood(5)(model, prefix)
    assert model.calls == [(3 + i, False) for i in range(5)] + [(7, True)]
    follow = torch.tensor([[0.0, 9, 0, 0], [0, 0, 9, 0], [0, 0, 0, 9], [9, 0, 0, 0]])  # 0 1 2 3 0 1 ...
    found = SequenceUnlikelihood(4, 4)(lambda ids: follow[ids], torch.tensor([[0, 1, 2, 3]]))
    assert found.tokens.tolist() == [[0, 1, 2, 3]]
    assert not found.repeats.any()
    assert found.loss == 0


def test_a_certain_repeat_stays_finite_and_nothing_repeated_has_no_gradient() -> None:
    sure = (1000 * torch.eye(3)).requires_grad_()
    found = SequenceUnlikelihood(6, 2)(lambda ids: sure[ids], torch.tensor([[1]]))
    assert found.loss.item() == pytest.approx(-math.log(1e-20) * 5 / 6)
    found.loss.backward()
    assert sure.grad is not None
    assert not sure.grad.any()  # at the clamp
    calm = torch.randn(3, 3, requires_grad=True)
    SequenceUnlikelihood(2, 4)(lambda ids: calm[ids], torch.tensor([[1]])).loss.backward()
    assert calm.grad is not None
    assert not calm.grad.any()


def test_training_on_it_takes_the_probability_from_repeats() -> None:
    model, prefix = Causal(V=12), torch.randint(12, (4, 3))
    objective, optimizer = SequenceUnlikelihood(16, 2), torch.optim.Adam(model.parameters(), lr=0.05)
    before = objective(model, prefix)
    for _ in range(40):
        optimizer.zero_grad()
        objective(model, prefix).loss.backward()
        optimizer.step()
    after = objective(model, prefix)
    assert before.repeats.any()
    assert after.loss < before.loss / 3
    assert after.repeats.sum() < before.repeats.sum()


def test_it_is_no_method_of_the_registry() -> None:
    assert "sequence_unlikelihood" not in objectives.names()


@pytest.mark.parametrize(("wrong", "mend"), [({"length": 0}, "the paper's is 100"), ({"n": 0}, "the paper's is 4")])
def test_wrong_settings(wrong: dict[str, Any], mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        SequenceUnlikelihood(**wrong)


def test_wrong_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"must be \[B, T\]"):
        SequenceUnlikelihood(2)(lambda ids: torch.zeros(*ids.shape, 3), torch.zeros(3).long())
    with pytest.raises(ValueError, match=r"lambda ids: model\(ids\).logits"):
        SequenceUnlikelihood(2)(lambda ids: torch.zeros(3), torch.zeros(1, 3).long())
