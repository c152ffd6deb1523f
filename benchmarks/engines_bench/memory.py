"""Peak memory of one call over what the process holds before it: inputs and imports do not count, gradients do.

On a CPU it is measured in a process of its own, from Linux' high-water mark, which is set back before the call.
"""

import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .ways import Call, Way, build
from .workloads import Inputs, Workload

MEBI = 2**20

Once = Callable[[], None]


def available() -> int:
    """Bytes that a new program may take without pushing others out; Linux."""
    information = Path("/proc/meminfo").read_text(encoding="ascii")
    return 1024 * int(information.split("MemAvailable:")[1].split()[0])


def too_large(way: Way, load: Workload) -> str | None:
    """Why a way is not tried on a CPU: its tensors over tokens x vocabulary do not fit."""
    need = way.whole_logits(load)
    if load.device != "cpu" or need < 0.8 * available():
        return None
    return f"its whole logits need about {need / 2**30:.0f} GiB, {available() / 2**30:.0f} are free"


def save(inputs: Inputs, file: Path) -> None:
    """Writes inputs for processes that measure."""
    save_file(inputs._asdict(), file)


def step(call: Call, inputs: Inputs, learning: bool) -> Once:
    """One call as a training loop makes it (loss and gradients), or the loss alone without gradients."""
    leaves = inputs.fresh()

    def once() -> None:
        with torch.set_grad_enabled(learning):
            loss = call(leaves)
        if learning and loss.requires_grad:
            loss.backward()
        leaves.hidden.grad = leaves.weight.grad = None

    return once


def peak_on_gpu(once: Once) -> float:
    """Peak memory in MiB of a step."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    once()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MEBI


def peak_in_child(way: Way, file: Path, threads: int) -> float | str:
    """Peak memory in MiB of a step in a process of its own; a sentence where that process failed."""
    script = Path(__file__).resolve().parents[1] / "engines.py"
    what = json.dumps([way.name, way.loss, str(file)])
    command = [sys.executable, str(script), "--measure", what, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"the process that measures memory ended with {done.returncode}: {last}"
    return float(done.stdout.split()[-1])


def measure(what: str) -> None:
    """What the process of its own does: prints MiB."""
    name, loss, file = json.loads(what)
    way, inputs = Way(name, loss), Inputs(**load_file(file))
    call = build(way, "cpu")
    if way.compiled:  # what the compiler takes in its first call is not the step's
        step(call, inputs, True)()
    else:  # loads what is loaded lazily
        few = Inputs(inputs.hidden[:1, :4].clone(), inputs.weight[:64].clone(), inputs.target[:1, :4] % 64)
        step(build(way, "cpu"), few, True)()
    once = step(call, inputs, True)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    once()
    print((_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    """Kibibytes; getrusage would count what the parent held at the fork."""
    return int(Path("/proc/self/status").read_text(encoding="ascii").split(f"{key}:")[1].split()[0])
