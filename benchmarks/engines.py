"""Engines beside other packages, and beside the way each method is written down at first: time, memory, errors.

Workloads W1 to W6 have the shapes of language models and hidden states as hard as those of one, see
`engines_bench/workloads.py`; W3 to W6 need a CUDA device. Rounds are interleaved, so that a machine that slows down
slows all; what counts is the ratio within a round. With one thread on a CPU, times are processor time (the wall clock
stands beside it), on a GPU they are the GPU's own. Peak memory is over what a process holds before the call. Every row
of the result describes itself; rows are appended.

    python benchmarks/engines.py                              # W1 and W1-untrained
    python benchmarks/engines.py --quick                      # a tenth of the size, to see that everything runs
    python benchmarks/engines.py --workload W2                # states of a model trained here for a minute
    python benchmarks/engines.py --vocabulary 8192,32768,131072,262144
    python benchmarks/engines.py --tokens 1024,4096,16384
    python benchmarks/engines.py --nll 0.5,1,2,3.3,5,8        # easier and harder states: against the live share
    python benchmarks/engines.py --markdown                   # the table of what --out holds
    python benchmarks/engines.py --draw docs/engines.svg      # the picture of what --out holds

Other packages are found on the path and are not installed with decone: liger-kernel, cut-cross-entropy, quack-kernels.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from engines_bench import bench, memory, plot, rows
from engines_bench.ways import ENGINES, LOSSES, PEERS, losses
from engines_bench.workloads import WORKLOADS, Workload

MARGINS, ROUNDS = "0,1,5,8", 7
# A sweep asks how cost grows: few ways, each often enough.
SWEEP_MARGINS, SWEEP_ROUNDS = "1", 3
SWEEP_LOSSES, SWEEP_ENGINES, SWEEP_PEERS = "ce,threshold", "chunked,triton", "dense,lce-tuned"


def main(
    workload: Annotated[str, typer.Option(help=f"Of {', '.join(WORKLOADS)}.")] = "W1,W1-untrained",
    margins: Annotated[str, typer.Option(help=f"Margins of the threshold; {MARGINS}, in a sweep 1.")] = "",
    rounds: Annotated[int | None, typer.Option(help=f"{ROUNDS}, in a sweep {SWEEP_ROUNDS}.", min=1)] = None,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    wanted: Annotated[str, typer.Option("--losses", help=f"Of {', '.join(LOSSES)}; in a sweep {SWEEP_LOSSES}.")] = "",
    engines: Annotated[str, typer.Option(help=f"Of {', '.join(ENGINES)}; in a sweep {SWEEP_ENGINES}.")] = "",
    peers: Annotated[str, typer.Option(help=f"none, or of {', '.join(PEERS)}; in a sweep {SWEEP_PEERS}.")] = "",
    naive: Annotated[bool | None, typer.Option(help="Naive forms of the methods too; not in a sweep.")] = None,
    compile: Annotated[bool, typer.Option(help="Naive forms behind torch.compile too.")] = False,
    passes: Annotated[str, typer.Option(help="step: loss and gradients; forward: the loss alone.")] = "step,forward",
    weigh: Annotated[bool, typer.Option("--memory/--no-memory", help="Peak memory of a step too.")] = True,
    vocabulary: Annotated[str, typer.Option(help="Sweep over sizes of the vocabulary.")] = "",
    tokens: Annotated[str, typer.Option(help="Sweep over numbers of targets.")] = "",
    nll: Annotated[str, typer.Option(help="Sweep over mean negative log-likelihoods of the planted states.")] = "",
    states: Annotated[Path | None, typer.Option(help="W2 of a finished run, or of a safetensors file.")] = None,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda; the workload's own if left out.")] = "",
    quick: Annotated[bool, typer.Option(help="A tenth of the size.")] = False,
    out: Path = Path("results/benchmarks/engines.jsonl"),
    markdown: Annotated[bool, typer.Option(help="Only print what --out holds.")] = False,
    draw: Annotated[Path | None, typer.Option(help="Only draw what --out holds, as SVG.")] = None,
    measure: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measures every way on every workload, prints the tables, appends JSON lines."""
    torch.set_num_threads(threads)
    if measure:
        memory.measure(measure)
        return
    if markdown:
        print(rows.markdown(rows.latest(rows.load(out))))
    if draw is not None:
        draw.write_text(plot.picture(rows.latest(rows.load(out))), encoding="utf-8")
    if markdown or draw is not None:
        return
    sweep = bool(vocabulary or tokens or nll)
    distances = [float(margin) for margin in _words(margins or (SWEEP_MARGINS if sweep else MARGINS))]
    plan = bench.Plan(
        rounds=rounds or (SWEEP_ROUNDS if sweep else ROUNDS),
        threads=threads,
        losses=losses(_words(wanted or (SWEEP_LOSSES if sweep else ",".join(LOSSES))), distances),
        margins=distances,
        engines=_words(engines or (SWEEP_ENGINES if sweep else ",".join(ENGINES))),
        peers=[name for name in _words(peers or (SWEEP_PEERS if sweep else ",".join(PEERS))) if name != "none"],
        forms=["naive"] * (not sweep if naive is None else naive) + ["naive-compiled"] * compile,
        passes=_words(passes),
        memory=weigh,
        states=states,
    )
    found = []
    for load in _workloads(_words(workload), seed, device, quick, vocabulary, tokens, nll):
        made = bench.run(plan, load)
        rows.append(made, out)
        found += made
    print(rows.markdown(found))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _workloads(
    names: list[str], seed: int, device: str, quick: bool, vocabulary: str, tokens: str, nll: str
) -> Iterator[Workload]:
    for name in names:
        if name not in WORKLOADS:
            raise typer.BadParameter(f"unknown workload {name!r}; choose of {', '.join(WORKLOADS)}")
        load = replace(WORKLOADS[name], seed=seed, device=device or WORKLOADS[name].device)
        load = load.smaller() if quick else load
        if not (vocabulary or tokens or nll):
            yield load
        elif load.states == "planted":
            yield from (replace(load, V=int(size)) for size in _words(vocabulary))
            yield from (replace(load, B=max(1, int(size) // load.T)) for size in _words(tokens))
            yield from (replace(load, mean_nll=float(mean)) for mean in _words(nll))


if __name__ == "__main__":
    typer.run(main)
