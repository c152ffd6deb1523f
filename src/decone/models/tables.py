"""Tables of a model: its embedding and its head, read a few rows at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor

BLOCK = 1 << 24  # entries read at once: 64 MiB in float32

Kind = Literal["causal", "masked", "encoder", "seq2seq", "run", "tables"]


@runtime_checkable
class Table(Protocol):
    """A matrix [V, H] that need not be in memory."""

    @property
    def name(self) -> str:
        """Name of the tensor in its file."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Rows V and width H."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """As stored."""
        ...

    def read(self, start: int = 0, stop: int | None = None) -> Float[Tensor, "V H"]:
        """Rows start to stop, as stored; without a stop all that follow."""
        ...


@dataclass(frozen=True)
class MemoryTable:
    """A table that is in memory already.

    Example:
        >>> MemoryTable("weight", torch.eye(3)).read(1, 2).tolist()
        [[0.0, 1.0, 0.0]]
    """

    name: str
    tensor: Float[Tensor, "V H"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows V and width H."""
        return self.tensor.shape[0], self.tensor.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """As stored."""
        return self.tensor.dtype

    def read(self, start: int = 0, stop: int | None = None) -> Float[Tensor, "V H"]:
        """Rows start to stop."""
        return self.tensor[start:stop]


def blocks(table: Table) -> Iterator[tuple[int, Float[Tensor, "n H"]]]:
    """The rows of a table in order, some at a time and as stored, each block with its first row's id.

    Example:
        >>> [(start, block.shape) for start, block in blocks(MemoryTable("weight", torch.eye(3)))]
        [(0, torch.Size([3, 3]))]
    """
    rows = max(1, BLOCK // max(1, table.shape[1]))
    for start in range(0, table.shape[0], rows):
        yield start, table.read(start, min(start + rows, table.shape[0]))


def same_table(first: Table, second: Table) -> bool:
    """Compares the stored numbers of two tables, bit by bit: NaN equals NaN.

    Example:
        >>> same_table(MemoryTable("a", torch.eye(2)), MemoryTable("b", torch.eye(2)))
        True
    """
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return all(
        torch.equal(block.contiguous().view(torch.uint8), second.read(start, start + len(block)).view(torch.uint8))
        for start, block in blocks(first)
    )


@dataclass(frozen=True)
class ModelTables:
    """The tables of a model, with output bias, softcap, scale and tokenizer.

    Attributes:
        name: as the user called it.
        family: `model_type` of its configuration; "decone" for a run, "unknown" without a configuration.
        kind: sort of model; "tables" for a file without a configuration.
        embedding: the input table.
        head: the output table where it is one of its own; None when it is tied to the input table or there is none.
        tied: the output table is the input table.
        bias: of the output, [V].
        softcap: c in c * tanh(logits / c).
        state_scale: factor of the last states before the head is given them.
        logit_scale: factor of the logits that the head makes.
        tokenizer: cuts texts as the model's does; None where that cannot be had, and `notes` say why.
        copies: how often the tokenizer's vocabulary stands in the table (2 for a run with a simulated language).
        special: ids the tokenizer treats as special (beginning, padding, mask and the like).
        notes: sentences a reader of the numbers must know.
        names: id of each token where there are names without such a tokenizer; see `vocabulary`.
        chat: ids of the marks that the chat templates write, ids beyond the table among them.
    """

    name: str
    family: str
    kind: Kind
    embedding: Table
    head: Table | None = None
    tied: bool = False
    bias: Float[Tensor, " V"] | None = None
    softcap: float | None = None
    state_scale: float = 1.0
    logit_scale: float = 1.0
    tokenizer: Tokenizer | None = None
    copies: int = 1
    special: frozenset[int] = frozenset()
    notes: list[str] = field(default_factory=list)
    names: Mapping[str, int] | None = None
    chat: frozenset[int] = frozenset()

    @cached_property
    def vocabulary(self) -> Mapping[str, int] | None:
        """Id of each token, added ones included; None where tokens have no names. Several may have one id."""
        return self.names if self.tokenizer is None else self.tokenizer.get_vocab(with_added_tokens=True)

    @property
    def output(self) -> Table:
        """The table that makes logits; the input table where there is no other."""
        return self.head or self.embedding
