"""What only the page of a scan draws: coordinates of some rows; never part of the JSON."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Drawing:
    """Some rows of one table on its two main components, and their lengths.

    Attributes:
        table: "embedding" or "head".
        ids: rows drawn, [M]; at most 4,000, all groups and all suspects among them.
        tokens: their texts, foreign.
        groups: their frequency groups.
        plane: centred coordinates on the first two principal components, [M, 2].
        rank: frequency rank of each from 1, [M]; equal to id + 1 where no frequencies are known.
        norm: length of each row, [M].
        suspect: which are suspects, [M].
    """

    table: str
    ids: NDArray[np.int64]
    tokens: list[str]
    groups: list[str]
    plane: NDArray[np.float64]
    rank: NDArray[np.int64]
    norm: NDArray[np.float64]
    suspect: NDArray[np.bool_]
