"""One model on one text: a run of ours or a Hugging Face causal model."""

import math
from pathlib import Path
from typing import Any

from decone.data.corpora import read_text
from decone.data.languages import Languages
from decone.metrics.isotropy import isotropy
from decone.models.huggingface import HuggingFaceModel
from decone.models.load import is_run
from decone.training.evaluation import measure, scores
from decone.training.machine import resolve_device
from decone.training.run import Run
from decone.vocab.counts import count_tokens


def measure_text(model: str, text: Path, batch: int = 12, device: str = "auto") -> dict[str, Any]:
    """Measures a model on a text.

    Args:
        model: folder of a decone run, or folder or hub name of a Hugging Face causal model.
        text: UTF-8 file.
        batch: windows scored at once; a last incomplete group of windows is dropped.
        device: as on the command line.

    Returns:
        `languages`, each with the scores of `training.evaluation.scores`, `isotropy` and `bits_per_byte`; with two
        simulated languages also `alignment`. Frequency groups are counted on the text itself.

    Raises:
        ValueError: the model or the text cannot be read, or the text is shorter than one window.
    """
    content = read_text(text)
    where = resolve_device(device)
    if is_run(model):
        run = Run.open(Path(model))
        nano, tokenizer = run.model().to(where), run.tokenizer()
        assert tokenizer is not None  # run.model() has checked
        ids = tokenizer.encode(content)
        _long_enough(len(ids), nano.context, text)
        languages = Languages(tokenizer.size, run.config.language.low_resource)
        result = measure(nano, ids, languages, batch, count_tokens(ids, tokenizer.size))
    else:
        hugging = HuggingFaceModel(model, where)
        ids = hugging.encode(content)
        _long_enough(len(ids), hugging.context, text)
        counts = count_tokens(ids, hugging.vocabulary)
        found = scores(hugging, ids, 0, batch, counts)
        result = {"languages": {"all": {**found, "isotropy": isotropy(hugging.head.float().cpu())._asdict()}}}
    bytes_per_token = len(content.encode()) / len(ids)
    for found in result["languages"].values():
        # Only bits per byte compares models with different vocabularies.
        found["bits_per_byte"] = math.log2(found["perplexity"]) / bytes_per_token
    return {"model": model, "text": text.name, "tokens": len(ids), **result}


def _long_enough(tokens: int, context: int, text: Path) -> None:
    if tokens < context + 1:
        raise ValueError(f"{text} has {tokens} tokens, one window needs {context + 1}; give a longer text")
