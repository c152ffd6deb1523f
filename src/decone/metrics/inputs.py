"""Inputs of the metrics: checks, and reading in float64, a bounded number of entries at a time."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

BLOCK = 1 << 22  # entries converted at once: 32 MiB in float64


def row_blocks(matrix: Float[Tensor, "N V"]) -> Iterator[Float64[Tensor, "n V"]]:
    """Yields the rows of a matrix in order, in float64, a block at a time, so that no full float64 copy is made.

    Example:
        >>> sum(block.sum().item() for block in row_blocks(torch.ones(5, 3)))
        15.0
    """
    rows = max(1, BLOCK // max(1, matrix.shape[1]))
    for block in torch.split(matrix.detach(), rows):
        yield block.double()


def score_blocks(
    logits: Float[Tensor, "N V"], target: Int[Tensor, " N"]
) -> Iterator[tuple[Float64[Tensor, "n V"], Int[Tensor, " n"]]]:
    """Yields logits in float64 with their targets, a block of positions at a time.

    Raises:
        ValueError: the shapes do not fit, or a target lies outside the vocabulary (as an ignored -100 does).
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must be [N, V] and [N]: flatten both"
        )
    if target.numel() and (int(target.min()) < 0 or int(target.max()) >= logits.shape[1]):
        raise ValueError(
            f"targets run from {int(target.min())} to {int(target.max())} but the vocabulary is "
            f"0 to {logits.shape[1] - 1}: drop ignored positions first"
        )
    start = 0
    for block in row_blocks(logits):
        yield block, target[start : start + len(block)].long()
        start += len(block)


def require_table(weight: Float[Tensor, "V H"]) -> None:
    """Refuses anything but a finite table of embeddings.

    Raises:
        ValueError: `weight` is not 2-D and floating point, is empty, or holds NaN or infinity.

    Example:
        >>> require_table(torch.zeros(0, 3))
        Traceback (most recent call last):
        ValueError: weight of shape (0, 3) is empty: select at least one row
    """
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(
            f"weight must be a floating-point table [V, H], not {weight.dtype} of shape {tuple(weight.shape)}"
        )
    if weight.numel() == 0:
        raise ValueError(f"weight of shape {tuple(weight.shape)} is empty: select at least one row")
    if not all(bool(torch.isfinite(block).all()) for block in row_blocks(weight)):
        raise ValueError("weight holds NaN or infinite entries: drop those rows, or measure an earlier checkpoint")
