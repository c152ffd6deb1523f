"""One workload from inputs to rows: every way is judged at a small size, then timed in turn, then weighed."""

import os
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from decone.training.machine import provenance

from . import memory, rows, trained
from .clocks import clock, interleave, reason
from .exactness import Found, judge, samples, truth
from .ways import PRODUCT, Call, Ours, UnavailableError, Way, build, versions, ways
from .workloads import Inputs, Workload, generate, sparsity


@dataclass(frozen=True)
class Plan:
    """What one command measures, whatever the workload."""

    rounds: int
    threads: int
    losses: list[str]
    margins: list[float]
    engines: list[str]
    peers: list[str]
    forms: list[str]  # naive, naive-compiled
    passes: list[str]  # step, forward
    memory: bool
    states: Path | None

    def __post_init__(self) -> None:
        ways([], self.engines, self.peers, [])  # refuses unknown names before anything is measured
        if not set(self.passes) <= {"step", "forward"}:
            raise ValueError(f"unknown pass in {', '.join(self.passes)}; choose of step, forward")

    def ways(self, load: Workload) -> list[Way]:
        """All ways of a workload; an untrained model is there for one question, what a threshold costs that drops
        nothing, and ways that hold whole logits cost the same at every margin."""
        wanted, peers, forms = self.losses, self.peers, self.forms
        thresholds = [name for name in wanted if name.startswith("threshold")]
        first = "threshold:1" if "threshold:1" in thresholds else next(iter(thresholds), "")
        if load.states == "untrained":
            wanted, forms = [name for name in wanted if name in ("ce", first)], []
            peers = [name for name in peers if name in ("dense", "lce-tuned")]
        found = ways(wanted, self.engines, peers, forms)
        return [way for way in found if way.margin is None or way.loss == first or not way.whole_logits(load)]


def tell(text: str) -> None:
    """A line of progress; the tables are what goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def run(plan: Plan, load: Workload) -> list[rows.Row]:
    """All rows of one workload; where it cannot run, one row that says why."""
    begun = os.getloadavg()[0]
    missing = load.device == "cuda" and not torch.cuda.is_available()
    try:
        if missing:
            raise UnavailableError("it needs a CUDA device, and there is none")
        load, inputs, small = _inputs(plan, load)
    except UnavailableError as error:
        tell(f"{load.name} does not run: {error}")
        return [{"way": "all", "loss": "all", "pass": "all", "reason": str(error)} | _about(plan, load, begun)]
    states = sparsity(inputs, sorted({*plan.margins, 1.0}))
    live = {margin: found["live_sorted"] for margin, found in states["margins"].items()}
    tell(f"  mean negative log-likelihood {states['nll_mean']:.2f}, live columns by margin {live}")
    torch._dynamo.reset()  # compiled programs are kept for so many shapes and no more
    made: list[rows.Row] = []
    calls, facts = _judged(plan, load, inputs, small, made)
    for kind in plan.passes:
        steps = {way: memory.step(call, inputs, kind == "step") for way, call in calls.items()}
        tell(f"  {kind}")
        laps, failed = interleave(steps, lambda way: way.every, plan.rounds, load.device, tell)
        made += [_row(way, kind, reason=why) for way, why in failed.items()]
        peaks = _peaks(plan, list(laps), inputs, steps, load) if kind == "step" and plan.memory else {}
        dense = peaks.get(Way("dense", "ce"), {}).get("peak_mebibytes")
        for way in laps:
            weighed = peaks.get(way, {})
            if dense and "peak_mebibytes" in weighed:
                weighed["peak_of_dense"] = weighed["peak_mebibytes"] / dense
            times = rows.timed(way, laps, kind == "step", live) if plan.rounds else {}
            made.append(_row(way, kind, **times, **weighed, **facts[way]))
    about = _about(plan, load, begun) | {"states": states}
    return [row | about for row in made]


def _inputs(plan: Plan, load: Workload) -> tuple[Workload, Inputs, Inputs]:
    """The workload as it came out, its inputs, and small ones of the same kind."""
    tell(f"{load.name}: {load.states} hidden states, N {load.N:,}, H {load.H:,}, V {load.V:,}, {load.dtype}")
    if load.states != "trained":
        return load, generate(load), generate(load.reduced())
    load, inputs = trained.train(load, tell) if plan.states is None else trained.read(load, plan.states)
    inputs = Inputs(*(part.to(load.device) for part in inputs))
    return load, inputs, trained.leading(inputs)


def _judged(
    plan: Plan, load: Workload, inputs: Inputs, small: Inputs, made: list[rows.Row]
) -> tuple[dict[Way, Call], dict[Way, rows.Row]]:
    """Functions of the ways that run here, and what is known of each; `made` gets a row for each that does not."""
    calls: dict[Way, Call] = {}
    facts: dict[Way, rows.Row] = {}
    right: dict[str, list[Found]] = {}
    given = samples(small)
    for way in plan.ways(load):
        try:
            large = memory.too_large(way, load)
            if large:
                raise UnavailableError(large)
            call, known = build(way, load.device), {}
            if way.name != PRODUCT:
                if way.loss not in right:
                    right[way.loss] = [truth(way, sample) for sample in given]
                known = judge(partial(build, way, load.device), right[way.loss], given)
            if isinstance(call, Ours) and way.margin is not None and "step" in plan.passes:
                known["live"] = call.live(inputs)
        except UnavailableError as error:
            made += [_row(way, kind, reason=str(error)) for kind in plan.passes]
            tell(f"  {way} does not run: {error}")
        except Exception as error:  # what other people's code does where it does not run
            made += [_row(way, kind, reason=reason(error)) for kind in plan.passes]
            tell(f"  {way} fails: {reason(error)}")
        else:
            calls[way], facts[way] = call, known
    return calls, facts


def _peaks(
    plan: Plan, those: list[Way], inputs: Inputs, steps: dict[Way, memory.Once], load: Workload
) -> dict[Way, rows.Row]:
    found: dict[Way, rows.Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "inputs.safetensors"
        if load.device == "cpu":
            memory.save(inputs, file)
        for way in those:
            if load.device == "cuda":
                found[way] = {"peak_mebibytes": memory.peak_on_gpu(steps[way])}
                continue
            peak = memory.peak_in_child(way, file, plan.threads)
            found[way] = {"memory_reason": peak} if isinstance(peak, str) else {"peak_mebibytes": peak}
            tell(f"  memory of {way}: {peak if isinstance(peak, str) else f'{peak:.0f} MiB'}")
    return found


def _row(way: Way, kind: str, **found: object) -> rows.Row:
    note = {"note": rows.LESS} if way.peer else {}
    return {"way": way.name, "loss": way.loss, "pass": kind} | note | found


def _about(plan: Plan, load: Workload, begun: float) -> rows.Row:
    where = provenance()
    where["versions"] |= versions()
    return {
        "workload": load.describe(),
        "rounds": plan.rounds,
        "threads": plan.threads,
        "clock": clock(load.device),
        "load": [begun, os.getloadavg()[0]],
        **where,
    }
