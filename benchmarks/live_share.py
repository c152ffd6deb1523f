"""How many rows of the table thresholding leaves to touch as a model trains, and what the loss costs then.

Trains a model at every margin. At chosen steps it takes the hidden states of one fixed batch of text, and times the
thresholded loss (forward and backward) on them against plain cross-entropy of the same engine; rounds are interleaved,
times are processor time. `live` is the share of the table's rows that at least one of 128 positions keeps, positions
taken in the order of their targets' logits; `touched` is the share that the engine's two products of the gradient
touched (small tables are not searched), `kept` the share of logits that stay.

    python benchmarks/live_share.py --model default --margins 0.5,1,2,5,8 [--steps 8000] [--out results/live-share]
    python benchmarks/live_share.py --model wikitext-2 --steps 2000
    python benchmarks/live_share.py --draw
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from decone.data.tokens import random_batch
from decone.objectives import MLE, Threshold
from decone.training.config import RunConfig
from decone.training.loop import Trainer
from decone.training.machine import provenance
from decone.training.run import Run

MODELS: dict[str, dict[str, Any]] = {
    "default": {"corpus": {"name": "shakespeare"}},
    "wikitext-2": {
        "corpus": {"name": "wikitext-2", "validation": 0.05},
        "tokenizer": {"kind": "bpe", "size": 8192},
        "language": {"low_resource": 0.0},
        "batch": {"size": 16},
        "evaluation": {"every": 1000},
    },
}
TOKENS = 2048  # of the fixed batch
WATCHED = 977  # names its stream of random windows


class Enough(Exception):  # noqa: N818  # no error: the run may end here
    """Everything has been looked at."""


def schedule(steps: int) -> set[int]:
    """Steps at which to look: often at first, then at even distances."""
    return {1, 10, 30, 100, 200, 300, 500, *range(steps // 16, steps + 1, steps // 16), steps}


def look(trainer: Trainer, windows: Tensor, margin: float, rounds: int = 5) -> dict[str, float]:
    """Live and kept share on the fixed batch, and the cost of the loss against plain cross-entropy."""
    with torch.no_grad():
        hidden = trainer.plain.model(windows[:, :-1])
    weight, target = trainer.plain.model.head.detach().clone().requires_grad_(), windows[:, 1:]
    hidden.requires_grad_()
    threshold, plain = Threshold(margin=margin).eval(), MLE().eval()
    loss = threshold(hidden, weight, target, engine="chunked", nll=True, detail=True)
    assert loss.kept is not None and loss.live is not None and loss.nll is not None

    def seconds(objective: Callable[..., Any]) -> float:
        hidden.grad = weight.grad = None
        began = time.process_time()
        objective(hidden, weight, target, engine="chunked", nll=False).mean().backward()
        return time.process_time() - began

    pairs = [(seconds(threshold), seconds(plain)) for _ in range(rounds + 1)][1:]
    return {
        "live": live_rows(hidden.detach().flatten(0, 1), weight.detach(), target.flatten(), margin),
        "touched": float(loss.live),
        "kept": float(loss.kept.double().mean() / weight.size(0)),
        "nll": float(loss.nll / loss.count),
        "milliseconds": 1e3 * statistics.median(ours for ours, _ in pairs),
        "cost_over_plain": statistics.median(ours / theirs for ours, theirs in pairs),
    }


def live_rows(hidden: Tensor, weight: Tensor, target: Tensor, margin: float, positions: int = 128) -> float:
    """Share of the table's rows that at least one of `positions` keeps, in the order of the targets' logits."""
    logits = hidden @ weight.T
    own = logits.gather(1, target[:, None])
    kept = (logits >= own - margin)[own.squeeze(1).argsort()]
    return statistics.fmean(float(part.any(0).float().mean()) for part in kept.split(positions))


def measure(model: str, margin: float, steps: int, seed: int, threads: int) -> dict[str, Any]:
    """One run, looked at as it trains."""
    settings = {"method": f"threshold:margin={margin:g}", "steps": steps, "seed": seed}
    settings["machine"] = {"threads": threads, "checkpoint_every": steps}
    config = RunConfig.build({**MODELS[model], **settings})
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, Run.create(Path(folder) / "run", config))
        context = config.model.context
        windows = random_batch(
            trainer.validation_ids, context, TOKENS // context, trainer.languages, (seed, WATCHED, 0)
        )
        wanted = schedule(steps)

        def watch(step: int, _: dict[str, float]) -> None:
            if step in wanted:
                found.append({"step": step, **look(trainer, windows, margin)})
                row = found[-1]
                print(
                    f"{model}, margin {margin:g}, step {step}: live {row['live']:.3f}, kept {row['kept']:.4f}, "
                    f"NLL {row['nll']:.2f}, {row['cost_over_plain']:.2f} of plain cross-entropy",
                    flush=True,
                )
            if step == steps:
                raise Enough  # what the run would measure at its end is not asked for

        with suppress(Enough):
            trainer.train(progress=watch)
        vocabulary = trainer.plain.model.vocabulary
    return {
        "model": model,
        "margin": margin,
        "seed": seed,
        "steps": steps,
        "threads": threads,
        "tokens": TOKENS,
        "vocabulary": vocabulary,
        "config": config.model_dump(mode="json"),
        "rows": found,
        **provenance(),
    }


COLOURS = ("#0969da", "#1a7f37", "#9a6700", "#bc4c00", "#8250df")
SIZE, GAP, LEFT, TOP = (330, 200), 70, 52, 40


def plot(documents: list[dict[str, Any]]) -> str:
    """One row of panels per model: live share and cost of the loss against training steps."""
    text = 'font-family="system-ui, sans-serif" font-size="12" fill="#57606a"'
    models = sorted({str(d["model"]) for d in documents})
    width, height = LEFT + 2 * SIZE[0] + GAP + 60, TOP + len(models) * (SIZE[1] + 72)
    parts = [f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for row, model in enumerate(models):
        runs = sorted((d for d in documents if d["model"] == model), key=lambda d: d["margin"])
        for column, (key, title) in enumerate(
            (("live", "share of live rows"), ("cost_over_plain", "cost against plain cross-entropy"))
        ):
            left, top = LEFT + column * (SIZE[0] + GAP), TOP + row * (SIZE[1] + 72)
            low, steps = top + SIZE[1], max(d["steps"] for d in runs)
            ceiling = max(1.0, *(r[key] for d in runs for r in d["rows"])) * 1.05
            heading = f"{model}, {runs[0]['vocabulary']:,} rows: {title}"
            parts.append(f'<text x="{left}" y="{top - 12}" {text} font-weight="600">{heading}</text>')
            for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
                y = low - SIZE[1] * tick / ceiling
                parts.append(f'<path d="M{left} {y:.1f}h{SIZE[0]}" stroke="#d0d7de"/>')
                parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" {text}>{tick:g}</text>')
            for tick in (0, steps // 2, steps):
                x = left + SIZE[0] * tick / steps
                parts.append(f'<text x="{x:.1f}" y="{low + 18}" text-anchor="middle" {text}>{tick:,}</text>')
            for run, colour in zip(runs, COLOURS, strict=False):
                points = [(left + SIZE[0] * r["step"] / steps, low - SIZE[1] * r[key] / ceiling) for r in run["rows"]]
                line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
                parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for index, (run, colour) in enumerate(zip(runs, COLOURS, strict=False)):
            x, y = LEFT + 110 * index, TOP + row * (SIZE[1] + 72) + SIZE[1] + 40
            parts.append(
                f'<text x="{x}" y="{y}" {text}><tspan fill="{colour}">●</tspan> margin {run["margin"]:g}</text>'
            )
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">\n{body}\n</svg>\n'


def main(
    model: Annotated[str, typer.Option(help="default or wikitext-2")] = "default",
    margins: str = "0.5,1,2,5,8",
    steps: Annotated[int, typer.Option(min=16)] = 8000,
    seed: int = 1337,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    out: Annotated[Path, typer.Option(help="folder of the results, a file per run")] = Path("results/live-share"),
    picture: Annotated[Path, typer.Option("--plot", help="SVG of all results")] = Path("docs/live-share.svg"),
    draw: Annotated[bool, typer.Option("--draw", help="Only draw what --out holds")] = False,
) -> None:
    """Trains, looks, writes one file per run, and draws all there are."""
    if model not in MODELS:
        raise typer.BadParameter(f"unknown model {model}; choose one of {', '.join(MODELS)}")
    out.mkdir(parents=True, exist_ok=True)
    for margin in [] if draw else [float(part) for part in margins.split(",")]:
        path = out / f"{model}-margin-{margin:g}-seed-{seed}.json"
        if path.exists():
            print(f"{path} is there already")
            continue
        document = measure(model, margin, steps, seed, threads)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    if documents:
        picture.write_text(plot(documents), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
