"""Compiles every kernel and every tile for a GPU that is not there; run in a process without the interpreter.

The engine runs on CPU tensors as it would on a GPU, but a launch only compiles: `python ahead.py 90 bfloat16`.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

SHARED = {80: 166912, 86: 101376, 90: 232448}  # bytes of shared memory that one program may have


def kind(value: Any) -> str:
    """Triton's name for the type of an argument."""
    if isinstance(value, Tensor):
        names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int64": "i64", "int32": "i32", "int8": "i8"}
        return "*" + names[str(value.dtype).removeprefix("torch.")]
    return "fp32" if isinstance(value, float) else "i32"


def compile_launch(kernel: Any, arch: int, values: dict[str, Any], warps: int, stages: int) -> tuple[int, int]:
    """Bytes of shared memory and tensor-core instructions of a kernel compiled for what a launch passes to it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        special = not parameter.do_not_specialize and isinstance(value, int)
        if parameter.is_constexpr or value is None or (special and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        signature[parameter.name] = kind(value)
        if isinstance(value, Tensor) or (special and value % 16 == 0):
            attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    made = triton.compile(source, GPUTarget("cuda", arch, 32), options)
    assert made.asm["cubin"]
    return made.metadata.shared, made.asm["ptx"].count("mma")


def compile_all(arch: int, dtype: torch.dtype) -> dict[str, list[str]]:
    """Runs the engine with launches that compile; what was compiled, by kernel."""
    from triton.runtime.jit import JITFunction

    import decone.engines.triton.engine as engine
    from decone.engines.contract import Gate, Readout, Request, Tokens
    from decone.objectives import Threshold, get
    from decone.objectives.compose import Compose

    done: dict[str, list[str]] = {}
    known = set()

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        warps, stages = kwargs.pop("num_warps", 4), kwargs.pop("num_stages", 3)
        kwargs.pop("enable_fp_fusion")
        values = dict(zip((p.name for p in self.params), args, strict=False)) | kwargs
        about = {
            name: kind(v) if isinstance(v, Tensor | float) or name in "CVHULG" else v for name, v in values.items()
        }
        key = (self.__name__, warps, stages, *about.items())
        if key in known:
            return
        known.add(key)
        begin = time.perf_counter()
        shared, products = compile_launch(self, arch, values, warps, stages)
        assert shared <= SHARED[arch], f"{self.__name__} takes {shared} bytes of shared memory: {about}"
        flags = " ".join(f"{n}={v}" for n, v in kwargs.items())
        took = time.perf_counter() - begin
        done.setdefault(self.__name__, []).append(f"{flags} warps={warps} stages={stages}: {shared} B, {products} mma")
        print(f"{took:5.1f} s {self.__name__} {done[self.__name__][-1]}", flush=True)

    def every(_: Any, choices: Sequence[Any], launch: Callable[[Any], Any], reset: Any = None) -> Any:
        for choice in choices:
            launch(choice)
        return choices[0]

    JITFunction.run = run
    engine.quickest = every
    engine.check = lambda device: None
    torch.empty = torch.zeros  # nobody fills it, and some of it is an index
    # Widths that leave a rest, and a table whose launch grid needs no room: nothing is computed.
    hidden = torch.zeros(130, 272, dtype=dtype)
    weight, bias = torch.zeros(400, 272, dtype=dtype), torch.zeros(400, dtype=dtype)
    target, place = torch.zeros(130, dtype=torch.long), torch.arange(130)
    tokens = Tokens(target, place // 10, place % 10)
    gate = Gate(torch.arange(400) % 2 == 0, torch.ones(400), torch.ones(400))
    gated = get("unlikelihood")
    gated.gate = lambda: gate
    rules = [get("mle"), Threshold(), gated, Compose(Threshold(), get("scalegrad"), get("unlikelihood"))]
    rules[3].gate = lambda: gate
    for rule, readout, b in zip(
        rules, (Readout(), Readout(), Readout(2.0, 30.0), Readout(2.0, 30.0)), (None, None, bias, bias), strict=True
    ):
        leaves = [t.requires_grad_() for t in (hidden, weight)]
        engine.triton(*leaves, b, tokens, rule, Request(readout=readout), chunk_bytes=2**26)
    return done


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = compile_all(int(sys.argv[1]), getattr(torch, sys.argv[2]))
    print(f"compiled {sum(map(len, found.values()))} of {len(found)} kernels")
