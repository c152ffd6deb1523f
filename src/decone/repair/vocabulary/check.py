"""Checks of a changed vocabulary: texts are cut into the same tokens, and old tokens keep their logits.

After trimming, texts are tokenized by the chunk and by the line, before and after. After growing, both models read the
same ids. Then the logits of old tokens must be the same, and all that can change is the probability that goes to the
new ones: the same logits make the divergence over old tokens 0.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int64
from tokenizers import Tokenizer
from torch import Tensor

from decone.data.corpora import read_text
from decone.files.foreign import quoted
from decone.models.load import Loader
from decone.repair.vocabulary.result import Divergence
from decone.repair.vocabulary.tokenizer import encode

CHUNK = 1 << 18  # characters tokenized at once, to the next end of a line
BATCH = 256  # texts tokenized at once
TOKENS, WINDOW = 4096, 128  # of the text, and at once
MASKED = 7  # one of so many tokens is masked
ROOM = 8  # positions that marks and offsets may take
KINDS = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
_LOADER = Loader(
    needs="--text needs",
    refusal="cannot load {name} to compare outputs ({reason}); leave out --text",
    incomplete="{name} lacks weights that its outputs need, e.g. {weight}; leave out --text",
)


def read_chunks(paths: Iterable[Path]) -> Iterator[str]:
    """Reads texts in chunks of many lines.

    Raises:
        ValueError: a file cannot be read or is no text.
    """
    for path in paths:
        text, start = read_text(path), 0
        while start < len(text):
            end = text.find("\n", start + CHUNK) + 1 or len(text)
            yield text[start:end]
            start = end


def read_lines(paths: Iterable[Path]) -> Iterator[str]:
    """Reads the same texts line by line: a tokenizer may treat the beginning of a text otherwise.

    Raises:
        ValueError: as `read_chunks`.
    """
    for chunk in read_chunks(paths):
        yield from chunk.split("\n")


def spell_tokens(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Texts of single tokens, alone and behind a word: what to check where no text is given."""
    for index in ids:
        text = tokenizer.decode([index], skip_special_tokens=False)
        yield from (text, f"a {text}", f"a{text}")


def tokenize(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[tuple[str, list[int]]]:
    """Yields texts with their ids, without marks around them."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) >= BATCH or size >= CHUNK:
            yield from _encode_batch(tokenizer, batch)
            batch, size = [], 0
    yield from _encode_batch(tokenizer, batch)


def count_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    """Counts each id in texts."""
    counts: Counter[int] = Counter()
    for _, ids in tokenize(tokenizer, texts):
        counts.update(ids)
    return counts


def require_same_tokens(old: Tokenizer, new: Tokenizer, texts: Iterable[str], new_ids: Mapping[int, int]) -> int:
    """Compares the tokens of two tokenizers on texts; those with a token that went are passed over.

    Args:
        old: the tokenizer before.
        new: the tokenizer after.
        texts: texts to tokenize.
        new_ids: new id of every old one that stays.

    Returns:
        Number of tokens compared.

    Raises:
        ValueError: a text is cut otherwise.
    """
    retained = (pair for pair in tokenize(old, texts) if all(index in new_ids for index in pair[1]))
    compared = 0
    while batch := list(islice(retained, BATCH)):
        for (_, before), after in zip(batch, encode(new, [text for text, _ in batch]), strict=True):
            if [new_ids[index] for index in before] != after.ids:
                raise ValueError(_difference(old, before, after.ids, new_ids))
            compared += len(before)
    return compared


@torch.no_grad()
def compare_outputs(
    before: Path,
    after: Path,
    kind: str,
    text: Path,
    old_ids: Int64[Tensor, " V"],
    new_ids: Int64[Tensor, " M"],
) -> Divergence:
    """Compares the outputs of two models on the beginning of a text, on the CPU.

    A causal model predicts the next token; of a masked model every seventh token is masked and predicted; a model with
    an encoder and a decoder reads a window and repeats it.

    Args:
        before: folder of the old model.
        after: folder of the new one.
        kind: key of `KINDS`, of both.
        text: UTF-8 file.
        old_ids: ids of old tokens.
        new_ids: ids of the new ones.

    Raises:
        ValueError: transformers is missing or refuses a model, or there is nothing to predict in the text.
    """
    content = read_text(text)
    tokenizer, old_model = _load(before, kind)
    _, new_model = _load(after, kind)
    ids = torch.tensor(tokenizer(content[: 64 * TOKENS], add_special_tokens=False, verbose=False)["input_ids"][:TOKENS])
    positions = getattr(old_model.config.get_text_config(), "max_position_embeddings", None)
    limit = positions if isinstance(positions, int) and positions > 0 else WINDOW + ROOM
    window = max(2, min(WINDOW, limit - ROOM))
    largest, kl, mass = 0.0, list[Tensor](), list[Tensor]()
    for inputs, predicted in _windows(ids, window, kind, tokenizer, old_model.config):
        old, new = (model(**inputs).logits[0, predicted].float() for model in (old_model, new_model))
        largest = max(largest, float((old[:, old_ids] - new[:, old_ids]).abs().max()))
        log_p, log_q = (logits[:, old_ids].double().log_softmax(1) for logits in (old, new))
        kl.append((log_p.exp() * (log_p - log_q)).sum(1))
        mass.append(new.double().softmax(1)[:, new_ids].sum(1))
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


def _encode_batch(tokenizer: Tokenizer, batch: list[str]) -> Iterator[tuple[str, list[int]]]:
    yield from zip(batch, (encoding.ids for encoding in encode(tokenizer, batch)), strict=True)


def _difference(tokenizer: Tokenizer, before: list[int], after: list[int], new_ids: Mapping[int, int]) -> str:
    pairs = enumerate(zip(before, after, strict=False))
    first = next((index for index, (old, new) in pairs if new_ids[old] != new), min(len(before), len(after)))
    near = tokenizer.decode(before[max(0, first - 3) : first + 3], skip_special_tokens=False)
    return (
        f"the trimmed tokenizer cuts the text near {quoted(near)} otherwise than the old one; keep more tokens "
        "with --keep FILE, and please report this tokenizer"
    )


def _load(folder: Path, kind: str) -> tuple[Any, Any]:
    tokenizer = _LOADER.tokenizer(str(folder))
    model, _ = _LOADER.model(KINDS[kind], str(folder))
    return tokenizer, model.eval()


def _windows(
    ids: Int64[Tensor, " N"], window: int, kind: str, tokenizer: Any, config: Any
) -> Iterator[tuple[dict[str, Tensor], Bool[Tensor, " T"]]]:
    """Yields inputs of the model, one window after the other, and a mask of the positions whose outputs count."""
    first = [index for index in (tokenizer.cls_token_id, tokenizer.bos_token_id) if index is not None][:1]
    last = [index for index in (tokenizer.sep_token_id, tokenizer.eos_token_id) if index is not None][:1]
    for segment in torch.split(ids, window):
        if kind == "causal":
            row = torch.cat((segment.new_tensor(first), segment))[None]
            yield {"input_ids": row}, torch.ones(row.shape[1], dtype=torch.bool)
        elif kind == "masked":
            mask = tokenizer.mask_token_id
            if mask is None:
                raise ValueError("the tokenizer has no token that masks others; leave out --text")
            masked = torch.arange(len(segment)) % MASKED == min(MASKED // 2, len(segment) - 1)
            tokens = segment.where(~masked, mask)
            row = torch.cat((segment.new_tensor(first), tokens, segment.new_tensor(last)))[None]
            pads = [torch.zeros(len(marks), dtype=torch.bool) for marks in (first, last)]
            yield {"input_ids": row}, torch.cat((pads[0], masked, pads[1]))
        else:
            begin = config.decoder_start_token_id
            begin = config.pad_token_id if begin is None else begin
            shifted = torch.cat((segment.new_tensor([0 if begin is None else begin]), segment[:-1]))
            encoded = torch.cat((segment, segment.new_tensor(last)))[None]
            inputs: dict[str, Tensor] = {"input_ids": encoded, "decoder_input_ids": shifted[None]}
            yield inputs, torch.ones(len(segment), dtype=torch.bool)
