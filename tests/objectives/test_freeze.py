"""Freezing against the analytic parts of the gradient, equation 4 of the paper."""

import math
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decone import objectives
from decone.objectives import MLE
from decone.objectives.freeze import Freeze

ENGINES = ("reference", "chunked")


def parts_of(h: Tensor, w: Tensor, target: list[int], rare: list[bool]) -> dict[str, Tensor]:
    """Parts (a), (b), (c) of the gradient of each row, position by position; common rows have all of it in "a"."""
    found = {part: torch.zeros_like(w) for part in "abc"}
    for hidden, y in zip(h, target, strict=True):
        p = torch.softmax(w @ hidden, 0)
        for r in range(len(w)):
            if r == y:
                found["a"][r] += (p[r] - 1) * hidden
            elif not rare[r]:
                found["a"][r] += p[r] * hidden
            else:
                found["c" if rare[y] else "b"][r] += p[r] * hidden
    return found


@pytest.mark.parametrize("parts", ["b", "c", "bc", "abc"])
@pytest.mark.parametrize("engine", ENGINES)
@given(
    counts=st.lists(st.integers(0, 5), min_size=2, max_size=9),
    share=st.sampled_from([0.2, 0.5, 0.8]),
    N=st.integers(1, 8),
    seed=st.integers(0, 2**20),
)
def test_what_is_left_is_the_other_parts(
    parts: Any, engine: str, counts: list[int], share: float, N: int, seed: int
) -> None:
    V, draw = len(counts), torch.Generator().manual_seed(seed)
    order = sorted(range(V), key=lambda k: (-counts[k], k))
    rare = [order.index(k) >= round((1 - share) * V) for k in range(V)]
    hidden, weight = torch.randn(N, 3, generator=draw).double(), torch.randn(V, 3, generator=draw).double()
    target = torch.randint(V, (N,), generator=draw)
    objective = Freeze(share=share, terms=parts, counts=counts)
    h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    padded = torch.cat((target, target.new_tensor([-100])))
    loss = objective(torch.cat((h, h[:1])), w, padded, engine=engine)
    loss.tokens.backward()
    group = objective.rare()
    assert group is not None
    assert group.tolist() == rare
    found = parts_of(hidden, weight, target.tolist(), rare)
    left = sum((found[part] for part in "abc" if part not in parts or part == "a"), torch.zeros_like(weight))
    if parts == "abc":
        left[group] = 0
    torch.testing.assert_close(w.grad, left, rtol=0, atol=1e-12)
    x, y = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    plain = MLE()(x, y, target)
    plain.tokens.backward()
    torch.testing.assert_close(loss.tokens, plain.tokens, rtol=0, atol=1e-12)
    torch.testing.assert_close(h.grad, x.grad, rtol=0, atol=1e-12)  # hidden states learn as ever


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_bias_is_held_like_its_row_and_the_input_side_of_a_tied_table_is_not(engine: str, reduction: str) -> None:
    table = torch.randn(4, 3).double().requires_grad_()
    bias = torch.zeros(4).double().requires_grad_()
    ids, target = torch.tensor([3, 0]), torch.tensor([3, 1])
    objective = Freeze(share=0.5, terms="abc", counts=[5, 4, 1, 1])
    objective(table[ids].tanh(), table, target, bias=bias, engine=engine, reduction=reduction).mean().backward()
    assert bias.grad is not None
    assert bias.grad[:2].all()
    assert not bias.grad[2:].any()
    assert table.grad is not None
    assert not table.grad[2].any()
    assert table.grad[3].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("parts", ["bc", "abc"])
def test_share_zero_is_plain_cross_entropy(parts: Any, engine: str) -> None:
    hidden, weight, target = torch.randn(5, 3), torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 0])
    grads = []
    for objective in (Freeze(share=0.0, terms=parts, counts=[1] * 6), MLE()):
        w = weight.clone().requires_grad_()
        objective(hidden, w, target, engine=engine).mean().backward()
        grads.append(w.grad)
    assert torch.equal(*grads)


def test_counts_are_collected_and_freezing_ends() -> None:
    objective = Freeze(share=0.5, terms="b", collect=2, until=4)
    frozen, weight = [], torch.zeros(4, 2)
    batches = [[0, 0, 0, 3], [1, 1, 2, -100], [2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]]
    for step, batch in enumerate(batches, 1):
        target = torch.tensor(batch)
        objective.prepare(4)
        with objective.step(target):
            objective(torch.zeros(4, 2), weight, target)
            objective(torch.zeros(4, 2), weight, target)
            frozen.append(objective.gate() is not None)
        objective.eval()
        objective(torch.zeros(4, 2), weight, target)
        objective.train()
        if step == 1 or step == 3:  # resumed, into an object that is prepared or not
            fresh = Freeze(share=0.5, terms="b", collect=2, until=4)
            if step == 3:
                fresh.prepare(4)
            fresh.load_state_dict(objective.state_dict())
            objective = fresh
    assert frozen == [False, False, True, True, False]
    rare = objective.rare()
    assert rare is not None
    assert rare.tolist() == [False, False, True, True]  # counts 3, 2, 1, 1 of the first two steps


def test_settings_from_a_command_line() -> None:
    built = objectives.get("freeze", share="0.3", terms="abc", until="900", collect="50")
    assert isinstance(built, Freeze)
    assert (built.share, built.terms, built.until, built.collect) == (0.3, "abc", 900, 50)
    assert objectives.get("freeze", parts="b").terms == "b"  # type: ignore[attr-defined]  # as in earlier runs
    assert objectives.get("freeze", counts=torch.tensor([3, 2])).rare() is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"share": -0.1}, "0.2 freezes"),
        ({"share": 1.1}, "0.2 freezes"),
        ({"share": math.nan}, "0.2 freezes"),
        ({"terms": "a"}, "choose b, c, bc, or abc"),
        ({"collect": 0}, "or pass counts"),
        ({"until": 200}, "above 200"),
        ({"until": 0, "counts": [1]}, "above 0"),
        ({"counts": "5"}, "use collect"),
        ({"counts": [0.5, 1.0]}, "whole numbers"),
        ({"counts": [-1, 1]}, "whole numbers"),
    ],
)
def test_wrong_settings_are_refused_with_the_mend(
    wrong: dict[str, Any], mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=mend):
        Freeze(**wrong)


def test_counts_must_fit_the_table() -> None:
    with pytest.raises(ValueError, match="vocabulary of 2, the table has 3"):
        Freeze(counts=[1, 2])(torch.zeros(1, 2), torch.zeros(3, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"call prepare\(vocabulary\)"), Freeze().step(torch.tensor([1])):
        pass
