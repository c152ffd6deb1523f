"""The engine for NVIDIA GPUs: tiles of logits that are never all alive, and products over live columns only."""

from decone.engines.triton.engine import triton

__all__ = ["triton"]
