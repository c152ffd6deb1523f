"""A pretrained model of transformers with a fresh head, loaded safely: safetensors only, no remote code."""

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
    transformers = library()
    torch.manual_seed(seed)
    try:
        load: Any = transformers.AutoModelForSequenceClassification.from_pretrained
        model, report = load(
            name,
            num_labels=outputs,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, in words
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # the libraries behind it raise their own, tokenizers a bare Exception
        raise ValueError(f"cannot load {name} to be fine-tuned: {reason(error)}") from None
    missing = set(map(str, report["missing_keys"]))
    mismatched = {str(entry[0]) for entry in report["mismatched_keys"]}
    absent = sorted(key for key in missing | mismatched if not any(part in FRESH for part in key.split(".")))
    if absent:
        raise ValueError(f"{name} lacks weights, e.g. {absent[0]}; name a complete checkpoint")
    if {key for key, _ in model.named_parameters() if key.split(".")[0] in HEADS} - missing:
        raise ValueError(f"{name} has a head for another task already; name the pretrained model it was made from")
    return model, tokenizer


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
