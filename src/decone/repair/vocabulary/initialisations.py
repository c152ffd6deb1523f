"""Rows for tokens without good ones, made from the trained rows of a table: one function per method, by its name.

Let W be the rows of tokens that were trained, n of them with mean mu, and P the pieces that a tokenizer without a token
cuts it into. Its row is

    mean        mu
    pieces      the mean of the rows of P
    sample      mu + sum_i g_i (w_i - mu) / sqrt(n) with n normal numbers g: drawn from the normal distribution with the
                mean and the covariance of W, which need not be computed
    neighbours  the mean of the K rows of W nearest in cosine to the mean of the rows of P
    like=TOKEN  the row of another token

Sums are float64. A token of which the old tokenizer knows no piece gets mu. The same g serve both tables of a model, so
that samples for input and output go together as their rows do. The bias of a new token is the mean of the biases of the
rows that its row comes from; for `sample`, of all of W.

A mean of rows never has the highest logit of all: for any state it lies between those of the rows it comes from, and
for mu the token's probability is at most 1/n by Jensen's inequality (Hewitt 2021). A sample may win.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from decone.files.foreign import plain, quoted
from decone.metrics.neighbours import nearest_rows
from decone.models.tables import Table, blocks

DEFINITIONS = "definitions"  # the initialisation that needs a lexicon, which `grow` builds
LIKE = "like="  # begins the name of a method that copies the row of the token behind it
SAMPLE_ROWS = 1 << 12  # rows of the table in memory at once while sampling


@dataclass(frozen=True)
class RowRequest:
    """New tokens, and the table that their rows are made from.

    Attributes:
        surfaces: the new tokens, as they stand in text.
        pieces: ids that the old tokenizer cuts each of them into, without unknown ones; empty where all are.
        table: the old rows, of the input or of an output with a table to itself.
        trained: mask of rows of trained tokens, [V].
        neighbours: K, for methods that use near rows.
        seed: seed of random methods.
        vocabulary: ids of the old tokens, for a method that names one.
    """

    surfaces: list[str]
    pieces: list[list[int]]
    table: Table
    trained: Bool[Tensor, " V"]
    neighbours: int = 10
    seed: int = 0
    vocabulary: Mapping[str, int] = field(default_factory=dict)

    @property
    def trained_ids(self) -> Int64[Tensor, " n"]:
        """Ids of the trained rows."""
        return self.trained.nonzero().squeeze(1)


class NewRows(NamedTuple):
    """Rows of new tokens.

    Attributes:
        rows: one per new token, [M, H].
        sources: ids of the old rows that each row comes from; its bias is the mean of theirs.
    """

    rows: Float64[Tensor, "M H"]
    sources: list[Int64[Tensor, " _"]]


Initialisation = Callable[[RowRequest], NewRows]


def mean(request: RowRequest) -> NewRows:
    """The mean of all trained rows, for every new token.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = MemoryTable("weight", torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]]))
        >>> mean(RowRequest(["new"], [[0]], table, torch.tensor([True, True, False]))).rows.tolist()
        [[2.0, 1.0]]
    """
    M = len(request.surfaces)
    return NewRows(trained_mean(request).expand(M, -1).clone(), [request.trained_ids] * M)


def pieces(request: RowRequest) -> NewRows:
    """The mean of the rows of the token's pieces.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = MemoryTable("weight", torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]]))
        >>> pieces(RowRequest(["new"], [[0, 0, 0, 1]], table, torch.ones(3, dtype=torch.bool))).rows.tolist()
        [[1.5, 0.5]]
    """
    sources = [torch.tensor(ids) if ids else request.trained_ids for ids in request.pieces]
    return NewRows(row_means(request.table, sources), sources)


def sample(request: RowRequest) -> NewRows:
    """Draws from the normal distribution with the mean and the covariance of the trained rows."""
    M, trained_ids = len(request.surfaces), request.trained_ids
    centre, generator = trained_mean(request), torch.Generator().manual_seed(request.seed)
    rows = centre.expand(M, -1).clone()
    for ids in torch.split(trained_ids, SAMPLE_ROWS):  # the same draws for a table of any width
        first = int(ids[0])
        spread = request.table.read(first, int(ids[-1]) + 1)[ids - first].double() - centre
        rows += torch.randn(M, len(ids), generator=generator, dtype=torch.float64) @ spread / sqrt(len(trained_ids))
    return NewRows(rows, [trained_ids] * M)


def neighbours(request: RowRequest) -> NewRows:
    """The mean of the rows nearest in cosine to the mean of the token's pieces.

    Raises:
        ValueError: K is below 1.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = MemoryTable("weight", torch.tensor([[1.0, 0.0], [3.0, 0.5], [0.0, 9.0]]))
        >>> neighbours(RowRequest(["new"], [[0]], table, torch.ones(3, dtype=torch.bool), neighbours=2)).rows.tolist()
        [[2.0, 0.25]]
    """
    if request.neighbours < 1:
        raise ValueError(f"--neighbours {request.neighbours}; take at least 1")
    no_ids = torch.full((len(request.surfaces),), -1)  # a new token is no row that its neighbours must leave out
    near = nearest_rows(no_ids, pieces(request).rows, blocks(request.table), request.trained, request.neighbours)
    sources = [ids[ids >= 0] for ids in near]
    return NewRows(row_means(request.table, sources), sources)


def like(token: str) -> Initialisation:
    """The method that gives every new token the row of another one, named as in the vocabulary or by its id.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table, trained = MemoryTable("weight", torch.eye(2)), torch.ones(2, dtype=torch.bool)
        >>> like("</s>")(RowRequest(["new"], [[]], table, trained, vocabulary={"<s>": 0, "</s>": 1})).rows.tolist()
        [[0.0, 1.0]]
    """

    def copy(request: RowRequest) -> NewRows:
        source = torch.tensor([find_row(token, request.vocabulary, request.table.shape[0])])
        return NewRows(row_means(request.table, [source] * len(request.surfaces)), [source] * len(request.surfaces))

    return copy


def find_row(token: str, vocabulary: Mapping[str, int], size: int) -> int:
    """The row of a token named by `--init like=`.

    Raises:
        ValueError: it is neither a token nor an id below `size`.
    """
    row = vocabulary.get(token, int(token) if re.fullmatch(r"[0-9]{1,12}", token) else size)
    if row >= size:
        raise ValueError(f"--init {LIKE}{plain(token, 40)}: the model has no such token; write it as in its vocabulary")
    return row


# A new method is added here: its name is what --init takes.
INITIALISATIONS: dict[str, Initialisation] = {
    "pieces": pieces,
    "mean": mean,
    "sample": sample,
    "neighbours": neighbours,
}


def find_initialisation(name: str, extra: Sequence[str] = ()) -> Initialisation:
    """Returns the method of a name; behind "like=" stands a token.

    Args:
        name: of the method.
        extra: names that the caller takes besides, for the message.

    Raises:
        ValueError: there is none.

    Example:
        >>> find_initialisation("mean") is mean
        True
    """
    if name.startswith(LIKE):
        return like(name.removeprefix(LIKE))
    if name not in INITIALISATIONS:
        names = ", ".join((*INITIALISATIONS, *extra, f"{LIKE}TOKEN"))
        raise ValueError(f"--init {quoted(name)} is not known; take one of {names}")
    return INITIALISATIONS[name]


def trained_mean(request: RowRequest) -> Float64[Tensor, " H"]:
    """The mean of all trained rows.

    Raises:
        ValueError: there is none.
    """
    count = int(request.trained.sum())
    if not count:
        raise ValueError(
            f"no row of {plain(request.table.name)} was trained, so there is nothing to make new ones from"
        )
    total = torch.zeros(request.table.shape[1], dtype=torch.float64)
    for start, block in blocks(request.table):
        total += block[request.trained[start : start + len(block)]].sum(0, dtype=torch.float64)
    return total / count


def row_means(table: Table, sources: Sequence[Int64[Tensor, " _"]]) -> Float64[Tensor, "M H"]:
    """The mean of the rows of each list of ids; an id that stands twice counts twice.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> row_means(MemoryTable("weight", torch.eye(2)), [torch.tensor([0, 1]), torch.tensor([1])]).tolist()
        [[0.5, 0.5], [0.0, 1.0]]
    """
    ids = torch.from_numpy(np.unique(torch.cat(list(sources))))
    rows = torch.zeros(len(ids), table.shape[1], dtype=torch.float64)
    for start, block in blocks(table):
        inside = (ids >= start) & (ids < start + len(block))
        rows[inside] = block[ids[inside] - start].double()
    return torch.stack([rows[torch.searchsorted(ids, source)].mean(0) for source in sources])
