"""How the outputs of a model with new tokens differ from those of the old one, on a text as the old one reads it.

Both are given the same ids. Then the logits of old tokens must be the same, and all that can change is the probability
that goes to the new ones: the same logits make the divergence over old tokens 0.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from decone.data.corpora import read_text
from decone.repair.vocabulary.result import Divergence

TOKENS, WINDOW = 4096, 128  # of the text, and at once
MASKED = 7  # one of so many tokens is masked
ROOM = 8  # positions that marks and offsets may take
KINDS = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}


@torch.no_grad()
def divergence(
    before: Path,
    after: Path,
    kind: str,
    text: Path,
    old: Int64[Tensor, " V"],
    new: Int64[Tensor, " M"],
) -> Divergence:
    """Compares the outputs of two models on the beginning of a text, on the CPU.

    A causal model predicts the next token; of a masked model every seventh token is masked and predicted; a model with
    an encoder and a decoder reads a window and repeats it.

    Args:
        before: folder of the old model.
        after: folder of the new one.
        kind: of both.
        text: UTF-8 file.
        old: ids of old tokens.
        new: ids of the new ones.

    Raises:
        ValueError: transformers is missing or refuses a model, or there is nothing to predict in the text.
    """
    content = read_text(text)
    tokenizer, one = _loaded(before, kind)
    _, two = _loaded(after, kind)
    ids = torch.tensor(tokenizer(content[: 64 * TOKENS], add_special_tokens=False, verbose=False)["input_ids"][:TOKENS])
    places = getattr(one.config.get_text_config(), "max_position_embeddings", None)
    window = max(2, min(WINDOW, (places if isinstance(places, int) and places > 0 else WINDOW + ROOM) - ROOM))
    largest, kl, mass = 0.0, list[Tensor](), list[Tensor]()
    for inputs, chosen in _inputs(ids, window, kind, tokenizer, one.config):
        p, q = (model(**inputs).logits[0, chosen].float() for model in (one, two))
        largest = max(largest, float((p[:, old] - q[:, old]).abs().max()))
        lp, lq = (part[:, old].double().log_softmax(1) for part in (p, q))
        kl.append((lp.exp() * (lp - lq)).sum(1))
        mass.append(q.double().softmax(1)[:, new].sum(1))
    if not kl:
        raise ValueError(f"nothing can be predicted in {text}; give a longer text")
    divergences, masses = torch.cat(kl), torch.cat(mass)
    return Divergence(
        text=text.name,
        kind=kind,
        positions=len(divergences),
        largest_change=largest,
        kl_mean=float(divergences.mean()),
        kl_max=float(divergences.max()),
        mass_mean=float(masses.mean()),
        mass_max=float(masses.max()),
    )


def _loaded(folder: Path, kind: str) -> tuple[Any, Any]:
    try:
        import transformers
    except ImportError:
        raise ValueError('--text needs transformers: pip install "decone[hf]"') from None
    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        load: Any = getattr(transformers, KINDS[kind]).from_pretrained
        model, report = load(folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True)
    except Exception as error:  # the libraries behind it raise their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"cannot load {folder} to compare outputs ({reason}); leave out --text") from None
    absent = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
    if absent:  # transformers would fill them with random numbers, others in each model
        raise ValueError(f"{folder} lacks weights that its outputs need, e.g. {absent[0]}; leave out --text")
    return tokenizer, model.eval()


def _inputs(
    ids: Int64[Tensor, " N"], window: int, kind: str, tokenizer: Any, config: Any
) -> Iterator[tuple[dict[str, Tensor], Bool[Tensor, " T"]]]:
    """What the model is given, one window after the other, and the positions whose outputs count."""
    first = [index for index in (tokenizer.cls_token_id, tokenizer.bos_token_id) if index is not None][:1]
    last = [index for index in (tokenizer.sep_token_id, tokenizer.eos_token_id) if index is not None][:1]
    for part in torch.split(ids, window):
        if kind == "causal":
            row = torch.cat((part.new_tensor(first), part))[None]
            yield {"input_ids": row}, torch.ones(row.shape[1], dtype=torch.bool)
        elif kind == "masked":
            mask = tokenizer.mask_token_id
            if mask is None:
                raise ValueError("the tokenizer has no token that masks others; leave out --text")
            chosen = torch.arange(len(part)) % MASKED == min(MASKED // 2, len(part) - 1)
            row = torch.cat((part.new_tensor(first), part.where(~chosen, mask), part.new_tensor(last)))[None]
            pads = [torch.zeros(len(marks), dtype=torch.bool) for marks in (first, last)]
            yield {"input_ids": row}, torch.cat((pads[0], chosen, pads[1]))
        else:
            begin = config.decoder_start_token_id
            begin = config.pad_token_id if begin is None else begin
            shifted = torch.cat((part.new_tensor([0 if begin is None else begin]), part[:-1]))
            read = torch.cat((part, part.new_tensor(last)))[None]
            inputs: dict[str, Tensor] = {"input_ids": read, "decoder_input_ids": shifted[None]}
            yield inputs, torch.ones(len(part), dtype=torch.bool)
