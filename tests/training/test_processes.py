"""Two processes that share the batch make the run that one process makes."""

import json
import os
import runpy
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from decone.training import checkpoint
from decone.training.config import RunConfig
from decone.training.loop import Trainer
from decone.training.run import Run

Build = Callable[..., RunConfig]
Start = Callable[..., list[ForkServerProcess]]


SCRIPT = """
import os, sys
os.environ.update({environment})
sys.stdout, sys.stderr = open("{rank}.out", "w"), open("{rank}.err", "w")
from decone.cli.main import main
main({arguments})
"""


@pytest.fixture
def start(nursery: ForkServerContext) -> Callable[..., list[ForkServerProcess]]:
    """Starts two processes as `torchrun` does; what they tell is in 0.out, 0.err, 1.out and 1.err."""

    def started(*arguments: str) -> list[ForkServerProcess]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
        processes = []
        for rank in "01":
            environment = {**address, "RANK": rank, "LOCAL_RANK": rank}
            script = SCRIPT.format(environment=environment, rank=rank, arguments=["train", *arguments])
            Path(f"{rank}.py").write_text(script)
            processes.append(nursery.Process(target=runpy.run_path, args=(f"{rank}.py",)))
            processes[-1].start()
        return processes

    return started


def ended(processes: list[ForkServerProcess]) -> list[int | None]:
    for process in processes:
        process.join(120)
        process.kill()
    return [process.exitcode for process in processes]


@pytest.mark.parametrize(
    ("method", "accumulate", "device"),
    [
        ("threshold:margin=0.05+row-adamw", 2, "auto"),
        ("agg:alpha=3,window=3", 2, "cpu"),
        pytest.param("cosreg", 2, "cpu", marks=pytest.mark.slow),
        pytest.param("mle", 1, "cpu", marks=pytest.mark.slow),
    ],
)
def test_two_processes_give_what_one_gives(
    method: str, accumulate: int, device: str, build: Build, start: Start
) -> None:
    if device == "auto" and torch.cuda.is_available():
        pytest.skip("the processes would share one CUDA device")
    # Five windows: the processes have unequal shares.
    settings = {"method": method, "steps": 5, "batch__size": 5, "batch__accumulate": accumulate, "model__tied": False}
    config = build(**settings, machine__device=device)
    Trainer(config, Run.create(Path("alone"), config)).train()
    Path("config.toml").write_text(config.dump())
    processes = start("config.toml", "--out", "together", "--json")
    assert ended(processes) == [0, 0], Path("0.err").read_text() + Path("1.err").read_text()
    assert json.loads(Path("0.out").read_text())["measured"]["last"]["step"] == 5
    assert Path("1.out").read_text() == "", "one process speaks for all"
    one, two = (load_file(f"{name}/model.safetensors") for name in ("alone", "together"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-6)
    lines = [json.loads(line) for line in Path("together/metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "validation"], "every line stands once"
    wanted = Run.open(Path("alone")).log_lines()
    for line, other in zip(lines, wanted, strict=True):
        for name in line.keys() - {"kind", "seconds"}:
            assert line[name] == pytest.approx(other[name], rel=1e-5, abs=1e-5), name


@pytest.mark.slow  # two processes and a signal: too sensitive to a busy machine for every run
def test_ctrl_c_stops_all_processes_after_the_same_step(build: Build, start: Start) -> None:
    config = build(steps=3000, evaluation__every=3000)
    Path("config.toml").write_text(config.dump())
    processes = start("config.toml", "--out", "run")
    while checkpoint.latest(Path("run")) is None and all(process.is_alive() for process in processes):
        time.sleep(0.001)
    os.kill(processes[1].pid or 0, signal.SIGINT)
    errors = [Path(f"{rank}.err") for rank in "01"]
    assert ended(processes) == [130, 130], "".join(error.read_text() for error in errors)
    folder = checkpoint.latest(Path("run"))
    assert folder is not None
    wanted = f"stopped after step {checkpoint.load(folder)[0]}; resume with: decone train --resume run\n"
    assert [error.read_text().endswith(wanted) for error in errors] == [True, True]
