"""One optimiser step of the default model: decone's loop against a plain PyTorch loop with F.cross_entropy.

Both train the same decoder on the same text with the same batch size, AdamW (fused), clipping and schedule; the plain
loop has no objective, no engine, no Accelerate. Rounds are interleaved, so that a machine that slows down slows all of
them; what counts is the ratio within a round.

    python benchmarks/training_step.py [--rounds 9] [--steps 20] [--threads 1] [--out FILE]
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch.nn import functional as F

from decone.data import corpora
from decone.data.tokens import TextTokenizer
from decone.models.nano import Nano, NanoConfig
from decone.training.config import RunConfig
from decone.training.loop import Trainer, learning_rate
from decone.training.machine import provenance
from decone.training.run import Run

METHODS = ("mle", "threshold:margin=1", "threshold:margin=1+row-adamw")


def plain_step(config: RunConfig) -> Callable[[], None]:
    """The loop people write by hand."""
    text = corpora.load(config.corpus.name).text
    tokenizer = TextTokenizer.characters(text)
    ids = tokenizer.encode(text)
    size, context, share = config.batch.size, config.model.context, config.language.low_resource
    torch.manual_seed(config.seed)
    model = Nano(NanoConfig(vocabulary=2 * tokenizer.size))
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": config.optimizer.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.optimizer.lr, betas=(0.9, 0.99), fused=True)
    done = 0

    def step() -> None:
        nonlocal done
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, done)
        start = torch.randint(len(ids) - context, (size,))
        windows = torch.stack([ids[i : i + context + 1] for i in start.tolist()])
        windows = windows + (torch.rand(size, 1) < share) * tokenizer.size
        logits = model(windows[:, :-1]) @ model.head.T
        loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)
        optimizer.step()
        done += 1

    return step


def our_step(config: RunConfig, folder: Path) -> Callable[[], None]:
    """One step of decone's loop, as `decone train` takes it, with its log line every 50 steps."""
    trainer = Trainer(config, Run.create(folder, config))

    def step() -> None:
        trainer._one_step(logging=(trainer.step + 1) % 50 == 0)
        trainer.step += 1

    return step


def main(
    rounds: Annotated[int, typer.Option(min=3)] = 9,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each variant per round.")] = 20,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    out: Path = Path("results/benchmarks/training_step.json"),
) -> None:
    """Times all variants in one process, interleaved; prints and writes the table."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        base = {"steps": 10_000, "machine": {"threads": threads, "device": "cpu"}}
        variants = {"plain PyTorch": plain_step(RunConfig.build(base))}
        for index, method in enumerate(METHODS):
            variants[method] = our_step(RunConfig.build({**base, "method": method}), Path(folder) / str(index))
        times: dict[str, list[float]] = {name: [] for name in variants}
        for turn in range(rounds + 1):
            for name, step in variants.items():
                began = time.perf_counter()
                for _ in range(steps):
                    step()
                if turn:  # the first round warms up
                    times[name].append((time.perf_counter() - began) / steps)
    rows = []
    for name, found in times.items():
        ratios = [a / b for a, b in zip(found, times["plain PyTorch"], strict=True)]
        rows.append(
            {
                "variant": name,
                "milliseconds": 1e3 * statistics.median(found),
                "ratio": statistics.median(ratios),
                "ratio_range": [min(ratios), max(ratios)],
            }
        )
        low, high = rows[-1]["ratio_range"]
        print(f"{name:34} {rows[-1]['milliseconds']:7.1f} ms   ratio {rows[-1]['ratio']:.3f}  [{low:.3f}, {high:.3f}]")
    document = {"rounds": rounds, "steps": steps, "threads": threads, "rows": rows, **provenance()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
