"""RowAdamW against one parameter per row under torch's AdamW, and everything an optimiser is expected to survive."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from decone.optim import RowAdamW, row_kernel

SHARES = (1.0, 0.5, 0.1, 0.97, 0.0, 0.3)  # of rows touched, step after step
KERNELS = [{"fused": None, "foreach": None}, {"fused": True}, {"foreach": True}, {"fused": False, "foreach": False}]
HAS_COMPILER = bool(os.environ.get("CC")) or any(map(shutil.which, row_kernel.COMPILERS))
COMPILED = pytest.param({"compiled": True}, marks=pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler here"))


def some_rows(V: int, H: int, share: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(V, H, dtype=dtype) * (torch.rand(V, 1) < share)


def one_parameter_per_row(table: Tensor) -> list[nn.Parameter]:
    return [nn.Parameter(row.clone()) for row in table.detach()]


def give_rows(parameters: list[nn.Parameter], gradient: Tensor) -> None:
    for parameter, row in zip(parameters, gradient, strict=True):
        parameter.grad = row.clone() if row.any() else None


def tensors_of(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for state in optimizer.state_dict()["state"].values():
        yield from state.values()


@pytest.mark.parametrize(
    "options", [{}, {"fused": False}, {"maximize": True}, {"weight_decay": 0.0, "eps": 1e-3}, COMPILED]
)
def test_is_one_parameter_per_row_over_200_steps(options: dict[str, Any]) -> None:
    table = nn.Parameter(torch.randn(16, 5, dtype=torch.float64))
    rows = one_parameter_per_row(table)
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1, **options}
    ours = RowAdamW([table], rows=[table], **settings)
    settings.pop("compiled", None)
    reference = torch.optim.AdamW(rows, **settings)
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150) for optimizer in (ours, reference)]
    for i in range(200):
        gradient = some_rows(16, 5, SHARES[i // 4 % len(SHARES)], torch.float64)
        table.grad = gradient
        give_rows(rows, gradient)
        for stepped in (ours, reference, *schedules):
            stepped.step()
    assert (table - torch.stack(rows)).abs().max() <= 1e-12
    for i, row in enumerate(rows):
        state = reference.state[row]
        assert ours.state[table]["step"][i] == state["step"]
        assert (ours.state[table]["exp_avg_sq"][i] - state["exp_avg_sq"]).abs().max() <= 1e-12


class Tied(nn.Module):
    """Reads ids through the table and scores some candidates with it: all other rows get no gradient."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding(*weight.shape, _weight=weight.clone())
        self.body = nn.Linear(weight.size(1), weight.size(1), bias=False).to(weight.dtype)

    def forward(self, ids: Tensor, candidates: Tensor, weight: Tensor | None = None) -> Tensor:
        weight = self.embedding.weight if weight is None else weight
        hidden = torch.tanh(self.body(F.embedding(ids, weight)))
        return F.cross_entropy(hidden @ weight[candidates].T, torch.zeros_like(ids))


def test_a_tied_table_is_one_parameter_per_row() -> None:
    ours = Tied(torch.randn(12, 4, dtype=torch.float64))
    other = copy.deepcopy(ours)
    rows = one_parameter_per_row(ours.embedding.weight)
    optimizer = RowAdamW(ours.parameters(), lr=0.02, rows=[ours.embedding.weight])
    reference = torch.optim.AdamW([*rows, other.body.weight], lr=0.02)
    left_alone = 0
    for _ in range(200):
        ids, candidates = torch.randint(12, (3,)), torch.randperm(12)[:4]
        for each in (optimizer, reference):
            each.zero_grad()
        ours(ids, candidates).backward()
        other(ids, candidates, torch.stack(rows)).backward()
        for row in rows:
            if row.grad is not None and not row.grad.any():
                row.grad = None
                left_alone += 1
        optimizer.step()
        reference.step()
    assert 200 < left_alone < 200 * 12
    assert (ours.embedding.weight - torch.stack(rows)).abs().max() <= 1e-12
    assert (ours.body.weight - other.body.weight).abs().max() <= 1e-12


def test_stacked_rows_move_like_a_plain_table() -> None:
    """A ParameterList stacked in forward gives unused rows a zero gradient, so AdamW decays and carries them."""
    plain = Tied(torch.randn(8, 4, dtype=torch.float64))
    stacked, ours = copy.deepcopy(plain), copy.deepcopy(plain)
    rows = nn.ParameterList(one_parameter_per_row(plain.embedding.weight))
    settings = {"lr": 0.02, "weight_decay": 0.1}
    on_table = torch.optim.AdamW(plain.parameters(), **settings)
    on_rows = torch.optim.AdamW([*rows, stacked.body.weight], **settings)
    by_rows = RowAdamW(ours.parameters(), rows=[ours.embedding.weight], **settings)
    used, unused = torch.arange(4), torch.arange(4, 8)
    for step in range(20):
        ids = torch.arange(8) if step == 0 else used
        before = ours.embedding.weight[unused].detach().clone(), torch.stack(list(rows))[unused].detach()
        for optimizer in (on_table, on_rows, by_rows):
            optimizer.zero_grad()
        plain(ids, used).backward()
        stacked(ids, used, torch.stack(list(rows))).backward()
        ours(ids, used).backward()
        for optimizer in (on_table, on_rows, by_rows):
            optimizer.step()
        if step:
            assert torch.equal(ours.embedding.weight[unused], before[0])
            assert (torch.stack(list(rows))[unused] != before[1]).all()
    torch.testing.assert_close(torch.stack(list(rows)), plain.embedding.weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("touched", ["gradient", "always"])
def test_other_parameters_are_torch_adamw_to_the_bit(kernel: dict[str, Any], touched: Any) -> None:
    shapes = [(30, 8), (7,), (3, 4, 5), ()]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = copy.deepcopy(ours)
    groups = [[{"params": each[:2], "lr": 0.1}, {"params": each[2:], "weight_decay": 0.3}] for each in (ours, theirs)]
    optimizer = RowAdamW(groups[0], rows=ours[:1], touched=touched, **kernel)
    reference = torch.optim.AdamW(groups[1], **kernel)
    for i in range(20):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = some_rows(*a.shape, share=0.5) if a.dim() == 2 else torch.randn_like(a)
            b.grad = a.grad.clone()
        if i % 5 == 0:
            ours[1].grad = theirs[1].grad = None
        optimizer.step()
        reference.step()
    first = 0 if touched == "always" else 1
    for a, b in zip(ours[first:], theirs[first:], strict=True):
        assert torch.equal(a, b)
        for name, value in reference.state[b].items():
            assert torch.equal(optimizer.state[a][name], value)


def twins(V: int = 20, H: int = 4, **settings: Any) -> tuple[nn.Parameter, RowAdamW, nn.Parameter, torch.optim.AdamW]:
    """The same table under RowAdamW and under torch's AdamW."""
    table = nn.Parameter(torch.randn(V, H))
    twin = nn.Parameter(table.detach().clone())
    return table, RowAdamW([table], rows=[table], **settings), twin, torch.optim.AdamW([twin])


def run(table: nn.Parameter, optimizer: torch.optim.Optimizer, gradients: list[Tensor]) -> None:
    for gradient in gradients:
        table.grad = gradient.clone()
        optimizer.step()


@pytest.mark.parametrize("way", [{}, COMPILED])
def test_policies_reach_the_rows_without_gradient(way: dict[str, Any]) -> None:
    gradient = torch.zeros(20, 4)
    gradient[3] = 1.0
    for policy, weight, moment in [({"decay": "always"}, 1 - 1e-3 * 1e-2, 1.0), ({"momentum": "decay"}, 1.0, 0.9)]:
        table, optimizer, *_ = twins(**policy, **way)
        run(table, optimizer, [torch.randn(20, 4)])
        before, exp_avg = table.detach().clone(), optimizer.state[table]["exp_avg"].clone()
        run(table, optimizer, [gradient])
        still = torch.arange(20) != 3
        torch.testing.assert_close(table[still], before[still] * weight, rtol=1e-6, atol=0)
        assert torch.equal(table[still], before[still]) == (weight == 1)
        torch.testing.assert_close(optimizer.state[table]["exp_avg"][still], exp_avg[still] * moment)
        assert optimizer.state[table]["step"].tolist() == [1.0, 1.0, 1.0, 2.0] + [1.0] * 16


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_gradient_counts_as_touched(bad: float) -> None:
    table, optimizer, *_ = twins()
    gradient = torch.zeros(20, 4)
    gradient[5, 2] = bad
    run(table, optimizer, [gradient])
    assert optimizer.state[table]["step"].nonzero().flatten().tolist() == [5]
    assert table[5, 2].isnan()
    assert table.isnan().sum() == 1


@pytest.mark.parametrize(
    "settings", [{}, {"fused": True}, {"touched": "always"}, {"decay": "always", "fused": False}, COMPILED]
)
def test_a_saved_state_resumes_to_the_bit(settings: dict[str, Any]) -> None:
    gradients = [some_rows(20, 4, share) for share in (*SHARES, *SHARES)]
    table, optimizer, *_ = twins(**settings)
    plain = nn.Parameter(torch.ones(3))
    optimizer.add_param_group({"params": [plain], "lr": 0.5})
    plain.grad = torch.ones(3)
    run(table, optimizer, gradients[:6])
    saved = optimizer.state_dict()
    groups = json.loads(json.dumps(saved["param_groups"]))
    state = {i: {name: value.clone() for name, value in each.items()} for i, each in saved["state"].items()}
    again, plain_again = (nn.Parameter(p.detach().clone()) for p in (table, plain))
    plain_again.grad = torch.ones(3)
    # neither tables nor policies are named: the state knows them
    resumed = RowAdamW([{"params": [again]}, {"params": [plain_again]}], lr=9.0)
    resumed.load_state_dict({"state": state, "param_groups": groups})
    for loaded, group in zip(resumed.param_groups, optimizer.param_groups, strict=True):
        assert loaded.keys() == group.keys()
        assert all(loaded[name] == group[name] for name in ("rows", "touched", "decay", "momentum", "compiled", "lr"))
    for each, on in ((table, optimizer), (again, resumed)):
        run(each, on, gradients[6:])
    assert torch.equal(again, table)
    assert torch.equal(plain_again, plain)
    for a, b in zip(tensors_of(resumed), tensors_of(optimizer), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler here")
def test_a_state_decides_whether_the_kernel_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a resumed run keeps the kernel it began with; a state that knows of none leaves the choice standing."""
    table, optimizer, twin, _ = twins(compiled=True)
    run(table, optimizer, [torch.randn(20, 4)])
    resumed = RowAdamW([twin], rows=[twin])
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.param_groups[0]["compiled"] is True
    older = optimizer.state_dict()
    del older["param_groups"][0]["compiled"]
    for own in (True, False):
        loaded = RowAdamW([twin], rows=[twin], compiled=own)
        loaded.load_state_dict(older)
        assert loaded.param_groups[0]["compiled"] is own
    row_kernel.kernel_for.cache_clear()  # as on a machine without a compiler: it must not go another way unasked
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(RuntimeError, match="no-such-compiler"):
        run(twin, resumed, [torch.randn(20, 4)])


def test_a_copy_knows_its_tables() -> None:
    table, optimizer, *_ = twins()
    run(table, optimizer, [torch.randn(20, 4)])
    twin = copy.deepcopy(optimizer)
    (again,) = twin.param_groups[0]["params"]
    gradient = some_rows(20, 4, 0.5)
    run(table, optimizer, [gradient])
    run(again, twin, [gradient])
    assert torch.equal(again, table)
    assert RowAdamW(optimizer.param_groups).param_groups[0]["rows"] == [True]


def test_a_state_of_torch_adamw_gives_every_row_its_step_count() -> None:
    table, optimizer, twin, reference = twins()
    run(twin, reference, [torch.randn(20, 4) for _ in range(5)])
    table.data.copy_(twin.data)
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    gradient = torch.randn(20, 4)
    run(twin, reference, [gradient])
    gradient[2] = 0
    run(table, optimizer, [gradient])
    touched = torch.arange(20) != 2
    torch.testing.assert_close(table[touched], twin[touched])
    assert optimizer.state[table]["step"].tolist() == [6.0, 6.0, 5.0] + [6.0] * 17
    with pytest.raises(ValueError, match="parameter groups"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})


def test_always_honours_step_counts_that_differ() -> None:
    table, optimizer, *_ = twins()
    run(table, optimizer, [some_rows(20, 4, 0.5) for _ in range(3)])
    counts = optimizer.state[table]["step"].clone()
    optimizer.param_groups[0]["touched"] = "always"
    before = table.detach().clone()
    run(table, optimizer, [torch.zeros(20, 4)])
    assert torch.equal(optimizer.state[table]["step"], counts + 1)
    assert (table != before).all()


def test_the_state_is_that_of_adamw_and_a_number_per_row() -> None:
    table, optimizer, twin, reference = twins(V=50, H=16)
    for each, on in ((table, optimizer), (twin, reference)):
        run(each, on, [torch.randn(50, 16)])
    ours, theirs = (sum(t.nbytes for t in tensors_of(each)) for each in (optimizer, reference))
    assert ours == theirs + 49 * 4


def test_accumulated_gradients_are_one_step() -> None:
    table, optimizer, twin, _ = twins()
    other = RowAdamW([twin], rows=[twin])
    (table[2] * 3).sum().backward()
    (table[7] * 2).sum().backward()
    (twin[2] * 3 + twin[7] * 2).sum().backward()
    optimizer.step()
    other.step()
    assert torch.equal(table, twin)
    assert optimizer.state[table]["step"].nonzero().flatten().tolist() == [2, 7]


def test_clipping_leaves_untouched_rows_untouched() -> None:
    table, optimizer, *_ = twins()
    before = table.detach().clone()
    (table[2] * 1e6).sum().backward()
    nn.utils.clip_grad_norm_([table], 1.0)
    optimizer.step()
    assert (table != before).any(1).nonzero().flatten().tolist() == [2]


@pytest.mark.parametrize("to_none", [True, False])
def test_a_step_without_gradient_changes_nothing(to_none: bool) -> None:
    table, optimizer, *_ = twins()
    run(table, optimizer, [torch.randn(20, 4)])
    before = [table.detach().clone(), *(value.clone() for value in tensors_of(optimizer))]
    optimizer.zero_grad(set_to_none=to_none)
    assert (table.grad is None) == to_none
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, [table, *tensors_of(optimizer)], strict=True))


def test_groups_keep_their_own_rates() -> None:
    tables = [nn.Parameter(torch.ones(3, 2)) for _ in range(3)]
    optimizer = RowAdamW(
        [{"params": tables[0]}, {"params": iter([tables[1]]), "lr": 0.5}],
        lr=0.1,
        weight_decay=0.0,
        rows=tables[:2],
    )
    optimizer.add_param_group({"params": [tables[2]], "lr": 0.25, "rows": [tables[2]], "decay": "always"})
    for table in tables:
        table.grad = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    optimizer.step()
    for table, rate in zip(tables, (0.1, 0.5, 0.25), strict=True):
        torch.testing.assert_close(table.data, torch.tensor([[1 - rate] * 2, [1.0] * 2, [1.0] * 2]))


def test_parameters_may_have_names() -> None:
    model = Tied(torch.ones(4, 2))
    optimizer = RowAdamW(model.named_parameters(), rows=[model.embedding.weight])
    assert optimizer.param_groups[0]["rows"] == [True, False]
    assert optimizer.param_groups[0]["param_names"] == ["embedding.weight", "body.weight"]


def test_a_closure_is_called_once_with_gradients() -> None:
    table, optimizer, *_ = twins()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = table[4].square().sum()
        loss.backward()
        return loss

    before = table.detach().clone()
    assert optimizer.step(closure) == before[4].square().sum()
    assert (table != before).any(1).nonzero().flatten().tolist() == [4]


def test_step_hooks_run_once() -> None:
    table, optimizer, twin, reference = twins()
    run(twin, reference, [torch.randn(20, 4)])  # torch wraps AdamW.step at its first use
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    run(table, optimizer, [torch.randn(20, 4)])
    assert calls == [1]


@pytest.mark.parametrize("kernel", [{}, {"fused": True}, COMPILED])
def test_a_gradient_scaler_unscales_and_skips(kernel: dict[str, Any]) -> None:
    table, optimizer, twin, _ = twins(**kernel)
    reference = RowAdamW([twin], rows=[twin], **kernel)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for factor in (1.0, float("inf"), 2.0):
        for each in (optimizer, reference):
            each.zero_grad()
        scaler.scale((table[3] * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        if factor < float("inf"):
            (twin[3] * factor).sum().backward()
            reference.step()
    assert torch.equal(table, twin)
    assert optimizer.state[table]["step"][3] == 2


def test_accelerate_takes_it() -> None:
    table, optimizer, twin, _ = twins()
    reference = RowAdamW([twin], rows=[twin])
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare_optimizer(optimizer)
    for _ in range(3):
        gradient = some_rows(20, 4, 0.5)
        run(table, prepared, [gradient])
        run(twin, reference, [gradient])
    assert torch.equal(table, twin)


@pytest.fixture
def one_process() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("way", [{}, COMPILED])
def test_a_table_sharded_by_rows_is_stepped_in_place(one_process: None, way: dict[str, Any]) -> None:
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (1,))
    table, optimizer, *_ = twins(**way)
    sharded = nn.Parameter(distribute_tensor(table.detach().clone(), mesh, [Shard(0)]))
    on_shards = RowAdamW([sharded], rows=[sharded], **way)
    for share in SHARES:
        gradient = some_rows(20, 4, share)
        run(table, optimizer, [gradient])
        run(sharded, on_shards, [distribute_tensor(gradient, mesh, [Shard(0)])])
    assert torch.equal(sharded.to_local(), table)
    for name, value in on_shards.state[sharded].items():
        assert isinstance(value, DTensor)
        assert value.placements == (Shard(0),)
        assert torch.equal(value.to_local(), optimizer.state[table][name])
    by_columns = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(1)]))
    with pytest.raises(ValueError, match="shard it on dimension 0"):
        RowAdamW([by_columns], rows=[by_columns])


@given(
    V=st.integers(1, 30),
    H=st.integers(1, 9),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    shares=st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]), min_size=1, max_size=5),
    lr=st.sampled_from([0.0, 1e-3, 0.1]),
    way=st.sampled_from([{}, {"fused": False}, {"compiled": HAS_COMPILER}]),
    seed=st.integers(0, 999),
)
def test_any_shape_is_one_parameter_per_row(
    V: int, H: int, dtype: torch.dtype, shares: list[float], lr: float, way: dict[str, Any], seed: int
) -> None:
    assume(not way.get("compiled") or dtype in row_kernel.REALS)
    torch.manual_seed(seed)
    table = nn.Parameter(torch.randn(V, H, dtype=dtype))
    rows = one_parameter_per_row(table.double())
    before = table.detach().clone()
    ours, reference = RowAdamW([table], lr=lr, rows=[table], **way), torch.optim.AdamW(rows, lr=lr)
    for share in shares:
        table.grad = some_rows(V, H, share, dtype)
        give_rows(rows, table.grad.double())
        ours.step()
        reference.step()
    never = ours.state[table]["step"] == 0
    assert torch.equal(table[never], before[never])
    # a half-precision table is rounded at every step, and so are its moments
    unit = torch.finfo(dtype).eps * (4 * len(shares))
    limit = 1e-12 if dtype == torch.float64 else unit * (1 + 4 * lr)
    torch.testing.assert_close(table.double(), torch.stack(rows), rtol=limit, atol=limit)


TABLE, VECTOR = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: RowAdamW([TABLE], rows=[nn.Parameter(torch.ones(3, 2))]), "not among params; pass the parameter"),
        (lambda: RowAdamW([TABLE], rows=[TABLE.data]), "not among params"),
        (lambda: RowAdamW([TABLE, VECTOR], rows=[VECTOR]), r"shape \[3\].*leave others out"),
        (lambda: RowAdamW([TABLE], rows=TABLE), r"rows=\[table\]"),
        (lambda: RowAdamW(TABLE), r"RowAdamW\(\[table\]"),
        (lambda: RowAdamW([], rows=[TABLE]), "not among params"),
        (lambda: RowAdamW([]), "empty parameter list"),
        (lambda: RowAdamW([VECTOR]).add_param_group({"params": [TABLE], "rows": [VECTOR]}), "leave others out"),
        (lambda: RowAdamW([VECTOR]).add_param_group({"params": [TABLE], "decay": "never"}), "'touched' or 'always'"),
        (lambda: RowAdamW([VECTOR]).add_param_group({"params": [TABLE], "compiled": 2}), "use False or True"),
        (lambda: RowAdamW([TABLE], lr=-1.0), "Invalid learning rate"),
    ],
)
def test_mistakes_are_named(build: Callable[[], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build()


def test_sparse_gradients_are_refused() -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = RowAdamW(embedding.parameters(), rows=[embedding.weight])
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse=False"):
        optimizer.step()
