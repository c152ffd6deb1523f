"""Continuations of many prompts at once, by any rule, from a function that scores the next token.

The loop reads a window of the last tokens afresh at every step, so it serves any model, also past the end of its
context; a model that remembers what it has read is faster with its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from decone.models.nano import Nano
from decone.models.sampling import keep_top_k, keep_top_p

Scores = Callable[[Tensor], Tensor]
"""Logits of the next token, float32 [B, V], for windows of ids [B, T]."""


@dataclass(frozen=True)
class Decoding:
    """A rule for choosing the next token; without any option the likeliest.

    Attributes:
        k: draw from the k likeliest.
        p: draw from the smallest set of likeliest tokens that reaches this probability.
        beams: follow that many likeliest beginnings at once; above 1 nothing is drawn.
    """

    k: int | None = None
    p: float | None = None
    beams: int = 1

    @property
    def drawn(self) -> bool:
        """Whether chance plays a part."""
        return self.k is not None or self.p is not None


DECODINGS = {
    "greedy": Decoding(),
    "beam": Decoding(beams=4),  # no length norm is needed: all continuations are equally long
    "top-k": Decoding(k=50),
    "top-p": Decoding(p=0.9),
}


@torch.no_grad()
def extend(
    scores: Scores,
    prompts: Int64[Tensor, "B T"],
    length: int,
    window: int,
    decoding: Decoding,
    seed: int = 0,
    forbidden: Sequence[int] = (),
) -> Int64[Tensor, "B L"]:
    """Continues prompts of one length.

    Args:
        scores: gives the logits of the next token.
        prompts: ids to continue, [B, T], T at least 1.
        length: tokens to add.
        window: how many last tokens the model reads.
        decoding: the rule.
        seed: of the draws; the global state of torch stays as it is.
        forbidden: ids that are never chosen, such as the end of the text.

    Returns:
        The added ids, [B, length].

    Raises:
        ValueError: the prompts are empty.

    Example:
        >>> def count(ids):
        ...     return torch.nn.functional.one_hot((ids[:, -1] + 1) % 5, 5).float()
        >>> extend(count, torch.tensor([[0, 1], [3, 4]]), 3, window=8, decoding=Decoding()).tolist()
        [[2, 3, 4], [0, 1, 2]]
    """
    if not prompts.size(1):
        raise ValueError("the prompts are empty; give at least one token")
    if decoding.beams > 1:
        return _beams(scores, prompts, length, window, decoding.beams, list(forbidden))
    random = torch.Generator().manual_seed(seed)
    ids = prompts
    for _ in range(length):
        logits = _without(scores(ids[:, -window:]), list(forbidden))
        if decoding.k is not None:
            logits = keep_top_k(logits, decoding.k)
        if decoding.p is not None:
            logits = keep_top_p(logits, decoding.p)
        if decoding.drawn:
            chosen = torch.multinomial(logits.softmax(1).cpu(), 1, generator=random).to(ids.device)
        else:
            chosen = logits.argmax(1, keepdim=True)
        ids = torch.cat((ids, chosen), 1)
    return ids[:, prompts.size(1) :]


def nano_scores(model: Nano) -> Scores:
    """Next-token logits of our decoder; only the last position meets the vocabulary.

    Args:
        model: the decoder, in evaluation mode.
    """

    def scores(ids: Int[Tensor, "B T"]) -> Float[Tensor, "B V"]:
        return torch.nn.functional.linear(model(ids)[:, -1], model.head).float()

    return scores


def _beams(
    scores: Scores, prompts: Int64[Tensor, "B T"], length: int, window: int, beams: int, forbidden: list[int]
) -> Int64[Tensor, "B L"]:
    ids = prompts[:, None]  # [B, K, T], at first one beam
    total = torch.zeros(len(prompts), 1, device=prompts.device)
    for _ in range(length):
        each = _without(scores(ids.flatten(0, 1)[:, -window:]).log_softmax(1), forbidden)
        vocabulary = each.size(1)
        joint = (total[..., None] + each.view(*total.shape, vocabulary)).flatten(1)
        total, place = joint.topk(min(beams, joint.size(1)))
        parent = ids.gather(1, (place // vocabulary)[..., None].expand(-1, -1, ids.size(2)))
        ids = torch.cat((parent, (place % vocabulary)[..., None]), 2)
    return ids[:, 0, prompts.size(1) :]  # topk puts the best first


def _without(logits: Float[Tensor, "B V"], forbidden: list[int]) -> Float[Tensor, "B V"]:
    if not forbidden:
        return logits
    return logits.index_fill(1, torch.tensor(forbidden, device=logits.device), -math.inf)
