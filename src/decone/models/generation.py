"""Text from a model: continuations of many prompts at once, by any rule, from scores of the next token.

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

Scores = Callable[[Tensor], Tensor]
"""Logits of the next token, float32 [B, V], for windows of ids [B, T]."""


@dataclass(frozen=True)
class Decoding:
    """A rule for choosing the next token; without any option the likeliest.

    Attributes:
        k: draw from the k likeliest.
        p: draw from the smallest set of likeliest tokens that reaches this probability.
        beams: follow that many likeliest beginnings at once; above 1 nothing is drawn.
        temperature: draw from the softmax of the logits over this number.
    """

    k: int | None = None
    p: float | None = None
    beams: int = 1
    temperature: float | None = None

    @property
    def stochastic(self) -> bool:
        """True for a rule that draws."""
        return any(option is not None for option in (self.k, self.p, self.temperature))


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
        if decoding.temperature is not None:
            logits = logits / decoding.temperature
        if decoding.k is not None:
            logits = keep_top_k(logits, decoding.k)
        if decoding.p is not None:
            logits = keep_top_p(logits, decoding.p)
        if decoding.stochastic:
            choice = torch.multinomial(logits.softmax(1).cpu(), 1, generator=random).to(ids.device)
        else:
            choice = logits.argmax(1, keepdim=True)
        ids = torch.cat((ids, choice), 1)
    return ids[:, prompts.size(1) :]


def nano_scores(model: Nano) -> Scores:
    """Next-token logits of our decoder; only the last position meets the vocabulary.

    Args:
        model: the decoder, in evaluation mode.
    """

    def scores(ids: Int[Tensor, "B T"]) -> Float[Tensor, "B V"]:
        return torch.nn.functional.linear(model(ids)[:, -1], model.head).float()

    return scores


@torch.no_grad()
def sample(
    model: Nano, prompt: Int[Tensor, " T"], length: int, temperature: float = 1.0, seed: int = 0
) -> Int[Tensor, " N"]:
    """Continues a prompt by drawing from the softmax.

    Args:
        model: the decoder.
        prompt: ids to continue, [T], at least one; only the last `context` of them are read.
        length: tokens to add.
        temperature: divisor of the logits, >= 0; 0 takes the likeliest token.
        seed: of the draw.

    Returns:
        The added ids, [length].

    Raises:
        ValueError: the prompt is empty or the temperature is negative.

    Example:
        >>> from decone.models.nano import NanoConfig
        >>> model = Nano(NanoConfig(vocabulary=5, context=4, layers=1, heads=1, width=8))
        >>> sample(model, torch.tensor([0]), length=3).shape
        torch.Size([3])
    """
    if not len(prompt):
        raise ValueError("the prompt is empty; give at least one token")
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    rule = Decoding(temperature=temperature or None)
    written = extend(
        lambda ids: model.logits(ids)[:, -1], prompt[None].to(model.device), length, model.context, rule, seed
    )
    return written[0].cpu()


def keep_top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """Makes all but the k likeliest tokens impossible (Fan et al. 2018); tokens as likely as the k-th stay.

    Args:
        logits: scores of the next token, [B, V].
        k: tokens to keep, >= 1; the whole vocabulary where it is no larger.

    Returns:
        The logits with -inf for what is dropped.

    Raises:
        ValueError: k is below 1.

    Example:
        >>> keep_top_k(torch.tensor([[0.0, 3.0, 1.0, 1.0]]), k=2).tolist()
        [[-inf, 3.0, 1.0, 1.0]]
    """
    if k < 1:
        raise ValueError(f"top-k keeps at least one token, got k = {k}")
    least = logits.topk(min(k, logits.size(1))).values[:, -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keeps the smallest set of likeliest tokens that together reach the probability p (Holtzman et al. 2020).

    Args:
        logits: scores of the next token, [B, V].
        p: probability to reach, in (0, 1]; the token that crosses it stays.

    Returns:
        The logits with -inf for what is dropped.

    Raises:
        ValueError: p is not in (0, 1].

    Example:
        >>> keep_top_p(torch.tensor([[0.125, 0.5, 0.375]]).log(), p=0.6).isfinite().tolist()
        [[False, True, True]]
    """
    if not 0 < p <= 1:
        raise ValueError(f"top-p needs a probability above 0 and at most 1, got {p}")
    ordered, order = logits.sort(descending=True, stable=True)
    probability = ordered.softmax(1)
    before = probability.cumsum(1) - probability
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= p)
    return logits.masked_fill(dropped, -math.inf)


def _beams(
    scores: Scores, prompts: Int64[Tensor, "B T"], length: int, window: int, beams: int, forbidden: list[int]
) -> Int64[Tensor, "B L"]:
    ids = prompts[:, None]  # [B, K, T], at first one beam
    total = torch.zeros(len(prompts), 1, device=prompts.device)
    for _ in range(length):
        log_probability = _without(scores(ids.flatten(0, 1)[:, -window:]).log_softmax(1), forbidden)
        vocabulary = log_probability.size(1)
        joint = (total[..., None] + log_probability.view(*total.shape, vocabulary)).flatten(1)
        total, best = joint.topk(min(beams, joint.size(1)))
        parent = ids.gather(1, (best // vocabulary)[..., None].expand(-1, -1, ids.size(2)))
        ids = torch.cat((parent, (best % vocabulary)[..., None]), 2)
    return ids[:, 0, prompts.size(1) :]  # topk puts the best first


def _without(logits: Float[Tensor, "B V"], forbidden: list[int]) -> Float[Tensor, "B V"]:
    if not forbidden:
        return logits
    return logits.index_fill(1, torch.tensor(forbidden, device=logits.device), -math.inf)
