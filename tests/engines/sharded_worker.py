"""What four processes do in `test_vocab_parallel`: every problem over four ranks, and over both pairs of a 2 x 2 mesh.

Run as `python -m tests.engines.sharded_worker RANK FOLDER`; what it finds goes to safetensors and JSON in the folder.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from decone.engines.contract import PLAIN, Engine, Evaluation, Gate, Readout, Request, Tokens
from decone.objectives.agg import AGG
from decone.objectives.base import Objective
from decone.objectives.compose import Compose
from decone.objectives.mle import MLE
from decone.objectives.scalegrad import ScaleGrad
from decone.objectives.threshold import Threshold
from decone.objectives.unlikelihood import Unlikelihood

WORLD = 4


class Gated(Objective):
    """A gate with factors for common and rare targets, on ids from `rare` on; without factors no gate."""

    def __init__(self, factors: tuple[float, ...], rare: int = 3) -> None:
        super().__init__()
        self.factors, self.rare = factors, rare

    def gate(self) -> Gate | None:
        factors = (torch.full((5 * WORLD,), factor) for factor in self.factors)
        return Gate(torch.arange(5 * WORLD) >= self.rare, *factors) if self.factors else None


@dataclass(frozen=True)
class Problem:
    rule: Callable[[], Objective]
    V: int = 61
    N: int = 45
    H: int = 16
    dtype: torch.dtype = torch.float32
    each: bool = False
    biased: bool = False
    weighted: bool = False
    lattice: bool = False
    readout: Readout = PLAIN
    chunk_bytes: int = 4 * 16 * 20  # twenty positions against sixteen rows

    def inputs(self) -> tuple[Tensor, Tensor, Tensor | None, Tokens]:
        """Hidden states near the row of their target; on a lattice also rows that are twins of other ranks' rows."""
        draw = torch.Generator().manual_seed(self.V + self.N)

        def normal(*shape: int) -> Tensor:
            made = torch.randn(*shape, generator=draw, dtype=torch.float64)
            return (made * 2).round() / 4 if self.lattice else made / 2  # quarters: every product and sum is exact

        weight, target = normal(self.V, self.H), (torch.rand(self.N, generator=draw) ** 3 * self.V).long()
        if self.lattice:  # elsewhere one product may round the same row in two ways
            weight[self.V // 2 :: 3] = weight[: len(weight[self.V // 2 :: 3])].clone()
        index = torch.arange(self.N)
        hidden = normal(self.N, self.H) + weight[target] * (index.clamp(max=6) / 4)[:, None]
        importance = torch.rand(self.N, generator=draw, dtype=torch.float64).to(self.dtype) if self.weighted else None
        bias = normal(self.V).to(self.dtype) if self.biased else None
        tokens = Tokens(target, index // 9, index % 9, importance=importance)
        return hidden.to(self.dtype), weight.to(self.dtype), bias, tokens


def agg() -> AGG:
    """Counts are taken before the processes meet, so that all of them have those of one."""
    objective, draw = AGG(alpha=0.8), torch.Generator().manual_seed(5)
    objective.prepare(61)
    for _ in range(4):
        objective.observe((torch.rand(30, generator=draw) ** 2 * 61).long())
    return objective.eval()


PROBLEMS = {
    "mle": Problem(MLE),
    "mle, each, bias": Problem(MLE, dtype=torch.float64, each=True, biased=True, weighted=True),
    "margin 0": Problem(lambda: Threshold(0.0)),
    "margin 1": Problem(lambda: Threshold(1.0)),
    "margin 1, each, bias": Problem(
        lambda: Threshold(1.0, temperature=0.7), dtype=torch.float64, each=True, biased=True, weighted=True
    ),
    "margin 0, ties": Problem(lambda: Threshold(0.0), lattice=True),
    "margin 1, ties": Problem(lambda: Threshold(1.0), lattice=True, dtype=torch.float64, biased=True),
    "margin 1, softcap": Problem(lambda: Threshold(1.0), readout=Readout(1.5, 6.0), biased=True),
    "margin by norms": Problem(lambda: Threshold(alpha=0.1), dtype=torch.float64, each=True),
    "agg": Problem(agg),
    "agg, each, bias": Problem(agg, dtype=torch.float64, each=True, biased=True),
    "agg and margin": Problem(lambda: Compose(agg(), Threshold(1.0)), dtype=torch.float64, biased=True),
    "scalegrad": Problem(lambda: ScaleGrad(0.2)),
    "scalegrad and margin": Problem(lambda: Compose(ScaleGrad(0.3), Threshold(1.0)), dtype=torch.float64),
    "unlikelihood": Problem(Unlikelihood),
    "unlikelihood, each, softcap": Problem(
        Unlikelihood, dtype=torch.float64, each=True, weighted=True, readout=Readout(softcap=5.0)
    ),
    "unlikelihood and margin": Problem(lambda: Compose(Unlikelihood(0.5), Threshold(1.0)), dtype=torch.float64),
    "a rank without rows": Problem(MLE, V=5, dtype=torch.float64, biased=True),
    "margin, a rank without rows": Problem(lambda: Threshold(0.5), V=5),
    "unlikelihood, a rank without rows": Problem(Unlikelihood, V=5, dtype=torch.float64),
    "one row": Problem(lambda: Threshold(1.0), V=1, dtype=torch.float64, biased=True),
    "no targets": Problem(lambda: Threshold(1.0), N=0, dtype=torch.float64, biased=True),
    "bfloat16": Problem(lambda: Threshold(1.0), dtype=torch.bfloat16, biased=True),
}


def results(
    engine: Engine, rule: Objective, problem: Problem, place: Callable[[Tensor], Tensor], exact: bool = False
) -> dict[str, Tensor]:
    """Values and gradients; `place` cuts the table for its engine, `exact` computes in float64 from the same inputs."""
    hidden, weight, bias, tokens = problem.inputs()
    if exact:
        hidden, weight, bias = hidden.double(), weight.double(), None if bias is None else bias.double()
    leaves = [hidden.requires_grad_(), *(place(t).requires_grad_() for t in (weight, bias) if t is not None)]
    given = (*leaves, *[None] * (bias is None), tokens, rule)
    found: Evaluation = engine(*given, Request(problem.each, detail=True, readout=problem.readout))  # type: ignore[arg-type]
    up = torch.linspace(-1, 2, problem.N, dtype=found.loss.dtype) if problem.each else 1.7
    (found.loss * up).sum().backward()
    made = {name: value.detach() for name, value in found._asdict().items()}
    for name, leaf in zip(("hidden", "weight", "bias"), leaves, strict=False):
        grad: Any = leaf.grad
        assert type(grad) is type(leaf.detach())
        made[name] = grad.to_local() if hasattr(grad, "to_local") else grad
    return made


def whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class Net(nn.Module):
    """A body, and a head tied to the input table."""

    def __init__(self, V: int = 22, H: int = 6) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Linear(H, H).double()
        self.table = nn.Parameter(torch.randn(V, H, dtype=torch.float64))
        self.objective = Compose(Threshold(1.0), ScaleGrad(0.4)).eval()

    def forward(self, ids: Tensor, target: Tensor, engine: Any) -> Tensor:
        if isinstance(engine, str):
            embedded: Any = F.embedding(ids, self.table)
        else:  # the ids are the same on all ranks, each of which embeds those it holds
            from torch.distributed.tensor import DTensor, Replicate

            table: Any = self.table
            everywhere = DTensor.from_local(ids, table.device_mesh, [Replicate()])
            embedded = F.embedding(everywhere, table).redistribute(placements=[Replicate()]).to_local()
        loss = self.objective(torch.tanh(self.body(embedded)), self.table, target, engine=engine)
        return loss.tokens


def batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(22, (4, 7), generator=torch.Generator().manual_seed(9))
    return ids[:, :-1], ids[:, 1:]


def train_beside_data_ranks(mesh: Any) -> dict[str, Tensor]:
    """Half of the batch per data rank; sums of the losses, so that the mean over data ranks is half of one process."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard, distribute_tensor

    from decone.engines.vocab_parallel import vocab_parallel

    net = Net()
    net.table = nn.Parameter(distribute_tensor(net.table.detach(), mesh["tp"], [Shard(0)]))
    fully_shard(net, mesh=mesh["dp"])
    half = slice(2 * mesh["dp"].get_local_rank(), 2 * mesh["dp"].get_local_rank() + 2)
    loss = net(*(t[half] for t in batch()), vocab_parallel)
    loss.backward()
    total = loss.detach().clone()
    distributed.all_reduce(total, group=mesh["dp"].get_group())
    return {"loss": total} | {name: 2 * whole(value.grad) for name, value in net.named_parameters()}


def gather_over_data_ranks(mesh: Any) -> dict[str, Tensor]:
    """What the engine advises for a table cut for data parallelism beside a body that FSDP2 shards."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Partial, Shard, distribute_tensor

    net = Net()
    table: Any = nn.Parameter(distribute_tensor(net.table.detach(), mesh, [Shard(0)]))
    ids, target = (t[mesh.get_local_rank(), None] for t in batch())
    fully_shard(net.body, mesh=mesh)
    hidden = torch.tanh(net.body(F.embedding(ids, net.table.detach())))
    loss = net.objective(hidden, table.full_tensor(grad_placements=[Partial("avg")]), target, engine="chunked")
    (loss.tokens * mesh.size()).backward()
    return {"gathered": whole(table.grad)} | {
        f"gathered {name}": whole(value.grad) for name, value in net.body.named_parameters()
    }


def said(call: Callable[[], Any]) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return "nothing"


def refused(mesh: Any, rank: int) -> dict[str, str]:
    """What ranks that do not fit each other are told; every rank must be told, or the others would wait for ever."""
    from torch.distributed.tensor import DTensor, Shard

    from decone.engines.shard import shard
    from decone.engines.vocab_parallel import vocab_parallel

    table, bias = shard(torch.zeros(5, 2), mesh), shard(torch.zeros(5), mesh)

    def call(
        count: int = 3, weight: Tensor = table, id: int = 1, rule: Objective | None = None, **given: Any
    ) -> Evaluation:
        request = Request(nll=given.pop("nll", True), readout=given.pop("readout", PLAIN))
        target, kind = torch.full((count,), id), given.pop("dtype", torch.float32)
        tokens = Tokens(target, target * 0, target, importance=given.pop("importance", None))
        hidden, added = torch.zeros(count, 2, dtype=kind), given.pop("bias", None)
        return vocab_parallel(hidden, weight.to(kind), added, tokens, rule or MLE(), request, **given)

    short = DTensor.from_local(torch.zeros(5 - rank // 3, 2), mesh, [Shard(0)])
    return {
        "targets": said(lambda: call(id=rank)),
        "counts": said(lambda: call(count=3 - rank % 2)),
        "settings": said(lambda: call(nll=rank == 0)),
        "gates": said(lambda: call(rule=Gated((1.0, 0.5)[: 2 * (rank > 0)]), chunk_bytes=12)),
        "rare rows": said(lambda: call(rule=Gated((1.0, 0.5), rare=4 - rank // 2), chunk_bytes=12)),
        "gate factors": said(lambda: call(rule=Gated((1.0, 0.5 + rank)), chunk_bytes=12)),
        "margins": said(lambda: call(rule=Threshold(1.0 if rank else math.inf))),
        "floors": said(lambda: call(rule=Threshold(1.0) if rank else MLE())),
        "temperatures": said(lambda: call(rule=Threshold(1.0, temperature=0.5 + rank))),
        "shifts": said(lambda: call(rule=ScaleGrad(0.5 + rank / 8))),
        "charges": said(lambda: call(rule=Unlikelihood(1.0, clamp=1e-5 * (1 + rank)))),
        "whole rows": said(lambda: call(rule=Threshold(1.0, softminus=None if rank else 1.0))),
        "readouts": said(lambda: call(readout=Readout(softcap=3.0 + rank))),
        "importance": said(lambda: call(importance=None if rank else torch.ones(3))),
        "biases": said(lambda: call(bias=bias if rank else None)),
        "types": said(lambda: call(dtype=torch.float64 if rank else torch.float32)),
        "target above": said(lambda: call(id=25)),
        "target below": said(lambda: call(id=-7)),
        "lengths": said(lambda: call(weight=short)),
        "shard": said(lambda: shard(torch.zeros(5 + rank, 2), mesh)),
    }


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rules = {name: problem.rule() for name, problem in PROBLEMS.items()}
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    from torch.distributed.device_mesh import init_device_mesh

    from decone.engines.shard import shard
    from decone.engines.vocab_parallel import vocab_parallel

    line, square = init_device_mesh("cpu", (WORLD,)), init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    for name, mesh in (("four", line), ("two", square["tp"])):

        def place(table: Tensor, mesh: Any = mesh) -> Tensor:
            most = -(-len(table) // mesh.size())
            return shard(table.detach()[most * mesh.get_local_rank() :][:most], mesh)

        found = {}
        for title, problem in PROBLEMS.items():
            engine = partial(vocab_parallel, chunk_bytes=problem.chunk_bytes)
            one = results(engine, rules[title], problem, place)
            found |= {f"{title}: {key}": value.contiguous() for key, value in one.items()}
            if name == "four" and problem.dtype == torch.float32:
                two = results(engine, rules[title], problem, place)
                assert all(torch.equal(one[key], two[key]) for key in one), f"{title} gives other bits the second time"
        save_file(found, folder / f"{name}-{rank}.safetensors")
    made = train_beside_data_ranks(square) | gather_over_data_ranks(line)
    save_file(made, folder / f"net-{rank}.safetensors")
    (folder / f"refused-{rank}.json").write_text(json.dumps(refused(line, rank)))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
