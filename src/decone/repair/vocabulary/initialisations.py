"""Rows for new tokens, made from the rows of a table that was trained: one function per way, found by its name.

Let W be the rows of tokens that were trained, n of them with mean mu, and P the pieces that the old tokenizer cuts a
new token into. Its row is

    mean        mu
    pieces      the mean of the rows of P
    sample      mu + sum_i g_i (w_i - mu) / sqrt(n) with n normal numbers g: drawn from the normal distribution with the
                mean and the covariance of W, which need not be made
    neighbours  the mean of the K rows of W nearest in cosine to the mean of the rows of P

Sums are float64. A token none of whose pieces is known to the old tokenizer gets mu. The same g serve both tables of a
model, so that what is drawn for input and output goes together as theirs does. The bias of a new token is the mean of
the biases of the rows that its own was made from; for `sample`, of all of W.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from decone.files.foreign import plain
from decone.metrics.row_change import nearest_rows
from decone.models.tables import Table, blocks

DRAWN = 1 << 12  # rows that are drawn from at once


@dataclass(frozen=True)
class Wanted:
    """What rows are made for, and from.

    Attributes:
        surfaces: the new tokens, as they stand in text.
        pieces: ids that the old tokenizer cuts each of them into, without unknown ones; empty where all are.
        table: the old rows, of the input or of an output of its own.
        trained: rows of tokens that were trained, [V].
        neighbours: K, for those that look for near rows.
        seed: of draws.
    """

    surfaces: list[str]
    pieces: list[list[int]]
    table: Table
    trained: Bool[Tensor, " V"]
    neighbours: int = 10
    seed: int = 0


class Made(NamedTuple):
    """New rows.

    Attributes:
        rows: one per new token, [M, H].
        sources: ids of the old rows that each was made from, whose biases it gets the mean of.
    """

    rows: Float64[Tensor, "M H"]
    sources: list[Int64[Tensor, " _"]]


Initialisation = Callable[[Wanted], Made]


def mean(wanted: Wanted) -> Made:
    """The mean of all trained rows, for every new token.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = MemoryTable("weight", torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]]))
        >>> mean(Wanted(["new"], [[0]], table, torch.tensor([True, True, False]))).rows.tolist()
        [[2.0, 1.0]]
    """
    M = len(wanted.surfaces)
    return Made(trained_mean(wanted).expand(M, -1).clone(), [_everything(wanted)] * M)


def pieces(wanted: Wanted) -> Made:
    """The mean of the rows of the token's pieces.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = MemoryTable("weight", torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]]))
        >>> pieces(Wanted(["new"], [[0, 0, 0, 1]], table, torch.ones(3, dtype=torch.bool))).rows.tolist()
        [[1.5, 0.5]]
    """
    everything = None if all(wanted.pieces) else _everything(wanted)
    chosen = [everything if everything is not None and not ids else torch.tensor(ids) for ids in wanted.pieces]
    return Made(row_means(wanted.table, chosen), chosen)


def sample(wanted: Wanted) -> Made:
    """Drawn from the normal distribution with the mean and the covariance of the trained rows."""
    M, everything = len(wanted.surfaces), _everything(wanted)
    centre, generator = trained_mean(wanted), torch.Generator().manual_seed(wanted.seed)
    rows = centre.expand(M, -1).clone()
    for ids in torch.split(everything, DRAWN):  # as many at once for a table of any width
        first = int(ids[0])
        spread = wanted.table.read(first, int(ids[-1]) + 1)[ids - first].double() - centre
        rows += torch.randn(M, len(ids), generator=generator, dtype=torch.float64) @ spread / sqrt(len(everything))
    return Made(rows, [everything] * M)


def neighbours(wanted: Wanted) -> Made:
    """The mean of the rows nearest in cosine to the mean of the token's pieces.

    Raises:
        ValueError: K is below 1.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> table = MemoryTable("weight", torch.tensor([[1.0, 0.0], [3.0, 0.5], [0.0, 9.0]]))
        >>> neighbours(Wanted(["new"], [[0]], table, torch.ones(3, dtype=torch.bool), neighbours=2)).rows.tolist()
        [[2.0, 0.25]]
    """
    if wanted.neighbours < 1:
        raise ValueError(f"--neighbours {wanted.neighbours}; take at least 1")
    nobody = torch.full((len(wanted.surfaces),), -1)
    near = nearest_rows(nobody, pieces(wanted).rows, blocks(wanted.table), wanted.trained, wanted.neighbours)
    chosen = [row[row >= 0] for row in near]
    return Made(row_means(wanted.table, chosen), chosen)


# The one place to add a way: its name is what --init takes.
INITIALISATIONS: dict[str, Initialisation] = {
    "pieces": pieces,
    "mean": mean,
    "sample": sample,
    "neighbours": neighbours,
}


def find(name: str) -> Initialisation:
    """The way of a name.

    Raises:
        ValueError: there is none.

    Example:
        >>> find("mean") is mean
        True
    """
    if name not in INITIALISATIONS:
        raise ValueError(f"--init {plain(name, 40)!r} is not known; take one of {', '.join(INITIALISATIONS)}")
    return INITIALISATIONS[name]


def trained_mean(wanted: Wanted) -> Float64[Tensor, " H"]:
    """The mean of all trained rows.

    Raises:
        ValueError: there is none.
    """
    count = int(wanted.trained.sum())
    if not count:
        raise ValueError(f"no row of {plain(wanted.table.name)} was trained, so there is nothing to make new ones from")
    total = torch.zeros(wanted.table.shape[1], dtype=torch.float64)
    for start, block in blocks(wanted.table):
        total += block[wanted.trained[start : start + len(block)]].sum(0, dtype=torch.float64)
    return total / count


def row_means(table: Table, chosen: Sequence[Int64[Tensor, " _"]]) -> Float64[Tensor, "M H"]:
    """The mean of some rows, for each of several choices; an id that stands twice counts twice.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> row_means(MemoryTable("weight", torch.eye(2)), [torch.tensor([0, 1]), torch.tensor([1])]).tolist()
        [[0.5, 0.5], [0.0, 1.0]]
    """
    needed = torch.from_numpy(np.unique(torch.cat(list(chosen))))
    rows = torch.zeros(len(needed), table.shape[1], dtype=torch.float64)
    for start, block in blocks(table):
        inside = (needed >= start) & (needed < start + len(block))
        rows[inside] = block[needed[inside] - start].double()
    return torch.stack([rows[torch.searchsorted(needed, ids)].mean(0) for ids in chosen])


def _everything(wanted: Wanted) -> Int64[Tensor, " n"]:
    return wanted.trained.nonzero().squeeze(1)
