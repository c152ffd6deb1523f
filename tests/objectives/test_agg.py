"""Adaptive gradient gating against the paper's three losses by autograd; its counters against a brute-force deque."""

import math
import subprocess
import sys
from collections import Counter, deque
from functools import partial
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from decone import objectives
from decone.engines import select
from decone.engines.chunked import chunked
from decone.objectives import MLE, Threshold
from decone.objectives.agg import AGG
from decone.objectives.compose import Compose
from decone.objectives.cosreg import CosReg
from decone.training import checkpoint

ENGINES = ("reference", "chunked")


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(select.ENGINES, "chunked", partial(chunked, chunk_bytes=240))
        yield


def gates(history: list[list[int]], V: int, alpha: float, K: int, special: set[int] = frozenset()) -> Any:
    """Rare group, g1 and g2 (of a token that is not the target) from the targets of all steps, token by token."""
    window = deque(history, maxlen=K)
    a = [sum(step.count(k) for step in window) for k in range(V)]
    rare = [a[k] / len(window) < alpha and k not in special for k in range(V)]
    mean = sum(a[k] for k in range(V) if rare[k]) / max(1, sum(rare))
    g1 = [min(1.0, a[k] / len(window)) if rare[k] else 1.0 for k in range(V)]
    g2 = [min(a[k] / (mean + 1e-7), 1.0) if rare[k] else 1.0 for k in range(V)]
    return rare, g1, g2


def three_losses(
    h: Tensor,
    w: Tensor,
    b: Tensor | None,
    target: list[int],
    rare: list[bool],
    g1: list[float],
    g2: list[float],
    eps: float,
) -> Tensor:
    """Equations 9 and 10, one position after the other; value 2 x NLL, each parameter hears one term."""
    b = w.new_zeros(len(w)) if b is None else b
    total = w.new_zeros(())
    for hidden, y in zip(h, target, strict=True):
        gate = w.new_tensor([1.0 if k == y else (g2 if rare[y] else g1)[k] for k in range(len(w))])
        z0 = w.detach() @ hidden + b.detach()
        plain = w @ hidden.detach() + b
        gated = gate * plain + (1 - gate) * plain.detach()
        for z in (z0, gated):
            logprob = z.log_softmax(0)
            total = total - (1 - eps) * logprob[y] - eps * logprob.mean()
    return total


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.clone().requires_grad_() for t in tensors]


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("engine", ENGINES)
@given(
    V=st.integers(2, 12),
    H=st.integers(1, 4),
    shape=st.sampled_from([(1, 1), (2, 3), (3, 4)]),
    alpha=st.sampled_from([0.2, 0.5, 1.0, 1.5, 3.0]),
    K=st.integers(1, 4),
    bias=st.booleans(),
    special=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_value_and_gradients_are_those_of_the_three_losses(
    engine: str,
    eps: float,
    V: int,
    H: int,
    shape: tuple[int, int],
    alpha: float,
    K: int,
    bias: bool,
    special: bool,
    seed: int,
) -> None:
    draw = torch.Generator().manual_seed(seed)
    objective = AGG(alpha=alpha, window=K, special="0" if special else (), label_smoothing=eps)
    history = []
    for _ in range(3):
        hidden = torch.randn(*shape, H, generator=draw).double()
        weight, offset = torch.randn(V, H, generator=draw).double(), torch.randn(V, generator=draw).double()
        target = (torch.rand(shape, generator=draw) ** 3 * V).long()
        target[torch.rand(shape, generator=draw) < 0.2] = -100
        counted = target[target != -100].tolist()
        history.append(counted)
        group = gates(history, V, alpha, K, {0} if special else set())
        h, w, b = leaves(hidden, weight, offset)
        loss = objective(h, w, target, bias=b if bias else None, engine=engine)
        assert objective.rare().tolist() == group[0]
        x, y, c = leaves(hidden, weight, offset)
        naive = three_losses(x.flatten(0, 1)[target.flatten() != -100], y, c if bias else None, counted, *group, eps)
        torch.testing.assert_close(2 * loss.tokens, naive, rtol=0, atol=1e-10)
        if not counted:
            continue
        loss.tokens.backward()
        naive.backward()
        for mine, other in ((h, x), (w, y), *(((b, c),) if bias else ())):
            torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_loss_per_target(engine: str) -> None:
    hidden, weight = torch.randn(2, 3, 4).double(), torch.randn(7, 4).double()
    target, up = torch.tensor([[0, 1, -100], [1, 1, 2]]), torch.rand(2, 3).double()
    h, w = leaves(hidden, weight)
    loss = AGG(alpha=1.5)(h, w, target, engine=engine, reduction="none")
    (loss.tokens * up).sum().backward()
    group = gates([[0, 1, 1, 1, 2]], 7, 1.5, 1)
    x, y = leaves(hidden, weight)
    each = [
        three_losses(x[i, j][None], y, None, [int(target[i, j])], *group, 0.0) if target[i, j] >= 0 else 0 * y.sum()
        for i in range(2)
        for j in range(3)
    ]
    (torch.stack(each) * up.flatten()).sum().backward()
    torch.testing.assert_close(2 * loss.tokens.flatten(), torch.stack(each))
    torch.testing.assert_close(h.grad, x.grad, rtol=0, atol=1e-10)
    torch.testing.assert_close(w.grad, y.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tied_table_hears_its_input_side_ungated(engine: str) -> None:
    table, ids, target = torch.randn(6, 3).double(), torch.tensor([5, 4, 0, 5]), [0, 1, 1, 2]
    group = gates([target], 6, 1.5, 1)
    (w,), (y,) = leaves(table), leaves(table)
    AGG(alpha=1.5)(torch.tanh(F.embedding(ids, w)), w, torch.tensor(target), engine=engine).tokens.backward()
    three_losses(torch.tanh(F.embedding(ids, y)), y, None, target, *group, 0.0).backward()
    torch.testing.assert_close(w.grad, y.grad, rtol=0, atol=1e-10)
    assert group[0][5]
    assert w.grad is not None
    assert w.grad[5].any()  # rare, no target: only its use as input moves it


def test_hidden_states_pass_gradcheck_and_the_table_does_where_nothing_is_rare() -> None:
    target = torch.tensor([1, 0, 3])
    h, w = leaves(torch.randn(3, 2).double(), torch.randn(4, 2).double())
    for engine in ENGINES:
        gated, plain = AGG(alpha=1.5).eval(), AGG(alpha=0.5, special=[2])
        for objective in (gated, plain):
            objective.prepare(4)
            objective.observe(target)
        assert torch.autograd.gradcheck(lambda h: gated(h, w.detach(), target, engine=engine).tokens, h)  # noqa: B023
        plain.eval()
        assert torch.autograd.gradcheck(lambda h, w: plain(h, w, target, engine=engine).tokens, (h, w))  # noqa: B023


@pytest.mark.parametrize("micro_batches", ["step", "forward"])
@pytest.mark.parametrize("K", [1, 2, 5, 12])
def test_counts_are_those_of_a_deque_through_accumulation_and_resuming(
    K: int, micro_batches: Any, tmp_path: Path
) -> None:
    V, draw = 30, torch.Generator().manual_seed(K)
    objective = AGG(window=K, micro_batches=micro_batches)
    objective.prepare(V)
    weight = torch.zeros(V, 2)
    remembered: deque[Counter[int]] = deque(maxlen=K)
    for step in range(2 * K + 5):
        target = (torch.rand(3, 2, 8, generator=draw) ** 4 * V).long()
        target[0, 0, 0] = -100
        with objective.step(target):
            for part in target:
                if micro_batches == "forward":
                    remembered.append(Counter(part[part >= 0].tolist()))
                objective(torch.zeros(2, 8, 2), weight, part)
        if micro_batches == "step":
            remembered.append(Counter(target[target >= 0].tolist()))
        expected = sum(remembered, Counter())
        total = objective.recent.total
        assert total is not None
        assert total.dtype == torch.int64
        assert total.tolist() == [expected[k] for k in range(V)]
        assert len(objective.recent) == len(remembered)
        assert objective.steps == (step + 1) * (3 if micro_batches == "forward" else 1)
        if step in (K, K + 2):  # resumed from a file, into an object that may or may not be prepared already
            folder = checkpoint.save(tmp_path, step, {"w": weight}, {"objective": objective.state_dict()})
            fresh = AGG(window=K, micro_batches=micro_batches)
            if step == K:
                fresh.prepare(V)
            fresh.load_state_dict(checkpoint.load(folder)[2]["objective"])
            objective = fresh


def test_resuming_goes_on_exactly() -> None:
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randint(9, (4,), generator=draw) for _ in range(12)]
    for settings in ({"static_after": 3}, {"static_after": 4, "static_counts": False}, {"alpha_frequency": 0.1}, {}):
        whole = AGG(alpha=0.4, window=5, **settings)
        whole.prepare(9)
        for batch in batches[:6]:
            whole.observe(batch)
        state, half = whole.state_dict(), AGG(alpha=0.4, window=5, **settings)
        kept = whole.rare().clone()
        half.load_state_dict(state)
        assert torch.equal(half.rare(), kept)
        for batch in batches[6:]:
            whole.observe(batch)
            half.observe(batch)
            one, other = whole.gate(), half.gate()
            assert one is not None
            assert other is not None
            assert all(
                torch.equal(mine, theirs) for mine, theirs in zip(vars(one).values(), vars(other).values(), strict=True)
            )
    with pytest.raises(ValueError, match="vocabulary of 9, the table has 8"):
        half.prepare(8)
    with pytest.raises(ValueError, match="remember 5 steps, the window is 4"):
        AGG(window=4).load_state_dict(half.state_dict())
    AGG().load_state_dict(AGG().state_dict())  # nothing counted yet


def test_evaluation_leaves_the_counters_alone() -> None:
    objective, weight, target = AGG(), torch.zeros(5, 2), torch.tensor([1, 2])
    objective(torch.zeros(2, 2), weight, target)
    before = objective.recent.total.clone()  # type: ignore[union-attr]
    objective.eval()
    objective(torch.zeros(2, 2), weight, target)
    with objective.step(target):
        objective(torch.zeros(2, 2), weight, target)
    assert torch.equal(objective.recent.total, before)
    assert objective.steps == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ENGINES)
def test_unseen_rows_get_exactly_no_gradient_in_the_first_step(engine: str) -> None:
    h, w = leaves(torch.randn(6, 4), torch.randn(50, 4))
    target = torch.tensor([3, 3, 7, 9, 9, 9])
    objective = AGG(special=[0, 1])
    objective(h, w, target, engine=engine).mean().backward()
    moved = {0, 1, 3, 7, 9}
    assert w.grad is not None
    assert {k for k in range(50) if w.grad[k].any()} == moved
    assert set(objective.rare().logical_not().nonzero().flatten().tolist()) == moved


def test_the_group_jumps_where_a_count_over_the_steps_falls_below_alpha() -> None:
    """Types seen once leave at step 34, twice at 67, ...; exactly 3 in 100 and 6 in 200 are not below 0.03."""
    objective = AGG(alpha=0.03, window=1000)
    objective.prepare(8)
    first = torch.tensor([k for k in range(1, 7) for _ in range(k)] + [7])  # token k occurs k times, 7 always
    jumps, before = [], [True] + 7 * [False]
    for step in range(1, 206):
        objective.observe(first if step == 1 else torch.tensor([7]))
        rare = objective.rare().tolist()
        if rare != before:
            jumps.append((step, rare.index(False) - 1))
        before = rare
    assert jumps == [(34, 1), (67, 2), (101, 3), (134, 4), (167, 5), (201, 6)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "settings", [{"alpha": 0.0}, {"alpha": 1.0}, {"alpha": 9.0, "g1": False, "g2": False}, {"alpha_frequency": 0.0}]
)
def test_plain_cross_entropy_where_nothing_is_gated(settings: dict[str, Any], engine: str) -> None:
    for dtype in (torch.float64, torch.float32):
        hidden, weight = torch.randn(2, 5, 4).to(dtype), torch.randn(4, 4).to(dtype)
        target = torch.tensor([[0, 1, 2, 3, -100], [3, 2, 1, 0, 0]])  # every type, so that no group is rare below 1
        grads = []
        for objective in (AGG(**settings), MLE()):
            h, w = leaves(hidden, weight)
            loss = objective(h, w, target, engine=engine)
            loss.mean().backward()
            grads.append((loss.mean(), h.grad, w.grad))
        near = {"rtol": 0.0, "atol": 0.0 if "g1" not in settings else 8 * torch.finfo(dtype).eps}
        for mine, other in zip(*grads, strict=True):
            torch.testing.assert_close(mine, other, **near)


def test_each_gate_can_be_switched_off() -> None:
    target = torch.tensor([0, 0, 1])
    gates_of = {}
    for g1, g2 in ((True, True), (True, False), (False, True)):
        objective = AGG(alpha=1.5, g1=g1, g2=g2)
        objective.prepare(4)
        objective.observe(target)
        gate = objective.gate()
        assert gate is not None
        gates_of[g1, g2] = (gate.on_common.tolist(), gate.on_rare.tolist())
    rate, share = [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]
    assert gates_of[True, True] == (rate, share)
    assert gates_of[True, False] == (rate, [1.0] * 4)
    assert gates_of[False, True] == ([1.0] * 4, share)


def test_a_static_group_stays() -> None:
    for static_counts in (True, False):
        objective = AGG(alpha=1.0, window=10, static_after=2, static_counts=static_counts)
        objective.prepare(3)
        for batch in ([0, 0, 1], [0, 0], [1, 1, 1, 2], [1, 1, 2, 2]):
            objective.observe(torch.tensor(batch))
        assert objective.rare().tolist() == [False, True, True]  # after two steps; all of them occur often now
        gate = objective.gate()
        assert gate is not None
        assert gate.on_common.tolist() == ([1.0, 0.5, 0.0] if static_counts else [1.0, 1.0, 0.75])


def test_a_relative_frequency_is_a_border_too() -> None:
    objective = AGG(alpha_frequency=0.25, window=2)
    objective.prepare(4)
    for batch in ([3] * 50, [0, 0, 1, 2], [0, 0, 0, 1]):
        objective.observe(torch.tensor(batch))
    assert objective.rare().tolist() == [False, False, True, True]  # 5/8, 2/8 (not below), 1/8, 0


def test_special_ids_from_a_command_line() -> None:
    assert AGG(special="0,1,2,3").special == AGG(special="0/1/2/3").special == AGG(special=[0, 1, 2, 3]).special
    built = objectives.get("agg", special="3/5", g1="false", static_after="10", window="4", alpha_frequency="1e-6")
    assert isinstance(built, AGG)
    assert built.special == (3, 5)
    assert not built.g1
    assert built.static_after == 10
    with pytest.raises(ValueError, match="special 9 is outside the vocabulary of 9"):
        AGG(special=[9]).prepare(9)


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"alpha": -0.1}, "0 is plain"),
        ({"alpha": math.nan}, "0 is plain"),
        ({"alpha": math.inf}, "0 is plain"),
        ({"window": 0}, "window must be 1"),
        ({"alpha_frequency": 1.5}, "leave it out to use alpha"),
        ({"alpha_frequency": math.nan}, "leave it out to use alpha"),
        ({"static_after": 0}, "leave it out to stay dynamic"),
        ({"label_smoothing": 1.0}, "0 switches it off"),
        ({"special": "0,x"}, "for example 0/1/2/3"),
        ({"special": [-1]}, "for example 0/1/2/3"),
        ({"micro_batches": "each"}, "choose step or forward"),
    ],
)
def test_wrong_settings_are_refused_with_the_mend(
    wrong: dict[str, Any], mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=mend):
        AGG(**wrong)


def test_counting_needs_a_vocabulary_and_targets_inside_it() -> None:
    with pytest.raises(ValueError, match=r"call prepare\(vocabulary\)"), AGG().step(torch.tensor([1])):
        pass
    objective = AGG()
    objective.prepare(3)
    with pytest.raises(ValueError, match="target 3 is outside the vocabulary of 3"):
        objective.observe(torch.tensor([3]))


TWO_PROCESSES = """
import sys
import torch
from safetensors.torch import save_file
from decone.objectives.agg import AGG
from decone.objectives.compose import Compose
from decone.objectives.cosreg import CosReg

torch.set_num_threads(1)
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world > 1:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
draw, found = torch.Generator().manual_seed(4), {}
objective = AGG(alpha=0.8, window=2)
for step in range(3):
    hidden = torch.randn(4, 5, 3, generator=draw, dtype=torch.float64).requires_grad_()
    weight = torch.randn(20, 3, generator=draw, dtype=torch.float64).requires_grad_()
    target = (torch.rand(4, 5, generator=draw) ** 3 * 20).long()
    loss = objective(hidden[rank::world], weight, target[rank::world])
    loss.tokens.backward()
    if rank == 0:
        with torch.no_grad():
            objective(hidden, weight, target)  # one process evaluates, and waits for no other
    if world > 1:
        torch.distributed.all_reduce(weight.grad)
        torch.distributed.all_reduce(hidden.grad)
    gate = objective.gate()
    found |= {f"{step}.{name}": value.contiguous() for name, value in vars(gate).items()}
    found |= {f"{step}.hidden": hidden.grad, f"{step}.weight": weight.grad}
save_file(found, f"{folder}/{rank}-of-{world}.safetensors")
"""


def test_two_processes_count_the_whole_batch(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", TWO_PROCESSES, str(rank), "2", str(tmp_path)] for rank in (0, 1)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", "0", "1", str(tmp_path)])
        exec(TWO_PROCESSES, {})
    for process in running:
        _, error = process.communicate(timeout=240)
        assert process.returncode == 0, error
    one, *two = (load_file(tmp_path / f"{name}.safetensors") for name in ("0-of-1", "0-of-2", "1-of-2"))
    for name, expected in one.items():
        for found in two:
            if name.endswith(("hidden", "weight")):
                torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-12)
            else:
                assert torch.equal(found[name], expected)
    assert one["2.rare"].any()
    assert not one["2.rare"].all()


def test_composed_with_a_threshold_and_a_penalty() -> None:
    """The gate scales what the threshold leaves, the penalty stands beside; counters are saved with the whole."""
    hidden, weight, target = torch.randn(6, 3).double(), torch.randn(8, 3).double(), torch.tensor([0, 0, 1, 1, 1, 2])

    def made() -> Compose:
        return Compose(AGG(alpha=1.5), Threshold(margin=0.5), CosReg(0.1))

    both, (w,) = made(), leaves(weight)
    both(hidden, w, target, engine="chunked").mean().backward()
    logits = hidden @ weight.T
    kept = (logits >= logits.gather(1, target[:, None]) - 0.5).scatter(1, target[:, None], True)
    dz = logits.masked_fill(~kept, -math.inf).softmax(1) - F.one_hot(target, 8)
    rare, g1, g2 = gates([target.tolist()], 8, 1.5, 1)
    gate = torch.tensor([g2 if rare[y] else g1 for y in target.tolist()]).double().scatter(1, target[:, None], 1.0)
    (x,) = leaves(weight)
    CosReg(0.1).matrix(x).backward()
    torch.testing.assert_close(w.grad, (dz * gate).T @ hidden / 6 + x.grad, rtol=0, atol=1e-12)
    other = made()
    other.load_state_dict(both.state_dict())
    one, two = both.gate(), other.gate()
    assert one is not None
    assert two is not None
    assert torch.equal(one.on_rare, two.on_rare)
