"""The choice of an engine by device, precision and objective, with its reason."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from decone.engines.chunked import chunked
from decone.engines.contract import Engine, Evaluation, Rule, reference
from decone.engines.sweep import product_dtype
from decone.files.foreign import quoted

TRUSTED = False  # whether "auto" takes the triton engine: not before the tests marked `gpu` have passed on a GPU
AMPERE = (8, 0)  # the oldest compute capability that multiplies bfloat16


def _lazy(module: str) -> Engine:
    """An engine whose module is imported at the first call, because its dependencies are slow to import or missing."""

    def engine(*inputs: Any, **settings: Any) -> Evaluation:
        evaluation: Evaluation = getattr(import_module(f"decone.engines.{module}"), module)(*inputs, **settings)
        return evaluation

    return engine


ENGINES: dict[str, Engine] = {
    "reference": reference,
    "chunked": chunked,
    "triton": _lazy("triton"),
    "vocab_parallel": _lazy("vocab_parallel"),
}


class EngineChoice(NamedTuple):
    """The name of an engine, and the reason for its choice in one sentence."""

    name: str
    reason: str


def choose(
    engine: str = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    rule: Rule | None = None,
) -> EngineChoice:
    """Resolves an engine's name, "auto" by device, type of the large products and objective, with the reason.

    Raises:
        ValueError: no engine has this name.

    Example:
        >>> choose("auto").name
        'chunked'
    """
    if engine != "auto":
        if engine not in ENGINES:
            raise ValueError(f"unknown engine {quoted(engine)}; choose one of auto, {', '.join(sorted(ENGINES))}")
        return EngineChoice(engine, "asked for by name")
    device = torch.device(device)
    if device.type != "cuda":
        return EngineChoice("chunked", "right on every device, and its memory does not grow with tokens x vocabulary")
    missing = _no_kernels(device.index or 0)
    if missing is not None:
        return EngineChoice("chunked", missing)
    if dtype == torch.float64:
        return EngineChoice("chunked", "the triton engine does not multiply in float64")
    if rule is not None and rule.general:
        return EngineChoice(
            "chunked", f"{type(rule).__name__} asks for whole rows of logits, which the triton engine has not"
        )
    if not TRUSTED:
        return EngineChoice(
            "chunked", "the triton kernels have not been run on a GPU yet; ask for them by name to try them"
        )
    return EngineChoice("triton", "this GPU runs its kernels, which keep no logits and skip the rows that nobody keeps")


def get(
    engine: str | Engine = "auto",
    hidden: Tensor | None = None,
    weight: Tensor | None = None,
    rule: Rule | None = None,
) -> Engine:
    """The engine for a call, by name as in `choose`; an engine is returned as it is.

    Raises:
        ValueError: no engine has this name, or "auto" meets a table cut over ranks.
    """
    if not isinstance(engine, str):
        return engine
    if hidden is None or weight is None:
        return ENGINES[choose(engine).name]
    if engine != "vocab_parallel" and hasattr(weight, "placements"):
        raise ValueError(
            "the weight is a DTensor, and its cut does not say whether hidden states differ between ranks; if they "
            "are the same pass engine='vocab_parallel', if they differ pass "
            "weight.full_tensor(grad_placements=[Partial('avg')]), which averages gradients as FSDP2 and DDP do"
        )
    return ENGINES[choose(engine, hidden.device, product_dtype(hidden), rule).name]


@cache
def _no_kernels(index: int) -> str | None:
    """Reason for which a GPU cannot run the triton engine; None if it can."""
    if torch.version.hip is not None:
        return "the triton engine has been written for NVIDIA GPUs"
    if torch.cuda.get_device_capability(index) < AMPERE:
        return "the triton engine needs an Ampere GPU or a newer one"
    if find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    return None
