"""Parts of the gradient against loops over positions and rows, and against autograd."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from decone.metrics import gradients
from decone.metrics.gradients import pull_push_norms, pull_push_rows, pull_to_push

CLASSES = 3


def batch(positions: int, size: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slope of a mean cross-entropy, hidden states, targets, and classes of tokens."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(positions, width, generator=random, dtype=torch.float64)
    table = torch.randn(size, width, generator=random, dtype=torch.float64)
    target = torch.randint(size, (positions,), generator=random)
    slope = ((hidden @ table.T).softmax(1) - F.one_hot(target, size)) / positions
    return slope, hidden, target, torch.randint(CLASSES, (size,), generator=random)


def naive(slope: Tensor, hidden: Tensor, target: Tensor, kind: Tensor) -> tuple[list[list[float]], list[list[float]]]:
    """Norms of pull and whole push of each row, and of push by class, each row and position by itself."""
    size, width = slope.shape[1], hidden.shape[1]
    rows = []
    parts = [[0.0] * size for _ in range(CLASSES)]
    for i in range(size):
        pull, push = [0.0] * width, [[0.0] * width for _ in range(CLASSES)]
        for t, right in enumerate(target.tolist()):
            into = pull if right == i else push[int(kind[right])]
            for d in range(width):
                into[d] += float(slope[t, i]) * float(hidden[t, d])
        rows.append([math.hypot(*pull), math.hypot(*map(sum, zip(*push, strict=True)))])
        for c in range(CLASSES):
            parts[c][i] = math.hypot(*push[c])
    return rows, parts


SHAPE = (st.integers(1, 7), st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6))


@given(*SHAPE)
def test_norms_match_loops(positions: int, size: int, width: int, seed: int) -> None:
    given_batch = batch(positions, size, width, seed)
    rows, parts = naive(*given_batch)
    norms = pull_push_norms(*given_batch, CLASSES)
    assert norms.pull.tolist() == pytest.approx([row[0] for row in rows], abs=1e-12)
    assert norms.push.tolist() == pytest.approx([row[1] for row in rows], abs=1e-12)
    for c in range(CLASSES):
        assert norms.push_by_class[c].tolist() == pytest.approx(parts[c], abs=1e-12)


@given(*SHAPE)
def test_parts_add_up_to_the_gradient_of_the_table(positions: int, size: int, width: int, seed: int) -> None:
    _, hidden, target, kind = batch(positions, size, width, seed)
    table = torch.randn(size, width, dtype=torch.float64, requires_grad=True)
    logits = hidden @ table.T
    logits.retain_grad()
    F.cross_entropy(logits, target).backward()
    assert logits.grad is not None
    pull, push = pull_push_rows(logits.grad, hidden, target, kind, CLASSES)
    torch.testing.assert_close(pull + push.sum(0), table.grad, rtol=0, atol=1e-12)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given_batch = batch(9, 23, 5, 0)
    whole = pull_push_norms(*given_batch, CLASSES)
    monkeypatch.setattr(gradients, "BLOCK", 3 * (2 * 9 + (CLASSES + 2) * 5))
    for part, same in zip(pull_push_norms(*given_batch, CLASSES), whole, strict=True):
        torch.testing.assert_close(part, same, rtol=0, atol=1e-14)
    some = pull_push_rows(*given_batch, CLASSES, 7, 11)
    for part, same in zip(some, pull_push_rows(*given_batch, CLASSES), strict=True):
        torch.testing.assert_close(part, same[..., 7:11, :], rtol=0, atol=1e-14)


def test_the_arguments_stay_as_they_are() -> None:
    given_batch = batch(4, 5, 3, 0)
    before = [part.clone() for part in given_batch]
    pull_push_norms(*given_batch, CLASSES)
    assert all(torch.equal(a, b) for a, b in zip(given_batch, before, strict=True))


def test_ratios_match_loops() -> None:
    pull = torch.tensor([[1.0, 0.0, 3.0], [2.0, 5.0, 1.0], [0.0, 1.0, 2.0]])
    push = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.0, 4.0], [4.0, 0.0, 0.5]])
    found = pull_to_push(pull, push)
    assert found.of_average == pytest.approx((1 + 3 + 2 + 5 + 1 + 1 + 2) / (2 + 1 + 4 + 4 + 0.5))
    # Row 1 is never pushed and has no ratio; row 2 at step 0 gets its average push, 1.5.
    each = [1 / 2, 2 / 1, 0 / 4, 3 / 1.5, 1 / 4, 2 / 0.5]
    assert found.average_of == pytest.approx(sum(each) / len(each))


def test_one_row_gives_the_two_ratios_of_the_paper() -> None:
    pull, push = torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0], [4.0]])
    assert pull_to_push(pull, push) == (4 / 5, (3 / 1 + 1 / 4) / 2)


def test_without_push_there_is_no_ratio() -> None:
    assert pull_to_push(torch.ones(2, 3), torch.zeros(2, 3)) == (None, None)
    assert pull_to_push(torch.ones(2, 0), torch.ones(2, 0)) == (None, None)
    assert pull_to_push(torch.zeros(1, 1), torch.ones(1, 1)) == (0.0, 0.0)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused() -> None:
    slope, hidden, target, kind = batch(4, 5, 3, 0)
    with pytest.raises(ValueError, match=r"\[N, V\], \[N, H\] and \[N\]"):
        pull_push_norms(slope, hidden[:3], target, kind, CLASSES)
    with pytest.raises(ValueError, match="one class per token"):
        pull_push_norms(slope, hidden, target, kind[:4], CLASSES)
    with pytest.raises(ValueError, match="target runs from"):
        pull_push_norms(slope, hidden, target - 9, kind, CLASSES)
    with pytest.raises(ValueError, match="kind runs from"):
        pull_push_rows(slope, hidden, target, kind + 1, 1)
    with pytest.raises(ValueError, match=r"must both be \[steps, rows\]"):
        pull_to_push(torch.ones(2, 3), torch.ones(3, 2))
