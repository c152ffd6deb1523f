"""The chunked engine with chunks of a single position."""

from typing import Any

from torch import Tensor

from decone.engines.chunked import chunked
from decone.engines.contract import Evaluation


def one_row(hidden: Tensor, weight: Tensor, *arguments: Any) -> Evaluation:
    return chunked(hidden, weight, *arguments, chunk_bytes=4 * weight.size(0))
