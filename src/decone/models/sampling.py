"""Text from a decoder, one token at a time."""

import torch
from jaxtyping import Int
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
