"""What a model writes after 50 tokens of a text, by several rules, beside what the text itself goes on with.

The set-up of the papers: prefixes of 50 tokens, 100 new ones (Welleck et al. 2020; Lin et al. 2021, ScaleGrad).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from decone.diagnosis.result import Repetition
from decone.diagnosis.subject import EvaluatedText
from decone.metrics.generation import repeated_ngrams, uniq_words, words
from decone.models.generation import DECODINGS

PREFIX, LENGTH = 50, 100  # tokens
GRAMS = (1, 2, 3, 4)
WORDS = 4  # fewer say nothing, and Lin et al. drop such a continuation
SAMPLES = 5  # continuations that are shown
ROWS = 32  # sequences written at once: a beam counts as one

Progress = Callable[[str, int, int], None]


def prompts_of(
    ids: Int64[Tensor, " N"], prompts: int, prefix: int = PREFIX, length: int = LENGTH
) -> tuple[Int64[Tensor, "B P"], Int64[Tensor, "B L"]]:
    """Cuts a text into consecutive blocks of prefix and continuation and picks some, evenly spread.

    Args:
        ids: the text, [N].
        prompts: how many blocks; all there are where the text has fewer.
        prefix: tokens given.
        length: tokens to write. A text of one incomplete block gives one prefix and what is left after it.

    Returns:
        The prefixes and the text's own continuations; no rows where nothing follows the first prefix.

    Example:
        >>> given, own = prompts_of(torch.arange(24), prompts=2, prefix=2, length=4)
        >>> given.tolist(), own[:, 0].tolist()
        ([[0, 1], [12, 13]], [2, 14])
    """
    length = min(length, len(ids) - prefix)
    if length < 1 or prompts < 1:
        return ids.new_empty(0, prefix), ids.new_empty(0, 0)
    size = prefix + length
    count = len(ids) // size
    chosen = min(prompts, count)
    place = torch.arange(chosen) * count // chosen
    blocks = ids[: count * size].view(count, size)[place]
    return blocks[:, :prefix], blocks[:, prefix:]


def continuations(
    subject: EvaluatedText, prompts: int, seed: int = 0, progress: Progress | None = None
) -> dict[str, Repetition]:
    """Lets a model continue prefixes of its text by every rule of `models.generation.DECODINGS`.

    Args:
        subject: the model and the text.
        prompts: how many prefixes.
        seed: of the draws.
        progress: called with the rule, prefixes done and all prefixes.

    Returns:
        Repetition and variety by rule, and of the text itself as "human"; empty where the text is no longer than one
        prefix. Rep-n counts words; an n that no continuation is long enough for is left out.
    """
    given, own = prompts_of(subject.ids, prompts)
    if not len(given):
        return {}
    found = {}
    for name, rule in DECODINGS.items():
        if progress is not None:
            progress(name, 0, len(given))
        written: list[Tensor] = []
        for part in torch.split(given, max(1, ROWS // rule.beams)):
            # Each group has draws of its own, the same ones however the text is cut.
            written.append(subject.extend(part, own.size(1), rule, seed + len(written)))
            if progress is not None:
                progress(name, sum(map(len, written)), len(given))
        found[name] = measure_continuations(subject.decode, given, torch.cat(written).tolist())
    return found | {"human": measure_continuations(subject.decode, given, own.tolist())}


def measure_continuations(
    decode: Callable[[list[int]], str], given: Int64[Tensor, "B P"], written: Sequence[list[int]]
) -> Repetition:
    """Counts repetition and variety of continuations, and keeps the first few to be shown.

    Rep-n is at the word level. A continuation of fewer than four words is judged by its tokens: a model that writes
    one letter for ever must not pass for one that repeats nothing.

    Args:
        decode: text of ids.
        given: the prefixes.
        written: ids of each continuation, without the prefix.
    """
    texts = [decode(ids) for ids in written]
    split = [words(text) for text in texts]
    units = [found if len(found) >= WORDS else ids for found, ids in zip(split, written, strict=True)]
    rep = {str(n): repeated_ngrams(units, n) for n in GRAMS}
    return Repetition(
        rep={n: share for n, share in rep.items() if share is not None},
        uniq_words=uniq_words(texts),
        uniq_tokens=len({index for ids in written for index in ids}),
        continuations=len(written),
        samples=list(zip(map(decode, given[:SAMPLES].tolist()), texts, strict=False)),
    )
