"""Texts as a tokenizer cuts them, by the piece and by the line: what is used, and what must stay the same."""

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
from decone.files.foreign import plain
from decone.repair.vocabulary.result import Divergence
from decone.repair.vocabulary.tokenizer import encoded

PIECE = 1 << 18  # characters tokenized at once, to the next end of a line
BATCH = 256  # texts tokenized at once


def pieces(paths: Iterable[Path]) -> Iterator[str]:
    """Texts in pieces of many lines.

    Raises:
        ValueError: a file cannot be read or is no text.
    """
    for path in paths:
        text, start = read_text(path), 0
        while start < len(text):
            end = text.find("\n", start + PIECE) + 1 or len(text)
            yield text[start:end]
            start = end


def lines(paths: Iterable[Path]) -> Iterator[str]:
    """The same texts line by line: a tokenizer may treat the beginning of a text otherwise.

    Raises:
        ValueError: as `pieces`.
    """
    for piece in pieces(paths):
        yield from piece.split("\n")


def spelled(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """The text of single tokens, alone and behind a word: what to check where no text is given."""
    for index in ids:
        text = tokenizer.decode([index], skip_special_tokens=False)
        yield from (text, f"a {text}", f"a{text}")


def cut(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[tuple[str, list[int]]]:
    """Texts and their ids, without marks around them."""
    batch: list[str] = []

    def done() -> Iterator[tuple[str, list[int]]]:
        yield from zip(batch, (found.ids for found in encoded(tokenizer, batch)), strict=True)

    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) >= BATCH or size >= PIECE:
            yield from done()
            batch, size = [], 0
    if batch:
        yield from done()


def count(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    """How often each id is in some texts."""
    found: Counter[int] = Counter()
    for _, ids in cut(tokenizer, texts):
        found.update(ids)
    return found


def require_same(old: Tokenizer, new: Tokenizer, texts: Iterable[str], ids: Mapping[int, int]) -> int:
    """Compares how two tokenizers cut texts; those with a token that went are passed over.

    Args:
        old: the tokenizer before.
        new: the one after.
        texts: to cut.
        ids: the new id of every old one that stays.

    Returns:
        Tokens compared.

    Raises:
        ValueError: a text is cut otherwise.
    """
    whole = (pair for pair in cut(old, texts) if all(index in ids for index in pair[1]))
    compared = 0
    while batch := list(islice(whole, BATCH)):
        for (_, before), after in zip(batch, encoded(new, [text for text, _ in batch]), strict=True):
            if [ids[index] for index in before] != after.ids:
                raise ValueError(_difference(old, before, after.ids, ids))
            compared += len(before)
    return compared


def _difference(tokenizer: Tokenizer, before: list[int], after: list[int], ids: Mapping[int, int]) -> str:
    pairs = enumerate(zip(before, after, strict=False))
    place = next((place for place, (old, new) in pairs if ids[old] != new), min(len(before), len(after)))
    near = tokenizer.decode(before[max(0, place - 3) : place + 3], skip_special_tokens=False)
    return (
        f"the trimmed tokenizer cuts the text near {plain(near, 60)!r} otherwise than the old one; keep more tokens "
        "with --keep FILE, and please report this tokenizer"
    )


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
