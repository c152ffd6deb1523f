"""The table over two and over four ranks against one process's `reference`, and what is refused."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.engines.sharded_worker import PROBLEMS, WORLD, Gated, Net, batch, results
from torch import Tensor, distributed

from decone.engines import vocab_parallel as module
from decone.engines.contract import Request, Tokens, reference
from decone.engines.shard import shard
from decone.engines.vocab_parallel import vocab_parallel
from decone.objectives import MLE, Objective, Threshold
from decone.objectives.unlikelihood import Unlikelihood

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which four processes have written."""
    folder = tmp_path_factory.mktemp("ranks")
    paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    command = [sys.executable, "-m", "tests.engines.sharded_worker"]
    running = [
        subprocess.Popen(
            [*command, str(rank), str(folder)],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"log-{rank}").open("w"),
        )
        for rank in range(WORLD)
    ]
    try:
        ended = [process.wait(timeout=240) for process in running]
    finally:
        for process in running:
            process.kill()
    assert not any(ended), "\n".join((folder / f"log-{rank}").read_text()[-3000:] for rank in range(WORLD))
    return folder


def largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0


@pytest.mark.parametrize("ranks", ["two", "four"])
@pytest.mark.parametrize("title", PROBLEMS)
def test_ranks_together_are_one_process(found: Path, title: str, ranks: str) -> None:
    problem = PROBLEMS[title]
    low = problem.dtype == torch.bfloat16
    expected = results(reference, problem.rule(), problem, lambda table: table.detach(), exact=not low)
    files = [load_file(found / f"{ranks}-{rank}.safetensors") for rank in range(WORLD)]
    parts = [{name: file[f"{title}: {name}"] for name in expected} for file in files]
    for name in expected:
        if name in ("weight", "bias"):
            # On the 2 x 2 mesh the first two ranks hold one whole table and the last two another.
            cuts = [parts] if ranks == "four" else [parts[:2], parts[2:]]
            wholes = [torch.cat([part[name] for part in cut]) for cut in cuts]
        else:
            wholes = [part[name] for part in parts]
            assert all(torch.equal(whole, wholes[0]) for whole in wholes), f"{name} differs between ranks"
        if name == "live":
            continue
        slack = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}[problem.dtype]
        for whole in wholes:
            assert whole.dtype == (torch.int64 if name == "support" else expected[name].dtype if low else problem.dtype)
            assert largest(whole.double() - expected[name].double()) <= slack * largest(expected[name].double())
            if name == "weight" and not low:
                assert torch.equal(whole != 0, expected[name] != 0), "other entries are exactly zero"


def test_the_problems_have_what_they_are_for(found: Path) -> None:
    one = load_file(found / "four-0.safetensors")
    empty = load_file(found / "four-3.safetensors")
    assert empty["a rank without rows: weight"].shape == (0, 16)
    for title in ("margin 0", "margin 0, ties", "margin 1", "scalegrad and margin", "agg and margin"):
        assert 0.0 < one[f"{title}: live"] < 0.9, "no rows were left out"
    assert one["mle: live"] == one["unlikelihood and margin: live"] == 1.0
    tied = PROBLEMS["margin 0, ties"]
    _, weight, _, tokens = tied.inputs()
    twins = (weight[tokens.target][:, None] == weight).all(2).sum(1)
    assert twins.max() > 1
    assert bool((one["margin 0, ties: support"] >= twins).all())
    for title in ("margin 0", "margin 0, ties", "agg", "agg and margin"):
        table = results(reference, PROBLEMS[title].rule(), PROBLEMS[title], lambda table: table.detach())["weight"]
        assert 0 < (table == 0).all(1).sum() < len(table), "the zero pattern says nothing"


def test_beside_data_ranks_a_tied_table_learns_as_in_one_process(found: Path) -> None:
    net = Net()
    loss = net(*batch(), "reference")
    loss.backward()
    for rank in range(WORLD):
        made = load_file(found / f"net-{rank}.safetensors")
        torch.testing.assert_close(made["loss"], loss.detach(), rtol=1e-12, atol=0)
        for name, value in net.named_parameters():
            torch.testing.assert_close(made[name], value.grad, rtol=0, atol=1e-12)


def test_the_advice_for_a_data_parallel_table_is_right(found: Path) -> None:
    net = Net()
    ids, target = batch()
    hidden = torch.tanh(net.body(torch.nn.functional.embedding(ids, net.table.detach())))
    net.objective(hidden, net.table, target, engine="reference").tokens.backward()
    for rank in range(WORLD):
        made = load_file(found / f"net-{rank}.safetensors")
        torch.testing.assert_close(made["gathered"], net.table.grad, rtol=0, atol=1e-12)
        for name, value in net.body.named_parameters():
            torch.testing.assert_close(made[f"gathered {name}"], value.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "mend"),
    [
        (
            "targets",
            r"hold different targets; .*full_tensor\(grad_placements=\[Partial\('avg'\)\]\) with engine='chunked'",
        ),
        ("counts", "hold different targets"),
        *[
            (kind, f"were called with different {names}; call the engine with the same arguments on every rank")
            for kind, names in (
                ("settings", "settings"),
                ("gates", "gates"),
                ("rare rows", "gates"),
                ("gate factors", "gates"),
                ("margins", "margins"),
                ("floors", "objectives, margins"),
                ("temperatures", "objectives"),
                ("shifts", "objectives"),
                ("charges", "charges"),
                ("whole rows", "objectives, margins"),
                ("readouts", "readouts"),
                ("importance", "types, biases or importance"),
                ("biases", "types, biases or importance"),
                ("types", "types, biases or importance"),
            )
        ],
        ("target above", "target 25 is outside the vocabulary of 20; leave out the positions that do not count"),
        ("target below", "target -7 is outside the vocabulary of 20"),
        ("lengths", r"hold 5, 5, 5, 4 rows.*; make the weight with decone.engines.shard.shard\(local, mesh\)"),
        ("shard", "hold 5, 6, 7, 8 rows; cut 26 rows into 7, 7, 7, 5"),
    ],
)
def test_ranks_that_do_not_fit_stop_together(found: Path, kind: str, mend: str) -> None:
    for rank in range(WORLD):
        said = json.loads((found / f"refused-{rank}.json").read_text())[kind]
        with pytest.raises(ValueError, match=mend):
            raise ValueError(said)


@pytest.fixture
def mesh() -> Iterator[Any]:
    """One process that is a mesh by itself; enough for everything but the sums."""
    from torch.distributed.device_mesh import init_device_mesh

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def both(
    mesh: Any, given: tuple[Tensor, Tensor, Tensor | None], tokens: Tokens, rule: Objective, scale: float = 1.0
) -> Iterator[tuple[Any, list[Tensor]]]:
    """Values and gradients of the engine on one rank, then of `reference` in float64."""
    for engine, kind in ((vocab_parallel, given[0].dtype), (reference, torch.float64)):
        leaves = [None if t is None else t.to(kind, copy=True).requires_grad_() for t in given]
        tables = [t if t is None or engine is reference else shard(t, mesh) for t in leaves[1:]]
        found = engine(leaves[0], *tables, tokens, rule, Request(detail=True))
        (found.loss * scale).backward()
        yield found, [leaf.grad for leaf in leaves if leaf is not None]


def test_float16_loses_no_small_slope(mesh: Any) -> None:
    V, H = 4096, 8
    target = torch.randint(3, (400,), generator=torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(2)
    weight, hidden = torch.randn(V, H, generator=draw) / 8, torch.randn(400, H, generator=draw) + 2.0
    bias = torch.full((V,), -18.0)
    bias[:3] = 0.0
    given = tuple(t.half() for t in (hidden, weight, bias))
    (made, grads), (expected, true) = both(mesh, given, Tokens(target, target * 0, target * 0), MLE(), 64.0)
    assert made.loss.item() == pytest.approx(expected.loss.item(), rel=1e-3)
    assert true[1].any(1).all(), "rows without a gradient"
    assert grads[1].any(1).all(), "rows without a gradient"
    for grad, exact in zip(grads, true, strict=True):
        assert grad.dtype == torch.float16
        # Logits near -18 are rounded to steps of 1 / 64.
        assert (grad.double() - exact).norm() < 1e-2 * exact.norm()


def test_float16_sums_a_chunk_beyond_its_range(mesh: Any) -> None:
    N = 6000
    hidden, target = torch.full((N, 2), 32.0).half(), torch.zeros(N, dtype=torch.int64)
    local = torch.zeros(9, 2).half().requires_grad_()
    (vocab_parallel(hidden, shard(local, mesh), None, Tokens(target, target, target), MLE()).loss / N).backward()
    assert local.grad is not None
    torch.testing.assert_close(local.grad[:2, 0].float(), torch.tensor([-32 * 8 / 9, 32 / 9]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("up", [1.0, 2.0**17])
def test_float16_takes_slopes_beyond_its_range(mesh: Any, up: float) -> None:
    hidden, table, tokens = some()
    given, grads = hidden.detach().half(), []
    for factor in (1.0, up):
        local = (table / 64).half().requires_grad_()
        loss = vocab_parallel(given / 1024, shard(local, mesh), None, tokens, MLE(), Request(per_token=True)).loss
        loss.backward(torch.full_like(loss, factor))
        assert local.grad is not None
        grads.append(local.grad.double() / factor)
    assert grads[1].isfinite().all()
    assert grads[1].any()
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("rule", [MLE(), Threshold(1.0), Threshold(math.inf), Unlikelihood()], ids=repr)
def test_masked_rows_are_not_counted_as_kept(mesh: Any, rule: Objective) -> None:
    hidden, table, tokens = some(dtype=torch.float64)
    bias = torch.zeros(9, dtype=torch.float64)
    bias[6:] = -math.inf  # no target among them
    (made, grads), (expected, true) = both(mesh, (hidden.detach(), table, bias), tokens, rule)
    assert torch.equal(made.support, expected.support)
    assert made.support.max() <= 6
    torch.testing.assert_close(made.loss, expected.loss)
    for grad, exact in zip(grads, true, strict=True):
        torch.testing.assert_close(grad, exact)


@pytest.mark.parametrize("id", [25, 9, -7])
def test_targets_outside_the_vocabulary_are_refused(mesh: Any, id: int) -> None:
    hidden, table, tokens = some()
    tokens.target[2] = id
    for rule in (MLE(), Unlikelihood(), Threshold(1.0)):
        with pytest.raises(ValueError, match=f"target {id} is outside the vocabulary of 9; leave out the positions"):
            vocab_parallel(hidden, shard(table, mesh), None, tokens, rule)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_importance_of_another_type_leaves_that_of_the_loss(mesh: Any, kind: torch.dtype, each: bool) -> None:
    hidden, table, tokens = some()
    factor = torch.tensor([1.0, 0.5, 2.0, 0.25, 0.0, 4.0])
    found = []
    for importance in (factor, factor.to(kind)):
        given = replace(tokens, importance=importance)
        loss = vocab_parallel(hidden, shard(table, mesh), None, given, MLE(), Request(per_token=each)).loss
        (grad,) = torch.autograd.grad(loss.sum(), hidden)
        found.append((loss, grad))
    assert found[1][0].dtype == torch.float32
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("gap", [8.0, 10.0, 11.0, 12.0, 14.0])
def test_a_charge_for_a_token_that_dominates_keeps_its_digits(mesh: Any, gap: float) -> None:
    N, V = 12, 300
    target = torch.arange(N)
    hidden = torch.randn(N, V, generator=torch.Generator().manual_seed(0)) * 0.3 - 6
    hidden[target, target] = 0.0
    hidden[target[1:], target[:-1]] = gap
    tokens = Tokens(target, target * 0, target)
    (made, grads), (expected, true) = both(mesh, (hidden, torch.eye(V), None), tokens, Unlikelihood())
    assert made.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    for grad, exact in zip(grads, true, strict=True):
        torch.testing.assert_close(grad.double(), exact, rtol=0, atol=1e-6 * largest(exact))


class Everyone(Gated):
    """Charges for a seen target too, whose row keeps all of its gradient."""

    history = True

    def charge(self, logprob: Tensor, pairs: Any) -> Tensor:
        return 0.7 * logprob.exp()


def test_a_charge_for_the_target_itself_is_not_gated(mesh: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden, weight = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (8, 20))
    target = torch.tensor([2, 7, 2, 7, 9, 9, 0, 2])
    tokens = Tokens(target, target * 0, torch.arange(8))
    (made, grads), (expected, true) = both(mesh, (hidden, weight, None), tokens, Everyone((0.5, 0.1)))
    torch.testing.assert_close(made.loss, expected.loss)
    for grad, exact in zip(grads, true, strict=True):
        torch.testing.assert_close(grad, exact)


def some(N: int = 6, V: int = 9, H: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tokens]:
    index = torch.arange(N)
    hidden, table = torch.randn(N, H, dtype=dtype), torch.randn(V, H, dtype=dtype)
    return hidden.requires_grad_(), table, Tokens(index % V, index * 0, index)


def test_gradients_come_back_cut_like_the_weight(mesh: Any) -> None:
    from torch.distributed.tensor import DTensor, Shard

    hidden, table, tokens = some()
    weight, local = torch.nn.Parameter(shard(table, mesh)), table.clone().requires_grad_()
    vocab_parallel(hidden, weight, None, tokens, MLE()).loss.backward()
    assert isinstance(weight.grad, DTensor)
    assert weight.grad.placements == (Shard(0),)
    vocab_parallel(hidden, shard(local, mesh), None, tokens, MLE()).loss.backward()
    assert type(local.grad) is Tensor
    assert torch.equal(local.grad, weight.grad.to_local())


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("learns", ["hidden", "weight"])
def test_only_what_learns_gets_a_gradient(mesh: Any, learns: str, each: bool) -> None:
    hidden, table, tokens = some()
    hidden.requires_grad_(learns == "hidden")
    local = table.clone().requires_grad_(learns == "weight")
    loss = vocab_parallel(hidden, shard(local, mesh), None, tokens, MLE(), Request(per_token=each)).loss.sum()
    loss.backward(retain_graph=True)
    once = [t.grad.clone() for t in (hidden, local) if t.grad is not None]
    assert len(once) == 1
    loss.backward()
    twice = [t.grad for t in (hidden, local) if t.grad is not None]
    torch.testing.assert_close(twice[0], 2 * once[0])


def test_without_gradients_nothing_is_done_for_them(mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, table, tokens = some()
    gradients: list[Any] = []
    accumulate = module.accumulate_shard
    monkeypatch.setattr(module, "accumulate_shard", lambda *given: (gradients.append(given[5]), accumulate(*given))[1])
    with torch.no_grad():
        loss, nll, *rest = vocab_parallel(hidden, shard(table, mesh), None, tokens, Threshold(1.0))
    assert gradients == [None]
    assert not loss.requires_grad
    assert nll is not None
    assert rest == [None] * 3
    assert vocab_parallel(hidden, shard(table, mesh), None, tokens, MLE(), Request(nll=False)).nll is None


def test_under_autocast_products_are_made_in_low_precision(mesh: Any) -> None:
    hidden, table, tokens = some()
    local = table.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = vocab_parallel(hidden, shard(local, mesh), None, tokens, MLE()).loss
    loss.backward()
    logits = (hidden.detach().bfloat16() @ table.bfloat16().T).float()
    assert loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, tokens.target, reduction="sum").item()
    )
    assert local.grad is not None
    assert local.grad.dtype == torch.float32
    assert hidden.grad is not None


def test_chunks_hold_what_they_may(mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, table, tokens = some(N=7)
    chunks: list[slice] = []
    accumulate = module.accumulate_shard
    monkeypatch.setattr(module, "accumulate_shard", lambda *given: (chunks.append(given[1]), accumulate(*given))[1])
    vocab_parallel(hidden, shard(table, mesh), None, tokens, MLE(), chunk_bytes=3 * 9 * 4 + 5)
    assert [chunk.stop - chunk.start for chunk in chunks] == [3, 3, 1]
    with pytest.raises(ValueError, match="chunk_bytes 35 cannot hold one position; give at least 36"):
        vocab_parallel(hidden, shard(table, mesh), None, tokens, MLE(), chunk_bytes=35)


@pytest.mark.parametrize("each", [False, True])
def test_a_second_derivative_is_refused(mesh: Any, each: bool) -> None:
    hidden, table, tokens = some()
    loss = vocab_parallel(hidden, shard(table, mesh), None, tokens, MLE(), Request(per_token=each)).loss.sum()
    with pytest.raises(RuntimeError, match=r"pass weight.full_tensor\(\) with engine='reference'"):
        torch.autograd.grad(loss, hidden, create_graph=True)


def test_what_it_cannot_do_is_refused(mesh: Any) -> None:
    from torch.distributed.tensor import DTensor, Replicate

    hidden, table, tokens = some()
    weight = shard(table, mesh)
    states: Any = DTensor.from_local(hidden, mesh, [Replicate()])
    with pytest.raises(ValueError, match=r"hidden is a DTensor; .*hidden.full_tensor\(\)"):
        vocab_parallel(states, weight, None, tokens, MLE())
    with pytest.raises(
        ValueError, match=r"Threshold looks at whole rows .*weight.full_tensor\(\) with engine='chunked'"
    ):
        vocab_parallel(hidden, weight, None, tokens, Threshold(1.0, softminus=1.0))
    with pytest.raises(ValueError, match=r"this weight is whole; .*use engine='chunked'"):
        vocab_parallel(hidden, table, None, tokens, MLE())
