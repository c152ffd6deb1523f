"""Sentences as vectors, the mean of an encoder's last hidden states: what a table is worth before any fine-tuning."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from decone.data.glue import Example
from decone.metrics.benchmark import correlations
from decone.training.finetuning.loop import ordered

SIZE = 64  # sentences at once


@torch.inference_mode()
def vectors(encoder: nn.Module, tokenizer: Any, sentences: Sequence[str], length: int) -> Float[Tensor, "N H"]:
    """Encodes sentences, in float32.

    Args:
        encoder: gives `last_hidden_state`, [B, T, H].
        tokenizer: of transformers.
        sentences: N of them.
        length: tokens of a sentence; what is longer is cut.
    """
    device = next(encoder.parameters()).device
    encoded = [dict(tokenizer(sentence, truncation=True, max_length=length)) for sentence in sentences]
    rows: list[Tensor | None] = [None] * len(encoded)
    for places in ordered([len(one["input_ids"]) for one in encoded], SIZE):
        inputs = tokenizer.pad([encoded[place] for place in places], return_tensors="pt").to(device)
        hidden = encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None].to(hidden.dtype)
        for place, row in zip(places, (hidden * mask).sum(1) / mask.sum(1), strict=True):
            rows[place] = row.float().cpu()
    return torch.stack([row for row in rows if row is not None])


def similarity_correlation(encoder: nn.Module, tokenizer: Any, pairs: Sequence[Example], length: int) -> float:
    """Spearman's correlation of cosines of sentence pairs with human scores, as of STS-B.

    Args:
        encoder: as in `vectors`; set to evaluation meanwhile.
        tokenizer: of transformers.
        pairs: two sentences each, the label a score.
        length: tokens of a sentence.
    """
    training = encoder.training
    encoder.eval()
    first = vectors(encoder, tokenizer, [pair.first for pair in pairs], length)
    second = vectors(encoder, tokenizer, [pair.second or "" for pair in pairs], length)
    encoder.train(training)
    scores = torch.tensor([float(pair.label) for pair in pairs], dtype=torch.float64)
    return correlations(F.cosine_similarity(first, second).double().numpy(), scores.numpy())[1]
