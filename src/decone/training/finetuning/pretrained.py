"""A pretrained model of transformers to be fine-tuned, loaded safely: safetensors only, no remote code."""

from dataclasses import replace
from typing import Any

import torch

from decone.models.load import Loader

HEADS = ("classifier", "classification_head", "score")
LOADER = Loader(
    needs="fine-tuning needs",
    refusal="cannot load {name} to be fine-tuned: {reason}",
    incomplete="{name} lacks weights, e.g. {weight}; name a complete checkpoint",
)
CLASSIFIERS = replace(LOADER, may_lack=(*HEADS, "pooler"))  # modules that a pretrained model need not have


def load_classifier(name: str, outputs: int, seed: int) -> tuple[Any, Any]:
    """Loads a model that gives some numbers per text, and its tokenizer; the head that makes them is new.

    Args:
        name: folder or hub name.
        outputs: numbers per text.
        seed: of the new head; equal seeds give equal heads whatever the table.

    Raises:
        ValueError: transformers is missing, there is no such model in safetensors, it lacks other weights than a head,
            or it brings a head of its own.
    """
    torch.manual_seed(seed)
    # Mismatched sizes are refused below, in words.
    model, tokenizer, missing = _load(
        CLASSIFIERS, "AutoModelForSequenceClassification", name, num_labels=outputs, ignore_mismatched_sizes=True
    )
    if {key for key, _ in model.named_parameters() if key.split(".")[0] in HEADS} - missing:
        raise ValueError(f"{name} has a head for another task already; name the pretrained model it was made from")
    return model, tokenizer


def load_encoder_decoder(name: str, tokens: int) -> tuple[Any, Any]:
    """Loads a model that reads a text and writes another, such as BART or T5, and its tokenizer; nothing in it is new.

    Args:
        name: folder or hub name.
        tokens: of the longest text it must take.

    Raises:
        ValueError: transformers is missing, there is no such model in safetensors, it is no encoder-decoder, lacks
            weights, does not say what its decoder starts with, or takes shorter texts only.
    """
    settings = LOADER.config(name)
    if not getattr(settings, "is_encoder_decoder", False):
        raise ValueError(
            f"{name} is no encoder-decoder (its type is {settings.model_type}), so it is not fine-tuned to summarise; "
            "name a model such as BART or T5"
        )
    limit = getattr(settings, "max_position_embeddings", None)
    if limit is not None and tokens > limit:
        raise ValueError(
            f"{name} takes {limit} tokens at most, not {tokens}; lower length, target and longest, e.g. "
            f"--set length={limit}"
        )
    model, tokenizer, _ = _load(LOADER, "AutoModelForSeq2SeqLM", name)
    if model.generation_config.decoder_start_token_id is None:
        raise ValueError(f"{name} does not say what its decoder starts with; set decoder_start_token_id in config.json")
    return model, tokenizer


def quiet_library() -> Any:
    """The transformers package without its reports, which are read here; ValueError when it is not installed."""
    transformers = LOADER.library()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def _load(loader: Loader, kind: str, name: str, **options: Any) -> tuple[Any, Any, set[str]]:
    """A model, its tokenizer, and the weights that its files lack; ValueError for any but those that may be new."""
    quiet_library()
    model, missing = loader.model(kind, name, dtype=torch.float32, **options)
    return model, loader.tokenizer(name), missing
