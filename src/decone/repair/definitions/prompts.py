"""What a model reads to rebuild a row: mask slots where the token stood, a colon, and what the token means.

An encoder reads `start, slots, ":", definition, end`, and the row is rebuilt from its states at the slots. An encoder
with a decoder reads the same, and its decoder the pieces before the one asked for, shifted by its start mark.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from tokenizers import Tokenizer
from torch import Tensor

from decone.repair.coverage import mentions
from decone.repair.definitions.recipe import Recipe
from decone.repair.entries import Entry

MASKS = ("[MASK]", "<mask>", "<extra_id_0>")  # BERT; RoBERTa and BART; T5
MARKS = (("[CLS]", "[SEP]"), ("<s>", "</s>"))  # around a text, where a tokenizer of older files puts none


class Prompt(NamedTuple):
    """One reading of a token.

    Attributes:
        id: the token's row.
        ids: what the encoder reads.
        masks: places in `ids` that stand for the token's pieces.
        gloss: first place of the definition in `ids`, and one past its last.
        pieces: ids of the word the token stands in; the token alone for a whole word.
        slots: which of the pieces are the token.
    """

    id: int
    ids: tuple[int, ...]
    masks: tuple[int, ...]
    gloss: tuple[int, int]
    pieces: tuple[int, ...]
    slots: tuple[int, ...]


class Writer:
    """Writes prompts in the tokens of a model.

    Args:
        tokenizer: of the model; a copy that neither cuts nor pads is used.
        recipe: how many senses, how long, and what of a definition that names its token.
        limit: positions the model has.
        mask: the token that stands for what is asked; without it the usual one of the tokenizer.

    Attributes:
        tally: prompts cut or left out, and definitions that name their token, counted.

    Raises:
        ValueError: the tokenizer has no mask.
    """

    def __init__(self, tokenizer: Tokenizer, recipe: Recipe, limit: int, mask: str | None = None) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.recipe, self.limit = recipe, min(limit, recipe.prompt_tokens)
        names = MASKS if mask is None else (mask,)
        found = [index for name in names if (index := self.tokenizer.token_to_id(name)) is not None]
        if not found:
            raise ValueError(
                f"the tokenizer has no {mask or 'mask'} token for the place of what is defined; name one: --mask TOKEN"
            )
        self.mask: int = found[0]
        self.tokenizer.encode_special_tokens = True  # a definition that holds such a token's name is text
        self.start, self.end = self._marks()
        self.colon, self.stop = self._ids(":"), self._ids(";")
        self.tally: Counter[str] = Counter()

    def write(self, entries: Iterable[Entry]) -> list[Prompt]:
        """The prompts of some tokens, in their order; a token whose slots alone do not fit has none."""
        found: list[Prompt] = []
        for entry in entries:
            senses = entry.senses[: 1 if self.recipe.senses == "first" else self.recipe.most]
            # A definition of a longer word gives that away, not the piece.
            text = entry.surface.text if entry.host is None else entry.host.word
            glosses = [gloss for sense in senses if (gloss := self._gloss(sense.gloss, text))]
            if self.recipe.senses == "joined" and glosses:
                joined = glosses[0]
                for gloss in glosses[1:]:
                    joined = [*joined, *self.stop, *gloss]
                glosses = [joined]
            found += [prompt for gloss in glosses if (prompt := self._prompt(entry, gloss))]
        return found

    def _prompt(self, entry: Entry, gloss: list[int]) -> Prompt | None:
        pieces = entry.host.ids if entry.host is not None else (entry.id,)
        masks = range(len(self.start), len(self.start) + len(pieces))
        begin = len(self.start) + len(pieces) + len(self.colon)
        room = self.limit - begin - len(self.end)
        if room < 1:
            self.tally["word too long for a prompt"] += 1
            return None
        if len(gloss) > room:
            self.tally["definition cut"] += 1
        kept = gloss[:room]
        ids = (*self.start, *[self.mask] * len(pieces), *self.colon, *kept, *self.end)
        slots = tuple(place for place, piece in enumerate(pieces) if piece == entry.id)
        return Prompt(entry.id, ids, tuple(masks), (begin, begin + len(kept)), tuple(pieces), slots)

    def _gloss(self, gloss: str, text: str) -> list[int]:
        """Ids of a definition, with what is to be done where it names its token."""
        # Behind the colon, as a tokenizer that marks spaces would write it.
        before = ": "
        encoded = self.tokenizer.encode(before + gloss, add_special_tokens=False)
        # Unigram models find even the marks they are asked to overlook.
        marks = {self.mask, *self.start, *self.end}
        pairs = zip(encoded.ids[len(self.colon) :], encoded.offsets[len(self.colon) :], strict=True)
        read = [(id, span) for id, span in pairs if id not in marks]
        ids, spans = [id for id, _ in read], [span for _, span in read]
        named = [(a + len(before), b + len(before)) for a, b in mentions(gloss, text)]
        if named:
            self.tally["definition names its token"] += 1
        if named and self.recipe.mention != "keep":
            ids = self._hidden(ids, spans, named)
        if len(ids) > self.recipe.gloss_tokens:
            self.tally["definition cut"] += 1
        return ids[: self.recipe.gloss_tokens]

    def _hidden(self, ids: list[int], spans: Sequence[tuple[int, int]], named: list[tuple[int, int]]) -> list[int]:
        """A definition whose mentions of the token are one mask each, or gone."""
        left, last = list[int](), None
        for index, (begin, end) in zip(ids, spans, strict=True):
            over = next((span for span in named if begin < span[1] and span[0] < end), None)
            if over is None:
                left.append(index)
            elif over != last and self.recipe.mention == "mask":
                left.append(self.mask)
            last = over
        return left

    def _marks(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and behind a text."""
        if self.tokenizer.post_processor is None:
            for begin, end in MARKS:
                first, last = self.tokenizer.token_to_id(begin), self.tokenizer.token_to_id(end)
                if first is not None and last is not None:
                    return [first], [last]
        plain, marked = self._ids("a"), self.tokenizer.encode("a").ids
        place = next((k for k in range(len(marked)) if marked[k : k + len(plain)] == plain), 0)
        return marked[:place], marked[place + len(plain) :]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


@dataclass(frozen=True)
class Batch:
    """Prompts side by side, padded on the right.

    Attributes:
        ids: what the encoder reads, [B, T].
        attention: 1 where there is something, [B, T].
        slots: places whose states are asked for, [B, T] of the encoder, or [B, P] of the decoder.
        gloss: places of the definition, [B, T].
        decoder: what the decoder reads, [B, P]; None without one.
    """

    ids: Int64[Tensor, "B T"]
    attention: Int64[Tensor, "B T"]
    slots: Bool[Tensor, "B _"]
    gloss: Bool[Tensor, "B T"]
    decoder: Int64[Tensor, "B P"] | None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        decoder = None if self.decoder is None else self.decoder.to(device)
        return Batch(
            self.ids.to(device), self.attention.to(device), self.slots.to(device), self.gloss.to(device), decoder
        )


def collate(prompts: Sequence[Prompt], pad: int, decoder_start: int | None = None) -> Batch:
    """Puts prompts side by side.

    Args:
        prompts: at least one.
        pad: id that fills up.
        decoder_start: the id a decoder begins with; None without a decoder.

    Example:
        >>> prompt = Prompt(7, (101, 103, 1024, 9, 102), (1,), (3, 4), (7,), (0,))
        >>> collate([prompt], pad=0).slots.tolist()
        [[False, True, False, False, False]]
    """
    size, T = len(prompts), max(len(prompt.ids) for prompt in prompts)
    P = max(len(prompt.pieces) for prompt in prompts)
    ids, attention = torch.full((size, T), pad), torch.zeros(size, T, dtype=torch.long)
    gloss = torch.zeros(size, T, dtype=torch.bool)
    slots = torch.zeros(size, T if decoder_start is None else P, dtype=torch.bool)
    decoder = None if decoder_start is None else torch.full((size, P), pad)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
        attention[row, : len(prompt.ids)] = 1
        gloss[row, slice(*prompt.gloss)] = True
        places = prompt.slots if decoder is not None else [prompt.masks[slot] for slot in prompt.slots]
        slots[row, list(places)] = True
        if decoder is not None:
            decoder[row, : len(prompt.pieces)] = torch.tensor([decoder_start, *prompt.pieces[:-1]])
    return Batch(ids, attention, slots, gloss, decoder)


def by_length(prompts: Sequence[Prompt], size: int) -> list[list[int]]:
    """Places of prompts in batches of about equal length, short ones first."""
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place].ids))
    return [order[start : start + size] for start in range(0, len(order), size)]
