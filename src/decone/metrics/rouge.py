"""ROUGE (Lin 2004): what a written summary shares with the one that was wanted, counted by the package rouge-score."""

from collections.abc import Sequence
from typing import Any

KINDS = ("rouge1", "rouge2", "rougeL")


def rouge(answers: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """Mean F1 of words (`rouge1`), pairs of words (`rouge2`) and the longest common subsequence (`rougeL`).

    Words are lower case, letters and digits alone, and stemmed (Porter). The subsequence is that of the whole text, not
    of sentences one by one.

    Args:
        answers: texts that were written, [N]; an empty one scores 0.
        wanted: texts that they are held against, [N].

    Returns:
        One number in [0, 1] per kind.

    Raises:
        ValueError: the lists are empty or not of one length, or the package is missing.

    Example:
        >>> rouge(["the cat sat"], ["the cat ran"])["rouge2"]
        0.5
    """
    if not answers or len(answers) != len(wanted):
        raise ValueError(f"{len(answers)} answers for {len(wanted)} texts; give one for each, and at least one")
    judge = scorer()
    found = [judge.score(text, answer) for answer, text in zip(answers, wanted, strict=True)]
    return {kind: sum(float(one[kind].fmeasure) for one in found) / len(found) for kind in KINDS}


def scorer() -> Any:
    """What counts; ValueError when the package is not installed."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ValueError('ROUGE needs the package rouge-score: pip install "decone[eval]"') from None
    return RougeScorer(list(KINDS), use_stemmer=True)
