"""A pretrained model of transformers to be fine-tuned, loaded safely: safetensors only, no remote code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

HEADS = ("classifier", "classification_head", "score")
FRESH = (*HEADS, "pooler")  # parts that a pretrained model need not have


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
        "AutoModelForSequenceClassification", name, FRESH, num_labels=outputs, ignore_mismatched_sizes=True
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
    transformers = library()
    with _told(name):
        settings: Any = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
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
    model, tokenizer, _ = _load("AutoModelForSeq2SeqLM", name)
    if model.generation_config.decoder_start_token_id is None:
        raise ValueError(f"{name} does not say what its decoder starts with; set decoder_start_token_id in config.json")
    return model, tokenizer


def _load(kind: str, name: str, fresh: Sequence[str] = (), **options: Any) -> tuple[Any, Any, set[str]]:
    """A model, its tokenizer, and the weights that its files lack; ValueError for any but those that may be new."""
    transformers = library()
    with _told(name):
        model, report = getattr(transformers, kind).from_pretrained(
            name,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    missing = set(map(str, report["missing_keys"]))
    mismatched = {str(entry[0]) for entry in report["mismatched_keys"]}
    absent = sorted(key for key in missing | mismatched if not any(part in fresh for part in key.split(".")))
    if absent:
        raise ValueError(f"{name} lacks weights, e.g. {absent[0]}; name a complete checkpoint")
    return model, tokenizer, missing


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Says in one sentence that a model cannot be loaded."""
    try:
        yield
    except Exception as error:  # the libraries behind it raise their own, tokenizers a bare Exception
        raise ValueError(f"cannot load {name} to be fine-tuned: {reason(error)}") from None


def library() -> Any:
    """The transformers package, without its progress bars; ValueError when it is not installed."""
    try:
        import transformers
    except ImportError:
        raise ValueError('fine-tuning needs transformers: pip install "decone[hf]"') from None
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what it reports is read
    return transformers


def reason(error: Exception) -> str:
    """The first line of what a library says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
