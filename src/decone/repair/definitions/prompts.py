"""Prompts from which a model rebuilds a row: mask slots where the token stood, a colon, and its definition.

An encoder reads `start, slots, ":", definition, end`, and the row is rebuilt from its states at the slots. An encoder
with a decoder reads the same, and its decoder the pieces before the defined one, shifted by its start mark.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from tokenizers import Tokenizer
from torch import Tensor

from decone.repair.alignment.result import TokenEntry, mentions
from decone.repair.definitions.recipe import DefinitionRecipe

MASKS = ("[MASK]", "<mask>", "<extra_id_0>")  # BERT; RoBERTa and BART; T5
MARKS = (("[CLS]", "[SEP]"), ("<s>", "</s>"))  # around a text, where a tokenizer of older files puts none


class Prompt(NamedTuple):
    """One reading of a token.

    Attributes:
        id: the token's row.
        ids: what the encoder reads.
        masks: positions in `ids` that stand for the token's pieces.
        gloss: first position of the definition in `ids`, and one past its last.
        pieces: ids of the word that holds the token; the token alone for a complete word.
        slots: indices of the pieces that are the token.
    """

    id: int
    ids: tuple[int, ...]
    masks: tuple[int, ...]
    gloss: tuple[int, int]
    pieces: tuple[int, ...]
    slots: tuple[int, ...]


class PromptWriter:
    """Writes prompts in the tokens of a model.

    Args:
        tokenizer: of the model; a copy that neither cuts nor pads is used.
        recipe: number and length of senses, and the treatment of a definition that names its token.
        limit: positions the model has.
        mask: the token that stands for the defined one; without it the usual one of the tokenizer.

    Attributes:
        tally: prompts cut or left out, and definitions that name their token, counted.

    Raises:
        ValueError: the tokenizer has no mask.
    """

    def __init__(self, tokenizer: Tokenizer, recipe: DefinitionRecipe, limit: int, mask: str | None = None) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.recipe, self.limit = recipe, min(limit, recipe.prompt_tokens)
        names = MASKS if mask is None else (mask,)
        masks = [index for name in names if (index := self.tokenizer.token_to_id(name)) is not None]
        if not masks:
            raise ValueError(
                f"the tokenizer has no {mask or 'mask'} token for the place of what is defined; name one: --mask TOKEN"
            )
        self.mask: int = masks[0]
        self.tokenizer.encode_special_tokens = True  # a definition that holds such a token's name is text
        self.start, self.end = self._marks()
        self.colon, self.stop = self._ids(":"), self._ids(";")
        self.tally: Counter[str] = Counter()

    def write(self, entries: Iterable[TokenEntry]) -> list[Prompt]:
        """The prompts of some tokens, in their order; a token whose slots alone do not fit has none."""
        prompts: list[Prompt] = []
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
            prompts += [prompt for gloss in glosses if (prompt := self._prompt(entry, gloss))]
        return prompts

    def _prompt(self, entry: TokenEntry, gloss: list[int]) -> Prompt | None:
        pieces = entry.host.ids if entry.host is not None else (entry.id,)
        masks = range(len(self.start), len(self.start) + len(pieces))
        begin = len(self.start) + len(pieces) + len(self.colon)
        room = self.limit - begin - len(self.end)
        if room < 1:
            self.tally["word too long for a prompt"] += 1
            return None
        if len(gloss) > room:
            self.tally["definition cut"] += 1
        gloss = gloss[:room]
        ids = (*self.start, *[self.mask] * len(pieces), *self.colon, *gloss, *self.end)
        slots = tuple(index for index, piece in enumerate(pieces) if piece == entry.id)
        return Prompt(entry.id, ids, tuple(masks), (begin, begin + len(gloss)), tuple(pieces), slots)

    def _gloss(self, gloss: str, text: str) -> list[int]:
        """Ids of a definition, with its mentions of the token treated as the recipe says."""
        # Behind the colon, as a tokenizer that marks spaces would write it.
        before = ": "
        encoded = self.tokenizer.encode(before + gloss, add_special_tokens=False)
        # Unigram models find even the marks they are to overlook.
        marks = {self.mask, *self.start, *self.end}
        pairs = zip(encoded.ids[len(self.colon) :], encoded.offsets[len(self.colon) :], strict=True)
        ordinary = [(id, span) for id, span in pairs if id not in marks]
        ids, spans = [id for id, _ in ordinary], [span for _, span in ordinary]
        named = [(a + len(before), b + len(before)) for a, b in mentions(gloss, text)]
        if named:
            self.tally["definition names its token"] += 1
        if named and self.recipe.mention != "keep":
            ids = self._hide(ids, spans, named)
        if len(ids) > self.recipe.gloss_tokens:
            self.tally["definition cut"] += 1
        return ids[: self.recipe.gloss_tokens]

    def _hide(self, ids: list[int], spans: Sequence[tuple[int, int]], named: list[tuple[int, int]]) -> list[int]:
        """A definition whose mentions of the token are one mask each, or gone."""
        visible, last = list[int](), None
        for index, (begin, end) in zip(ids, spans, strict=True):
            over = next((span for span in named if begin < span[1] and span[0] < end), None)
            if over is None:
                visible.append(index)
            elif over != last and self.recipe.mention == "mask":
                visible.append(self.mask)
            last = over
        return visible

    def _marks(self) -> tuple[list[int], list[int]]:
        """Marks that the tokenizer puts before and behind a text."""
        if self.tokenizer.post_processor is None:
            for opening, closing in MARKS:
                first, last = self.tokenizer.token_to_id(opening), self.tokenizer.token_to_id(closing)
                if first is not None and last is not None:
                    return [first], [last]
        plain, marked = self._ids("a"), self.tokenizer.encode("a").ids
        begin = next((k for k in range(len(marked)) if marked[k : k + len(plain)] == plain), 0)
        return marked[:begin], marked[begin + len(plain) :]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


@dataclass(frozen=True)
class PromptBatch:
    """Prompts side by side, padded on the right.

    Attributes:
        ids: input of the encoder, [B, T].
        attention: 1 where there is a token, [B, T].
        slots: mask of the positions that are read out, [B, T] of the encoder, or [B, P] of the decoder.
        gloss: mask of the definition, [B, T].
        decoder: input of the decoder, [B, P]; None without one.
    """

    ids: Int64[Tensor, "B T"]
    attention: Int64[Tensor, "B T"]
    slots: Bool[Tensor, "B _"]
    gloss: Bool[Tensor, "B T"]
    decoder: Int64[Tensor, "B P"] | None

    def to(self, device: torch.device) -> "PromptBatch":
        """The same on a device."""
        decoder = None if self.decoder is None else self.decoder.to(device)
        return PromptBatch(
            self.ids.to(device), self.attention.to(device), self.slots.to(device), self.gloss.to(device), decoder
        )


def collate(prompts: Sequence[Prompt], pad: int, decoder_start: int | None = None) -> PromptBatch:
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
        positions = prompt.slots if decoder is not None else [prompt.masks[slot] for slot in prompt.slots]
        slots[row, list(positions)] = True
        if decoder is not None:
            decoder[row, : len(prompt.pieces)] = torch.tensor([decoder_start, *prompt.pieces[:-1]])
    return PromptBatch(ids, attention, slots, gloss, decoder)


def length_batches(prompts: Sequence[Prompt], size: int) -> list[list[int]]:
    """Indices of prompts in batches of about equal length, short ones first."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].ids))
    return [order[start : start + size] for start in range(0, len(order), size)]
