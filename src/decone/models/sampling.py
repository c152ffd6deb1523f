"""Text from a decoder, one token at a time, and which tokens a draw may choose from."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decone.models.nano import Nano


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
    random = torch.Generator().manual_seed(seed)
    ids = prompt.to(model.device)
    for _ in range(length):
        logits = model.logits(ids[None, -model.context :])[0, -1].cpu()
        if temperature == 0:
            chosen = logits.argmax(keepdim=True)
        else:
            chosen = torch.multinomial((logits / temperature).softmax(0), 1, generator=random)
        ids = torch.cat((ids, chosen.to(model.device)))
    return ids[len(prompt) :].cpu()


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
    ordered, place = logits.sort(descending=True, stable=True)
    probability = ordered.softmax(1)
    before = probability.cumsum(1) - probability
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(1, place, before >= p)
    return logits.masked_fill(dropped, -math.inf)
