"""A table cut along the vocabulary: the rows of this rank, and sums over ranks."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh

from decone.engines.contract import Gate, Pairs, Rule, Tokens, upcast


@dataclass(frozen=True)
class Shard:
    """The rows [low, high) of a table of `vocabulary` rows, and the ranks that hold the remaining ones."""

    group: Any
    ranks: int
    low: int
    high: int  # one past the last row of this rank; equal to low on a rank without rows
    most: int  # rows of the longest shard, the same number on all ranks
    vocabulary: int

    def local_rows(self, token: Int[Tensor, " n"]) -> tuple[Bool[Tensor, " n"], Int[Tensor, " n"]]:
        """Mask of the ids that this rank holds, and their rows; row 0 stands for an id of another rank."""
        is_local = (token >= self.low) & (token < self.high)
        return is_local, torch.where(is_local, token.long() - self.low, 0)

    def total(self, values: Tensor) -> Tensor:
        """Sum over ranks, the same bits on all of them; changes `values`."""
        values = values.contiguous()
        if values.numel():
            distributed.all_reduce(values, group=self.group)
        return values

    def gather(self, values: Shaped[Tensor, "*S"]) -> Shaped[Tensor, "R *S"]:
        """The values of all ranks, in the order of ranks."""
        every = values.new_empty(self.ranks, *values.shape)
        if values.numel():
            distributed.all_gather(list(every), values.contiguous(), group=self.group)
        return every

    def agree(self, rows: int, target: Int[Tensor, " N"], settings: dict[str, Any]) -> None:
        """Stops all ranks together where their sums would mix different calls.

        `rows` are those that this rank really has. Settings are all else that must be the same, by the names that an
        error gives them; the same names everywhere, and values that differ must print differently.

        Raises:
            ValueError: ranks hold other targets, rows or settings than each other, or a target is no row of the table.
        """
        index = torch.arange(1, target.numel() + 1, device=target.device)
        marks = [_digest(value) for value in settings.values()]
        facts = torch.tensor([self.vocabulary, rows, target.numel(), *marks], device=target.device)
        ends = torch.stack(target.aminmax()).long() if target.numel() else target.new_zeros(2, dtype=torch.int64)
        every = self.gather(torch.cat((facts, (index * target.long()).sum()[None], ends))).tolist()
        if any(row[2:3] + row[-3:] != every[0][2:3] + every[0][-3:] for row in every):
            raise ValueError(
                "the ranks of this mesh dimension hold different targets; give them the same hidden states and "
                "targets, or, if the table is cut for data parallelism, gather it, with gradients averaged as "
                "FSDP2 averages the others: weight.full_tensor(grad_placements=[Partial('avg')]) with engine='chunked'"
            )
        lengths, expected = [row[1] for row in every], _lengths(self.vocabulary, self.ranks)
        if any(row[0] != self.vocabulary for row in every) or lengths != expected:
            raise ValueError(
                f"the shards hold {_list(lengths)} rows, which a weight of {self.vocabulary} rows does not; "
                "make the weight with decone.engines.shard.shard(local, mesh)"
            )
        digests = [row[3:-3] for row in every]
        names = [name for name, *marks in zip(settings, *digests, strict=True) if len(set(marks)) > 1]
        if names:
            raise ValueError(
                f"the ranks were called with different {_list(names)}; call the engine with the same arguments on "
                "every rank"
            )
        low, high = every[0][-2:]
        if target.numel() and (low < 0 or high >= self.vocabulary):
            raise ValueError(
                f"target {low if low < 0 else high} is outside the vocabulary of {self.vocabulary}; leave out the "
                "positions that do not count, with their hidden states"
            )


def describe_rule(rule: Rule, gate: Gate | None, hidden: Float[Tensor, "N H"], vocabulary: int) -> dict[str, Any]:
    """Describes a rule by its hooks on invented positions, for `Shard.agree`; of hidden states only the type counts.

    Example:
        >>> from decone.objectives import Threshold
        >>> describe_rule(Threshold(2.0), None, torch.zeros(3, 4), 9)["margins"]
        [-2.0]
    """
    index, vector = torch.zeros(1, dtype=torch.int64, device=hidden.device), upcast(hidden.detach()[:0])
    tokens = Tokens(index, index, index, hidden=vector.new_ones(1, hidden.size(1)))
    tokens = tokens.select(slice(None), tokens.hidden, tokens.hidden)
    floor = charge = gate_sums = None
    if rule.history:
        tokens = tokens.with_earlier(vocabulary)
        # A token before another target, once of chance 1 / e and once of chance 1.
        first = torch.zeros(2, dtype=torch.int64, device=hidden.device)
        pairs = Pairs(torch.stack((index, index + 1)).view(2), first, first + 1)
        charge = rule.charge(vector.new_tensor([-1.0, 0.0]), pairs)
    if not rule.general:
        floor = rule.floor(vector.new_zeros(1), tokens)
    if gate is not None:
        index = torch.arange(1, vocabulary + 1, device=gate.rare.device)
        sums = gate.rare.sum(), (gate.rare * index).sum(), (gate.on_common * index).sum(), (gate.on_rare * index).sum()
        gate_sums = torch.stack([value.double() for value in sums]).tolist()
    return {
        "objectives": (type(rule).__name__, rule.general, rule.history, rule.vectors, rule.scale(), rule.shift()),
        "margins": None if floor is None else floor.tolist(),
        "charges": None if charge is None else charge.tolist(),
        "gates": gate_sums,
    }


def _digest(value: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:7], "big")


def shard_of(weight: Tensor, bias: Tensor | None) -> Shard:
    """The shard of this rank, of a table [V, H] given as a DTensor.

    Raises:
        ValueError: the table is not cut, or cut in another way than along its rows over exactly one mesh dimension, or
            the bias is cut differently.
    """
    from torch.distributed.tensor import DTensor  # half a second that only sharded models pay

    if not isinstance(weight, DTensor):
        raise ValueError(
            "vocab_parallel takes a table that is cut along the vocabulary, this weight is whole; make it one with "
            "decone.engines.shard.shard(local, mesh), or use engine='chunked'"
        )
    mesh, placements = weight.device_mesh, weight.placements
    along = [i for i, placement in enumerate(placements) if placement.is_shard(0)]
    if len(along) != 1 or not all(p.is_replicate() for i, p in enumerate(placements) if i not in along):
        raise ValueError(
            f"vocab_parallel takes a weight that is Shard(0) over one mesh dimension and Replicate over the others, "
            f"got {_list(placements)}; where fully_shard cuts it once more, compute the loss in the forward of the "
            "module that it wraps, elsewhere redistribute the weight"
        )
    if bias is not None and not (
        isinstance(bias, DTensor) and bias.device_mesh == mesh and tuple(bias.placements) == tuple(placements)
    ):
        raise ValueError(
            "the bias must be cut like the weight; make it with decone.engines.shard.shard(local, mesh), or with "
            "distribute_tensor(bias, weight.device_mesh, weight.placements)"
        )
    V, ranks, rank = weight.size(0), mesh.size(along[0]), mesh.get_local_rank(along[0])
    most = -(-V // ranks)
    low, high = (min(V, most * r) for r in (rank, rank + 1))
    return Shard(mesh.get_group(along[0]), ranks, low, high, most, V)


def rows_of(table: Float[Tensor, "V *S"]) -> Float[Tensor, "v *S"]:
    """This rank's rows of a DTensor, as a plain tensor through which its gradient flows."""
    from torch.distributed.tensor import DTensor

    if not isinstance(table, DTensor):
        raise ValueError("a whole table has no rows of its own on this rank; make it one with shard(local, mesh)")
    return table.to_local()


def shard(local: Float[Tensor, "v *S"], mesh: DeviceMesh) -> Float[Tensor, "V *S"]:
    """Joins plain shards of a table or a bias, one per rank, to the DTensor that `vocab_parallel` takes.

    The gradient reaches `local`, [v, H] or [v], as a plain tensor. All ranks of the mesh (one dimension; `mesh["tp"]`
    of one with more) hold the same number of rows; the last may hold fewer or none, as `torch.chunk` cuts.

    Raises:
        ValueError: the mesh has several dimensions, or the lengths of the shards are not those of a DTensor.

    Example:
        >>> from torch.distributed import HashStore, destroy_process_group, init_process_group
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        >>> shard(torch.zeros(5, 2), init_device_mesh("cpu", (1,))).placements
        (Shard(dim=0),)
        >>> destroy_process_group()
    """
    from torch.distributed import tensor as dtensor

    if mesh.ndim != 1:
        raise ValueError(f'the mesh has {mesh.ndim} dimensions; pass the one for the vocabulary, such as mesh["tp"]')
    length = torch.tensor([local.size(0)], device=local.device)
    every = [torch.empty_like(length) for _ in range(mesh.size())]
    distributed.all_gather(every, length, group=mesh.get_group())
    lengths = torch.cat(every).tolist()
    V = sum(lengths)
    if lengths != _lengths(V, mesh.size()):
        raise ValueError(
            f"the shards hold {_list(lengths)} rows; cut {V} rows into {_list(_lengths(V, mesh.size()))}, as "
            "torch.chunk does"
        )
    shape = torch.Size((V, *local.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    return dtensor.DTensor.from_local(local, mesh, [dtensor.Shard(0)], run_check=False, shape=shape, stride=stride)


def _lengths(V: int, ranks: int) -> list[int]:
    most = -(-V // ranks)
    return [max(0, min(V, most * (rank + 1)) - most * rank) for rank in range(ranks)]


def _list(values: Any) -> str:
    return ", ".join(map(str, values))
