"""Objectives against our own chunked plain cross-entropy, and against the way each is written down at first.

One forward and backward pass over N targets. The plain form is `F.linear` and `F.cross_entropy`; the naive form of a
method builds whole logits, masks over tokens x vocabulary and lets autograd do the rest. Rounds are interleaved, so
that a machine that slows down slows all of them; what counts is the ratio within a round. Times are processor time
(the wall clock stands beside it): with one thread that is what a step takes on a machine of its own. Peak memory is
that of a child process over what it holds before the call.

    python benchmarks/objectives.py [--rounds 5] [--threads 1] [--out results/benchmarks/objectives.json]
"""

import gc
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from decone import objectives
from decone.training.config import Method
from decone.training.machine import provenance

B, T, H, V = 8, 256, 256, 32768
METHODS = {"mle": "mle", "scalegrad": "scalegrad:gamma=0.2", "unlikelihood": "unlikelihood"}
if "agg" in objectives.names():
    METHODS["agg"] = "agg:alpha=1.5,window=100"  # so that there are rare targets too

Inputs = tuple[Tensor, Tensor, Tensor]


def sample() -> Inputs:
    """Hidden states, table, and targets drawn by a Zipf law, as text has them."""
    draw = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(B, T, H, generator=draw), torch.randn(V, H, generator=draw) / math.sqrt(H)
    law = 1 / torch.arange(1, V + 1)
    return hidden, weight, torch.multinomial(law, B * T, replacement=True, generator=draw).view(B, T)


def plain(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).flatten(0, 1), target.flatten())


def seen_mask(target: Tensor, vocabulary: int) -> Tensor:
    """Whether each id was a target before, [B, T, V], by a running maximum over one-hot rows."""
    seen = torch.zeros(*target.shape, vocabulary, dtype=torch.int8)
    seen[:, 1:].scatter_(2, target[:, :-1, None], 1)
    return seen.cummax(1).values.bool()


def naive_scalegrad(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    chance = F.linear(hidden, weight).softmax(-1)
    chance = torch.where(seen_mask(target, weight.size(0)), chance, 0.2 * chance)
    chance = chance / chance.sum(-1, keepdim=True)
    return -chance.gather(2, target[..., None]).log().mean()


def naive_unlikelihood(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    logprob = F.linear(hidden, weight).log_softmax(-1)
    negative = seen_mask(target, weight.size(0)).scatter(2, target[..., None], False)
    charge = -torch.log((1 - logprob.exp()).clamp(min=1e-5)) * negative
    return (charge.sum(-1) - logprob.gather(2, target[..., None]).squeeze(-1)).mean()


def naive_agg(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Three sums of logits, as in the paper: one for hidden states, two gated ones for the table."""
    h, y = hidden.flatten(0, 1), target.flatten()
    count = torch.bincount(y, minlength=weight.size(0)).float()
    rare = count < 1.5
    rate = torch.where(rare, count.clamp(max=1), 1.0)
    share = torch.where(rare, (count / (count[rare].mean() + 1e-7)).clamp(max=1), 1.0)
    loss = F.cross_entropy(F.linear(h, weight.detach()), y)
    for rows, factor in ((~rare[y], rate), (rare[y], share)):
        z = F.linear(h[rows].detach(), weight)
        gate = factor.expand(len(z), -1).scatter(1, y[rows, None], 1.0)
        gated = gate * z + (1 - gate) * z.detach()
        loss = loss + F.cross_entropy(gated, y[rows], reduction="sum") / len(y)
    return loss


NAIVE = {"mle": plain, "scalegrad": naive_scalegrad, "unlikelihood": naive_unlikelihood, "agg": naive_agg}


def step(name: str, inputs: Inputs) -> Callable[[], None]:
    """One forward and backward pass, bookkeeping included, as a training loop calls it."""
    hidden, weight, target = inputs
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    kind, method = name.split()
    rule = None if kind == "naive" else Method.parse(METHODS[method]).build_objective()

    def once() -> None:
        hidden.grad = weight.grad = None
        if rule is None:
            NAIVE[method](hidden, weight, target).backward()
        else:
            rule(hidden, weight, target, engine="chunked", nll=False).mean().backward()

    return once


def peak(name: str, threads: int) -> float:
    """Peak memory in MiB of one step, over inputs and imports, in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def high_water() -> float:
    """Peak resident memory of this process in MiB; Linux (getrusage would count what the parent held at the fork)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(name: str) -> None:
    """One step in a fresh process; what gradients of hidden states and table take belongs to the step."""
    hidden, weight, target = sample()
    step(name, (hidden[:1, :4].clone(), weight[:64].clone(), target[:1, :4] % 64))()  # loads what is loaded lazily
    gc.collect()
    before = high_water()
    step(name, (hidden, weight, target))()
    print(high_water() - before)


def main(
    rounds: Annotated[int, typer.Option(min=3)] = 5,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    naive: Annotated[bool, typer.Option(help="Also time the naive forms.")] = True,
    measure_: Annotated[str, typer.Option("--measure", help="Print the peak memory of one step and stop.")] = "",
    out: Path = Path("results/benchmarks/objectives.json"),
) -> None:
    """Times all variants in one process, interleaved, and measures their memory; prints and writes the table."""
    torch.set_num_threads(threads)
    if measure_:
        measure(measure_)
        return
    inputs = sample()
    names = [f"ours {method}" for method in METHODS]
    names += ["naive mle"] + ([f"naive {method}" for method in METHODS if method != "mle"] if naive else [])
    variants = {name: step(name, inputs) for name in names}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, once in variants.items():
            if name.startswith("naive") and name != "naive mle" and turn != 1:
                continue  # they are far away; one round says how far
            began = time.process_time(), time.perf_counter()
            once()
            if turn:  # the first round warms up
                times[name].append((time.process_time() - began[0], time.perf_counter() - began[1]))
    memory = {name: peak(name, threads) for name in names}
    rows = []
    for name, found in times.items():
        ratios = [a / b for (a, _), (b, _) in zip(found, times["ours mle"], strict=False)]
        row = {
            "variant": name,
            "rounds": len(found),
            "milliseconds": 1e3 * statistics.median(cpu for cpu, _ in found),
            "wall_milliseconds": 1e3 * statistics.median(wall for _, wall in found),
            "ratio_to_ours_mle": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            "peak_mebibytes": memory[name],
            "peak_over_plain_pytorch": memory[name] / memory["naive mle"],
        }
        rows.append(row)
        print(
            f"{name:20} {row['milliseconds']:7.0f} ms (wall {row['wall_milliseconds']:6.0f})  "
            f"ratio {row['ratio_to_ours_mle']:.3f} [{min(ratios):.3f}, {max(ratios):.3f}]  "
            f"{memory[name]:6.0f} MiB, {row['peak_over_plain_pytorch']:.3f} of plain PyTorch"
        )
    shape = {"B": B, "T": T, "H": H, "V": V, "dtype": "float32"}
    document = {"rounds": rounds, "threads": threads, "methods": METHODS, "shape": shape, "rows": rows, **provenance()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
