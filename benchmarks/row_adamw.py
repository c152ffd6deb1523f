"""One step of RowAdamW on a table, with and without its kernel in C, against torch's AdamW, on the CPU.

    python benchmarks/row_adamw.py [--rounds 7] [--threads 1] [--out results/benchmarks/row_adamw.json]

Rounds are interleaved; a ratio is taken within a round. With one thread the clock is the thread's processor time, which
other programs on the machine do not stretch (their share of the memory bus they still take); with more it is wall time.

The rows that a step touches and what they went through before decide which way RowAdamW takes:

- all, even: every row at every step, so all step counts are equal, as under plain cross-entropy
- all, uneven: every row, but the counts differ from earlier steps
- 30 %, uneven: other rows at every step, as under thresholding
- 50 %, uneven: between these two
- 5 %, uneven: as in an input table that is not tied
- all, settled and 30 %, settled: counts differ, but with beta2 = 0.95 all are so high that no bias is left to correct

The kernel (`compiled=True`) goes one way whatever the rows went through. What it takes to compile is measured once.
"""

import json
import os
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from decone.models.nano import Nano, NanoConfig
from decone.optim import RowAdamW, row_kernel
from decone.training.machine import provenance

SIZES = {(130, 128): 200, (50257, 768): 1}  # steps per round
CASES = {  # share of rows touched, range of the step counts they had before, beta2
    "all, even": (1.0, None, 0.999),
    "all, uneven": (1.0, (1, 1000), 0.999),
    "50 %, uneven": (0.5, (1, 1000), 0.999),
    "30 %, uneven": (0.3, (1, 1000), 0.999),
    "5 %, uneven": (0.05, (1, 1000), 0.999),
    "all, settled": (1.0, (1000, 2000), 0.95),
    "30 %, settled": (0.3, (1000, 2000), 0.95),
}
OURS = {"row_adamw": "", "compiled": "compiled_"}  # prefix of the numbers in a row


def optimizers(parameters: list[list[nn.Parameter]], beta2: float) -> dict[str, torch.optim.Optimizer]:
    ours, compiled, fused, foreach = parameters
    tables, same = ([parameter for parameter in each if parameter.dim() == 2][:1] for each in (ours, compiled))
    betas = (0.9, beta2)
    return {
        "row_adamw": RowAdamW(ours, betas=betas, rows=tables, fused=True),
        "compiled": RowAdamW(compiled, betas=betas, rows=same, fused=True, compiled=True),
        "fused": torch.optim.AdamW(fused, betas=betas, fused=True),
        "foreach": torch.optim.AdamW(foreach, betas=betas, foreach=True),
    }


def twins(tensors: list[Tensor]) -> list[list[nn.Parameter]]:
    return [[nn.Parameter(tensor.clone()) for tensor in tensors] for _ in range(4)]


def compare(
    tensors: list[Tensor],
    gradients: list[list[Tensor]],
    counts: tuple[int, int] | None,
    rounds: int,
    steps: int,
    threads: int,
    beta2: float = 0.999,
) -> dict[str, Any]:
    """Steps the same tensors under the four optimisers; `gradients` are taken in turn."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    raced = optimizers(twins(tensors), beta2)
    seconds: dict[str, list[float]] = {name: [] for name in raced}
    for turn in range(rounds + 2):  # two rounds warm up
        for name, optimizer in raced.items():
            parameters = optimizer.param_groups[0]["params"]
            spent = 0.0
            for step in range(steps):
                for parameter, gradient in zip(parameters, gradients[(turn + step) % len(gradients)], strict=True):
                    parameter.grad = gradient
                began = clock()
                optimizer.step()
                spent += clock() - began
            if turn == 0 and counts and name in OURS:
                own = optimizer.state[parameters[0]]["step"]
                own.copy_(torch.randint(*counts, own.shape, generator=torch.Generator().manual_seed(0)))
            if turn > 1:
                seconds[name].append(spent / steps)
    sizes = {
        name: sum(t.nbytes for state in each.state.values() for t in state.values()) for name, each in raced.items()
    }
    row: dict[str, Any] = {f"{name}_ms": 1e3 * statistics.median(found) for name, found in seconds.items()}
    row |= {f"{name}_least_ms": 1e3 * min(found) for name, found in seconds.items()}
    for ours, prefix in OURS.items():
        for other in ("fused", "foreach"):
            ratios = [a / b for a, b in zip(seconds[ours], seconds[other], strict=True)]
            row[f"{prefix}ratio_{other}"] = [statistics.median(ratios), min(ratios), max(ratios)]
        row[f"{prefix}state_bytes_ratio"] = sizes[ours] / sizes["fused"]
    return row


def compile_seconds() -> float:
    """Wall time to compile and load the kernel for one number type; there is no cache to be warm."""
    row_kernel.kernel_for.cache_clear()
    began = time.perf_counter()
    row_kernel.kernel_for(torch.float32)
    return time.perf_counter() - began


def races(rounds: int, threads: int) -> list[dict[str, Any]]:
    found = []
    for (V, H), steps in SIZES.items():
        for case, (share, counts, beta2) in CASES.items():
            torch.manual_seed(0)
            gradients = [[torch.randn(V, H).mul_(0.01) * (torch.rand(V, 1) < share)] for _ in range(2)]
            numbers = compare([torch.randn(V, H).mul_(0.02)], gradients, counts, rounds, steps, threads, beta2)
            found.append({"parameters": f"{V:,} x {H}", "touched": case, **numbers})
    tensors = [parameter.detach() for parameter in Nano(NanoConfig(vocabulary=130)).parameters()]
    gradients = [[torch.randn_like(tensor).mul_(0.01) for tensor in tensors] for _ in range(2)]
    for each in gradients:
        each[0] *= torch.rand(130, 1) < 0.3
    numbers = compare(tensors, gradients, (1, 1000), rounds, 50, threads)
    return [*found, {"parameters": "Nano, 0.8 M, tied table by rows", "touched": "30 %, uneven", **numbers}]


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("parameters", "rows touched", "kernel", "ms", "against fused", "against foreach", "state")
    for row in rows:
        for ours, prefix in OURS.items():
            ratios = [
                "{:.2f} [{:.2f}, {:.2f}]".format(*row[f"{prefix}ratio_{other}"]) for other in ("fused", "foreach")
            ]
            milliseconds, state = f"{row[f'{ours}_ms']:.3f}", f"{row[f'{prefix}state_bytes_ratio']:.4f}"
            table.add_row(row["parameters"], row["touched"], "C" if prefix else "", milliseconds, *ratios, state)
    Console().print(table)


def main(
    rounds: Annotated[int, typer.Option(min=7)] = 7,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    out: Path = Path("results/benchmarks/row_adamw.json"),
) -> None:
    """Times all cases; prints and writes the table."""
    torch.set_num_threads(threads)
    compiling = compile_seconds()
    rows = races(rounds, threads)
    show(rows)
    clock = "processor time of the thread" if threads == 1 else "wall"
    load = os.getloadavg()[0]  # programs that shared the machine in the last minute, this one included; Unix only
    document = {"rounds": rounds, "threads": threads, "clock": clock, "load": load, "compile_s": compiling}
    document |= {"rows": rows, **provenance()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
