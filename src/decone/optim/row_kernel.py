"""The step of RowAdamW in C: one pass over each touched row, by the machine's own compiler, when it is asked for.

PyTorch's operations need about ten passes, and its fused kernel knows one step count for a whole table. The source lies
beside this file, calls nothing but the maths library and takes a fraction of a second to compile. It is compiled once
per process and number type into a folder that is removed at once, so there is no cache that could be out of date. Only
those who ask for it need a compiler.
"""

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import increment_version

SOURCE = Path(__file__).with_name("row_kernel.c")
REALS = {torch.float32: "float", torch.float64: "double"}
COMPILERS = ("cc", "gcc", "clang")
# Contracting a product and a sum would make the result depend on the processor.
FLAGS = ("-O3", "-std=c11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-shared", "-fPIC")
X86 = ("-march=native", "-mprefer-vector-width=256")  # a tenth faster than 512 on an AVX-512 machine, measured
SHARED = 1 << 18  # entries; in a smaller table threads cost more than they save
BLOCKS = 4  # per thread: touched rows, and so the cost of a block, are spread unevenly

Kernel = Callable[..., None]


class AdamWRule(NamedTuple):
    """Numbers and policies of one step."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    maximize: bool
    all_touched: bool  # every row counts as touched
    decay_untouched: bool  # decoupled weight decay reaches rows without gradient too
    fade_untouched: bool  # the moments of rows without gradient decay, as under a zero gradient
    fused: bool  # torch's fused kernel may be used
    compiled: bool = False  # all is done by the kernel in C


class AdamWTable(NamedTuple):
    """A weight with its moments; `step` counts the updates of each row."""

    weight: Float[Tensor, "V H"]
    exp_avg: Float[Tensor, "V H"]
    exp_avg_sq: Float[Tensor, "V H"]
    step: Float[Tensor, " V"]

    def map(self, change: Callable[[Tensor], Tensor]) -> "AdamWTable":
        """Applies a change to the three arrays; the step counts are shared."""
        return AdamWTable(change(self.weight), change(self.exp_avg), change(self.exp_avg_sq), self.step)


def require_kernel(table: Tensor) -> None:
    """Compiles the kernel that steps such a table, if that has not happened yet.

    Raises:
        ValueError: If the kernel does not take such a table.
        RuntimeError: If there is no C compiler, or it fails.
    """
    if table.device.type != "cpu" or table.dtype not in REALS or not table.is_contiguous():
        raise ValueError(
            f"compiled=True steps contiguous float32 and float64 tables on the CPU, not {table.dtype} on "
            f"{table.device.type} with strides {list(table.stride())}; set compiled=False"
        )
    kernel_for(table.dtype)


def step_compiled(table: AdamWTable, gradient: Float[Tensor, "V H"], rule: AdamWRule) -> None:
    """Takes one AdamW step on the touched rows of `table`, in place, each row by its own step count.

    The numbers of a row depend on that row alone, so they are the same to the bit for any number of threads.

    Args:
        table: Weight, moments and step counts; all four are changed.
        gradient: Dense gradient of the weight.
        rule: Numbers and policies of the step.

    Raises:
        ValueError: If the kernel does not take the table.
        RuntimeError: If there is no C compiler, or it fails.
    """
    V, H = gradient.shape
    gradient = gradient.contiguous()
    for array in (*table[:3], gradient):
        if array.dtype != gradient.dtype:
            raise ValueError("compiled=True takes weight, moments and gradient of one type; set compiled=False")
        require_kernel(array)
    kernel, threads = kernel_for(gradient.dtype), torch.get_num_threads()
    step = table.step.contiguous()
    arrays = [array.data_ptr() for array in (*table[:3], step, gradient)]
    numbers = (*rule[:5], rule.maximize, rule.all_touched, rule.decay_untouched, rule.fade_untouched)
    if threads == 1 or gradient.numel() < SHARED:
        kernel(*arrays, 0, V, H, *numbers)
    else:
        size = -(-V // (threads * BLOCKS))
        starts = range(0, V, size)
        list(
            _pool(threads, os.getpid()).map(
                lambda start: kernel(*arrays, start, min(start + size, V), H, *numbers), starts
            )
        )
    if step is not table.step:
        table.step.copy_(step)
    increment_version(table)  # or autograd would not notice that a weight it saved has changed


@cache
def kernel_for(dtype: torch.dtype) -> Kernel:
    """The kernel for one number type, compiled at the first call.

    Raises:
        RuntimeError: If there is no C compiler, or it fails.
    """
    preferred = os.environ.get("CC")
    command = shlex.split(preferred) if preferred else next(([name] for name in COMPILERS if shutil.which(name)), None)
    if command is None:
        raise RuntimeError("compiled=True needs a C compiler and found none; install gcc or clang, or name one in CC")
    native = X86 if platform.machine().lower() in ("x86_64", "amd64") else ()
    with TemporaryDirectory(prefix="decone-", ignore_cleanup_errors=True) as folder:
        library = Path(folder) / "row_kernel.so"
        command += [*FLAGS, *native, f"-DREAL={REALS[dtype]}", str(SOURCE), "-o", str(library), "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
            kernel = ctypes.CDLL(str(library)).step_rows
        except (OSError, subprocess.CalledProcessError) as error:
            message = getattr(error, "stderr", "") or str(error)
            raise RuntimeError(f"{shlex.join(command)} failed; name another C compiler in CC\n{message}") from error
    pointer, size, number, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double, ctypes.c_int
    kernel.argtypes = [pointer] * 5 + [size] * 3 + [number] * 5 + [flag] * 4
    kernel.restype = None
    return kernel


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process; after a fork the parent's are gone."""
    return ThreadPoolExecutor(threads, "row-adamw")
