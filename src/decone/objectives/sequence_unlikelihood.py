"""Sequence-level unlikelihood: the model continues a text itself, and what it repeats is made unlikely.

Welleck et al., "Neural Text Generation with Unlikelihood Training", ICLR 2020, arXiv 1908.04319, Section 5.2. With x
the greedy continuation of a prefix, L tokens long, and m_t = 1 where x_t belongs to an n-gram that occurred before in
the continuation:

    loss = -1/L sum_t m_t log(1 - p(x_t | prefix, x_<t))

It needs the model and not only its last hidden states, so it is no method of the registry: call it in a loop of your
own, in place of the token-level loss in a share of the steps (half of them in the paper).
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decone.engines.contract import upcast
from decone.objectives.unlikelihood import Unlikelihood

_CLAMP = 1e-20  # least 1 - p under the logarithm, as in the authors' code


class Continuation(NamedTuple):
    """Result of `SequenceUnlikelihood`: the loss (mean over all tokens), the tokens, and a mask of those penalised."""

    loss: Float[Tensor, ""]
    tokens: Int[Tensor, "B L"]
    repeats: Bool[Tensor, "B L"]


def repeated(tokens: Int[Tensor, "B L"], n: int = 4, *, last_window: bool = True) -> Bool[Tensor, "B L"]:
    """Marks the tokens of every n-gram that occurred earlier in the same sequence.

    Args:
        tokens: token ids, [B, L].
        n: length of the n-grams, 1 or more.
        last_window: also look at the n-gram that ends the sequence; the authors' code leaves it out.

    Returns:
        Marks, [B, L]; the first occurrence of an n-gram is not marked.

    Example:
        >>> repeated(torch.tensor([[1, 2, 3, 1, 2]]), n=2).int().tolist()
        [[0, 0, 0, 1, 1]]
    """
    marks = torch.zeros_like(tokens, dtype=torch.bool)
    windows = tokens.size(1) - n + (1 if last_window else 0)
    if windows < 1:
        return marks
    grams = tokens.unfold(1, n, 1)[:, :windows]
    again = (grams[:, :, None] == grams[:, None]).all(-1).tril(-1).any(-1)  # equal to a window that begins before
    for offset in range(n):
        marks[:, offset : offset + windows] |= again
    return marks


class SequenceUnlikelihood:
    """Greedy continuation of prefixes, and the unlikelihood of its repeated n-grams.

    The continuation is found without gradient, then scored in one pass with gradient, which is the same as keeping
    the gradient of each step for a causal model whose passes agree. So put the model in evaluation mode (no dropout),
    as the authors do.

    Args:
        length: tokens of the continuation, 1 or more.
        n: length of the n-grams, 1 or more.
        last_window: False leaves the last n-gram out, for parity with the authors' code.

    Raises:
        ValueError: a setting is outside its range, or the model's logits have another shape than [B, T, V].

    Example:
        >>> table = torch.eye(3)[[1, 2, 0]].requires_grad_()  # 0 -> 1 -> 2 -> 0: it repeats after three tokens
        >>> result = SequenceUnlikelihood(length=6, n=2)(lambda ids: table[ids], torch.tensor([[0]]))
        >>> result.tokens.tolist(), result.repeats.int().tolist()
        ([[1, 2, 0, 1, 2, 0]], [[0, 0, 0, 1, 1, 1]])
        >>> result.loss.backward()
    """

    citation: ClassVar[str] = Unlikelihood.citation

    def __init__(self, length: int = 100, n: int = 4, *, last_window: bool = True) -> None:
        if length < 1:
            raise ValueError(f"length must be 1 or more tokens, got {length}; the paper's is 100")
        if n < 1:
            raise ValueError(f"n must be 1 or more, got {n}; the paper's is 4")
        self.length, self.n, self.last_window = length, n, last_window

    def __call__(self, logits: Callable[[Tensor], Tensor], prefix: Int[Tensor, "B T"]) -> Continuation:
        """Continues the prefixes and scores the continuation.

        Args:
            logits: maps token ids [B, T] to logits [B, T, V]; causal. It must take T + length - 1 tokens.
            prefix: token ids, [B, T], T >= 1.
        """
        if prefix.dim() != 2 or prefix.size(1) < 1:
            raise ValueError(f"prefix {tuple(prefix.shape)} must be [B, T] with one token or more per sequence")
        ids = prefix
        with torch.no_grad():
            for _ in range(self.length):
                ids = torch.cat((ids, _require_logits(logits(ids), ids)[:, -1:].argmax(-1).to(ids.dtype)), 1)
        tokens = ids[:, prefix.size(1) :]
        scores = _require_logits(logits(ids[:, :-1]), ids[:, :-1])[:, prefix.size(1) - 1 :]
        logprob = upcast(scores).log_softmax(-1).gather(-1, tokens[..., None].long()).squeeze(-1)
        repeats = repeated(tokens, self.n, last_window=self.last_window)
        cost = -torch.log((-torch.expm1(logprob)).clamp(min=_CLAMP))
        return Continuation(torch.where(repeats, cost, 0.0).sum() / tokens.numel(), tokens, repeats)


def _require_logits(logits: Tensor, ids: Tensor) -> Tensor:
    if logits.dim() != 3 or logits.shape[:2] != ids.shape:
        raise ValueError(
            f"the model gave {tuple(logits.shape)} for ids {tuple(ids.shape)}; pass a callable that returns logits "
            "[B, T, V], for example lambda ids: model(ids).logits"
        )
    return logits
