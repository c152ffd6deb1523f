"""Repetition and variety of predicted and written text, and ROUGE of summaries.

Rep/l looks at the likeliest next token after the text's own words (Welleck et al. 2020, "Neural Text Generation with
Unlikelihood Training", section 6; Lin et al. 2021, "Straight to the Gradient" (ScaleGrad), section 4.2), Rep-n at texts
a model wrote. Uniq counts the different tokens a model predicts, uniq-w the different words it writes: a degenerate
model leaves most of its vocabulary unused (Yu et al. 2022, AGG, section 5). Counts grow with the text, so compare on
the same text only; and people repeat as well, so all need the same number of the text's own words beside them.
"""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

ROUGE = ("rouge1", "rouge2", "rougeL")

# Thai, Lao, Tibetan, Burmese, Khmer, kana, Han: written without spaces, so each character stands for a word.
_SPACELESS = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W{_SPACELESS}]+|[^\w\s]|\n")


def repeat_distance(prediction: Int[Tensor, "B T"], target: Int[Tensor, "B T"]) -> Int64[Tensor, "B T"]:
    """Counts positions back to where each predicted token last was a target of its block, 0 where it never was.

    One sort serves every window length: the cost does not depend on l. For the human reference pass the targets as
    predictions.

    Raises:
        ValueError: the shapes differ or an id is negative (as an ignored -100 is).

    Example:
        >>> target = torch.tensor([[7, 8, 7, 9]])
        >>> repeat_distance(torch.tensor([[7, 7, 7, 8]]), target).tolist(), repeat_distance(target, target).tolist()
        ([[0, 1, 2, 2]], [[0, 0, 2, 0]])
    """
    if prediction.ndim != 2 or prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must be one [B, T]: a row per block"
        )
    if target.numel() == 0:
        return torch.zeros_like(target, dtype=torch.int64)
    if min(int(prediction.min()), int(target.min())) < 0:
        raise ValueError("ids must be 0 or more: drop ignored positions first")
    blocks, length = target.shape
    block = torch.arange(blocks, device=target.device)[:, None]
    time = torch.arange(length, device=target.device).expand(blocks, length)
    size = 1 + max(int(prediction.max()), int(target.max()))
    # Events by block, token and time; at one time the query comes before the target, which it must not see.
    queries = ((block * size + prediction.long()) * length + time) * 2
    targets = ((block * size + target.long()) * length + time) * 2 + 1
    events, order = torch.cat((queries.flatten(), targets.flatten())).sort()
    latest = torch.where(events % 2 == 1, events, -1).cummax(0).values
    same = (latest >= 0) & (latest // (2 * length) == events // (2 * length))
    back = torch.where(same, (events - latest) // 2 + 1, 0)
    distance = torch.empty_like(back)
    distance[order] = back
    return distance[: queries.numel()].view_as(queries)


def repetition(distance: Int[Tensor, "*shape"], length: int) -> float:
    """Computes Rep/l from `repeat_distance`: the share of positions whose token stood among the l targets before it.

    The papers take l = 16, 32, 128. Early positions of a block, with fewer than l targets behind them, count in full.

    Raises:
        ValueError: there is no position or `length` is below 1.

    Example:
        >>> repetition(torch.tensor([0, 1, 2, 0]), length=1)
        0.25
    """
    if distance.numel() == 0 or length < 1:
        raise ValueError(f"Rep/{length} of {distance.numel()} positions is undefined: give positions and a length >= 1")
    return int(((distance > 0) & (distance <= length)).sum()) / distance.numel()


def repeated_ngrams(sequences: Sequence[Sequence[Hashable]], n: int) -> float | None:
    """Computes Rep-n: 1 - distinct / all n-grams, as a mean over sequences of at least n elements; None without any.

    Pass `words` of each continuation for the word level (Lin et al. 2021), which does not depend on the tokenizer, or
    token ids for the token level (Welleck et al. 2020, seq-rep-n), which also sees a model that writes one letter for
    ever.

    Raises:
        ValueError: `n` is below 1.

    Example:
        >>> repeated_ngrams([[1, 2, 1, 2, 1], [1, 2, 3]], n=2)
        0.25
    """
    if n < 1:
        raise ValueError(f"an n-gram has at least one element, n is {n}")
    shares = []
    for sequence in sequences:
        grams = [tuple(sequence[start : start + n]) for start in range(len(sequence) - n + 1)]
        if grams:
            shares.append(1 - len(set(grams)) / len(grams))
    return sum(shares) / len(shares) if shares else None


def words(text: str) -> list[str]:
    r"""Splits a text into words, single other symbols and line ends; other white space only separates them.

    These are the words of Lin et al. 2021, but for scripts that set no spaces: there every character is one.

    Example:
        >>> words("It's done.\n")
        ['It', "'", 's', 'done', '.', '\n']
    """
    return _WORD.findall(text)


def used_tokens(ids: Int[Tensor, "*shape"], size: int) -> Bool[Tensor, " V"]:
    """Marks the tokens that occur among ids of a vocabulary of some size; Uniq is the number of marks.

    Raises:
        ValueError: an id lies outside the vocabulary.

    Example:
        >>> used_tokens(torch.tensor([3, 1, 3]), size=4).tolist()
        [False, True, False, True]
    """
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= size):
        raise ValueError(f"ids run from {int(ids.min())} to {int(ids.max())} but the vocabulary is 0 to {size - 1}")
    used = torch.zeros(size, dtype=torch.bool, device=ids.device)
    used[ids.flatten().long()] = True
    return used


def uniq(ids: Int[Tensor, "*shape"], label: Int64[Tensor, " V"], groups: int) -> list[int]:
    """Counts the different tokens of each group, given the group of each token; their sum is the Uniq of all.

    Raises:
        ValueError: an id lies outside the vocabulary.

    Example:
        >>> uniq(torch.tensor([3, 1, 3, 2]), torch.tensor([0, 0, 1, 1]), groups=2)
        [1, 2]
    """
    used = used_tokens(ids, len(label))
    return [int(count) for count in torch.bincount(label.to(used.device)[used], minlength=groups)]


def uniq_words(texts: Iterable[str]) -> int:
    """Counts uniq-w: different strings after splitting all texts at single spaces, as in the paper.

    Punctuation stays on its word, and two spaces in a row make an empty string, which counts.

    Example:
        >>> uniq_words(["the cat sat", "the dog sat."])
        5
    """
    return len({word for text in texts for word in text.split(" ")})


def rouge(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F1 of words (`rouge1`), pairs of words (`rouge2`) and the longest common subsequence (`rougeL`), in [0, 1].

    ROUGE (Lin 2004) as the package rouge-score counts it: words are lower case, letters and digits alone, and stemmed
    (Porter); an empty answer scores 0. The subsequence is that of the whole text, not of sentences one by one.

    Raises:
        ValueError: the lists are empty or not of one length, or the package is missing.

    Example:
        >>> rouge(["the cat sat"], ["the cat ran"])["rouge2"]
        0.5
    """
    if not answers or len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers for {len(references)} texts; give one for each, and at least one")
    score = scorer().score
    scores = [score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    return {kind: sum(float(values[kind].fmeasure) for values in scores) / len(scores) for kind in ROUGE}


def scorer() -> Any:
    """The package's scorer; ValueError when it is not installed."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ValueError('ROUGE needs the package rouge-score: pip install "decone[eval]"') from None
    return RougeScorer(list(ROUGE), use_stemmer=True)
