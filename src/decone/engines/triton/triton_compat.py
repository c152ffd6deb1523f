"""Triton itself, which may be missing: the engine can be imported, tested for and refused without it."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

compiler: Any
tl: Any
try:
    import triton as compiler  # type: ignore[no-redef]
    import triton.language as tl  # type: ignore[no-redef]
except ImportError:  # annotations of the kernels are evaluated either way
    compiler, tl = None, SimpleNamespace(constexpr=int, tensor=object)

_CHANGING = ("N", "U", "L")  # sizes that differ from batch to batch: no kernel is compiled anew for one of them


def jit(function: Callable[..., Any]) -> Any:
    """Marks a kernel or a function that kernels call; without Triton it stays a plain function and is never called."""
    # Decorators that check annotations hide the function whose source Triton reads.
    if compiler is None:
        return function
    function = inspect.unwrap(function)
    changing = [name for name in inspect.signature(function).parameters if name in _CHANGING]
    return compiler.jit(function, do_not_specialize=changing)


def interpreted() -> bool:
    """True if kernels run in Triton's interpreter on the CPU (TRITON_INTERPRET=1 before the first import)."""
    return compiler is not None and not isinstance(_probe, compiler.JITFunction)


def check(device: torch.device) -> None:
    """Refuses a device on which the kernels cannot run.

    Raises:
        ValueError: Triton is missing, or the device is none of NVIDIA's since Ampere.
    """
    if compiler is None:
        raise ValueError("the triton engine needs the package triton; install it, or pass engine='chunked'")
    if device.type == "cuda":
        if torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0):
            return
    elif device.type == "cpu" and interpreted():
        return
    raise ValueError(
        f"the triton engine needs an NVIDIA GPU of compute capability 8.0 or newer, got {device}; "
        "pass engine='chunked' (or set TRITON_INTERPRET=1 before the start to interpret its kernels, slowly)"
    )


@jit
def _probe() -> None:
    """Its class is that of a function after `jit`."""


# The interpreter multiplies the bits of bfloat16 as if they were whole numbers; float32 holds its products exactly.
_WIDEN = tl.constexpr(interpreted())


@jit
def dot(rows: tl.tensor, columns: tl.tensor, total: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """Product of two tiles, added to a float32 total."""
    if _WIDEN:
        return tl.dot(rows.to(tl.float32), columns.to(tl.float32), total, input_precision=PRECISION)
    else:
        return tl.dot(rows, columns, total, input_precision=PRECISION)
