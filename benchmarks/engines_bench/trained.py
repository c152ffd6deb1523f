"""Hidden states of a model that has learned something: one trained here on real text, a run of decone, or a file."""

import lzma
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from decone.data import corpora
from decone.data.tokens import TextTokenizer
from decone.models.nano import Nano, NanoConfig
from decone.training.config import Method
from decone.training.run import Run

from .ways import UnavailableError
from .workloads import Inputs, Workload

CORPUS = "wikitext-2/wiki.train.tokens.xz", "wikitext-2/wiki.valid.tokens"
CHARACTERS = 3_000_000  # of the training text that are read; one short training sees no more
STEPS, BATCH, RATE = 400, 8, 3e-3


def corpus() -> tuple[str, str]:
    """Training and validation text of WikiText-2, from $DECONE_DATA or shared/data beside the checkout."""
    named = os.environ.get("DECONE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    files = [folder / name for name in CORPUS]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UnavailableError(
            f"no WikiText-2 here ({', '.join(missing)}); set DECONE_DATA to a folder with {' and '.join(CORPUS)}, "
            "or name a run with --states"
        )
    with lzma.open(files[0], "rt", encoding="utf-8") as text:
        return text.read(CHARACTERS), files[1].read_text(encoding="utf-8")


def train(load: Workload, tell: Callable[[str], None]) -> tuple[Workload, Inputs]:
    """Trains a small decoder for a minute or so and gives its states on text it has not seen."""
    learned, unseen = corpus()
    tokenizer = TextTokenizer.bpe(learned, load.V)
    ids = tokenizer.encode(learned)
    torch.manual_seed(load.seed)
    model = Nano(NanoConfig(vocabulary=tokenizer.size, context=load.T, layers=2, heads=4, width=load.H))
    rule, optimizer = Method.parse("mle").build_objective(), torch.optim.AdamW(model.parameters(), RATE)
    draw = torch.Generator().manual_seed(load.seed)
    for turn in range(STEPS):  # with the readable engine, so that the workload does not depend on what it measures
        for group in optimizer.param_groups:  # ten steps up, then down to nothing
            group["lr"] = RATE * min((turn + 1) / 10, 1 - turn / STEPS)
        start = torch.randint(len(ids) - load.T - 1, (BATCH, 1), generator=draw)
        batch = ids[start + torch.arange(load.T + 1)]
        loss = rule(model(batch[:, :-1]), model.head, batch[:, 1:], engine="reference", nll=False).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (turn + 1) % 100 == 0:
            tell(f"training, step {turn + 1} of {STEPS}: loss {loss.item():.2f}")
    return _states(load, model.eval(), tokenizer.encode(unseen))


def read(load: Workload, path: Path) -> tuple[Workload, Inputs]:
    """States of a finished run (its own validation text), or `hidden`, `weight` and `target` of a safetensors file."""
    if path.is_dir():
        run = Run.open(path)
        model, tokenizer, text = run.model(), run.tokenizer(), corpora.load(run.config.corpus.name).text
        assert tokenizer is not None  # a finished run has one
        ids = tokenizer.encode(text)
        unseen = ids[int(len(ids) * (1 - run.config.corpus.validation)) :]
        length = model.context
        found = replace(load, B=max(1, min(load.N, len(unseen) - 1) // length), T=length)
        return _states(found, model, unseen)
    if not path.is_file():
        raise ValueError(f"no run and no file at {path}; name the folder of a finished run, or a safetensors file")
    held = load_file(path)
    missing = {"hidden", "weight", "target"} - held.keys()
    if missing:
        raise ValueError(f"{path} holds no {', '.join(sorted(missing))}; write hidden [B,T,H], weight, target [B,T]")
    inputs = Inputs(held["hidden"], held["weight"], held["target"].long())
    return _shaped(load, inputs), inputs


@torch.no_grad()
def _states(load: Workload, model: Nano, ids: Tensor) -> tuple[Workload, Inputs]:
    window = ids[: load.N + 1]
    target = window[1:].view(load.B, load.T)
    hidden = torch.cat([model(row[None]) for row in window[:-1].view(load.B, load.T)])
    inputs = Inputs(hidden, model.head.detach().clone(), target)
    return _shaped(load, inputs), inputs


def _shaped(load: Workload, inputs: Inputs) -> Workload:
    (B, T, H), V = inputs.hidden.shape, inputs.weight.size(0)
    return replace(load, B=B, T=T, H=H, V=V, dtype=str(inputs.hidden.dtype).removeprefix("torch."))


def leading(inputs: Inputs, tokens: int = 256) -> Inputs:
    """The first sequences, about so many tokens of them, for a judge in float64."""
    rows = max(1, tokens // inputs.target.size(1))
    return Inputs(inputs.hidden[:rows], inputs.weight, inputs.target[:rows])
