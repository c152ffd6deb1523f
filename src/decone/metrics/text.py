"""Prediction of a text: likelihood, perplexity, rank, the best softmax temperature, groups of tokens, bits per byte.

A thresholded model never learns how far down the dropped logits should be, so its plain softmax is too flat. Dividing
the logits by a temperature below 1 mends that without training; "Stop Jostling" reports PPL_best (T_best), the minimum
over T = 0.01, 0.02, ..., 2.00, beside PPL.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from decone.metrics.table_geometry import row_blocks

TEMPERATURES: Float64[Tensor, " K"] = torch.arange(1, 201, dtype=torch.float64) / 100
COARSE = [0, *range(9, 200, 10)]  # indices in TEMPERATURES: 0.01, 0.10, 0.20, ..., 1.00, ..., 2.00


@dataclass(frozen=True)
class TemperatureSearch:
    """Perplexity of a text at temperature 1 and at the best one of the grid, with the points that were evaluated.

    Attributes:
        perplexity: exp of the mean NLL at T = 1, at least 1; inf when it overflows or a target is impossible.
        best_temperature: Where it is reached; of equal ones the nearest to 1.
    """

    perplexity: float
    best_perplexity: float
    best_temperature: float
    temperatures: list[float]
    perplexities: list[float]
    count: int


@dataclass(frozen=True)
class GroupScore:
    """One group of a text: positions, share of all, perplexity (inf when it overflows), accuracy; None if empty."""

    tokens: int
    share: float
    perplexity: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Ranking:
    """Shares of targets with rank 1 and, for each k, with rank k or better; mean of 1 / rank; number of positions."""

    accuracy: float
    recall: dict[int, float]
    mrr: float
    count: int


def nll(logits: Float[Tensor, "N V"], target: Int[Tensor, " N"]) -> Float64[Tensor, " N"]:
    """Computes the negative log-likelihood of each target under the softmax of its logits, in nats and float64.

    A logit of -inf is impossible and gives inf as a target; logits with NaN or +inf give NaN.

    Raises:
        ValueError: the shapes do not fit or a target lies outside the vocabulary.

    Example:
        >>> nll(torch.tensor([[0.0, 0.0], [0.0, float("-inf")]]), torch.tensor([1, 0])).tolist()
        [0.6931471805599453, 0.0]
    """
    unscaled = TEMPERATURES.new_ones(1)
    return torch.cat([_block_nll(block, targets, unscaled)[0] for block, targets in score_blocks(logits, target)])


def nll_by_temperature(
    logits: Float[Tensor, "N V"], target: Int[Tensor, " N"], temperatures: Float[Tensor, " K"]
) -> Float64[Tensor, " K"]:
    """Sums `nll` over all targets, once per positive temperature that divides the logits.

    Raises:
        ValueError: as of `nll`, or a temperature is not positive.

    Example:
        >>> logits, target = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 0])
        >>> nll_by_temperature(logits, target, torch.tensor([1.0, 0.5])).round(decimals=4).tolist()
        [1.6265, 2.2539]
    """
    if temperatures.ndim != 1 or not bool((temperatures > 0).all()):
        raise ValueError("temperatures must be a vector of positive numbers; use 0.01 where 0 (greedy) is meant")
    total = torch.zeros(len(temperatures), dtype=torch.float64, device=logits.device)
    for block, targets in score_blocks(logits, target):
        total += _block_nll(block, targets, temperatures).sum(1)
    return total


def best_temperature(batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> TemperatureSearch:
    """Searches the lowest perplexity over the 200 temperatures of `TEMPERATURES`, reading the text twice.

    `batches` is called twice, and yields the same batches of logits [N, V] and target [N] each time.

    Raises:
        ValueError: there is no position to score, or the second reading differs in length from the first.

    Example:
        >>> logits, target = torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])
        >>> best_temperature(lambda: [(logits, target)]).best_temperature
        2.0
    """
    # A position's NLL, log sum_k exp((z_k - z_y) / T), is convex in 1/T, so the sum falls and then rises along the
    # grid: its lowest point lies between the two coarse neighbours of the lowest coarse point.
    curve, count = _mean_curve(batches, COARSE)
    lowest = COARSE.index(_lowest(curve))
    low, high = COARSE[max(0, lowest - 1)], COARSE[min(len(COARSE) - 1, lowest + 1)]
    fine, again = _mean_curve(batches, [index for index in range(low, high + 1) if index not in curve])
    if again != count:
        raise ValueError(f"batches() gave {count} positions, then {again}: it must start afresh at every call")
    curve |= fine
    best, indices = _lowest(curve), sorted(curve)
    return TemperatureSearch(
        perplexity=_exp(curve[TEMPERATURES.tolist().index(1.0)]),
        best_perplexity=_exp(curve[best]),
        best_temperature=float(TEMPERATURES[best]),
        temperatures=TEMPERATURES[indices].tolist(),
        perplexities=[_exp(curve[index]) for index in indices],
        count=count,
    )


def group_scores(
    nll: Float64[Tensor, " N"], correct: Bool[Tensor, " N"], group: Int[Tensor, " N"], groups: int
) -> list[GroupScore]:
    """Averages losses and hits by group of tokens: by frequency, by script, or by anything else that sorts them.

    The groups, numbered from 0, recombine exactly: exp(sum of share * log perplexity) is the perplexity of the text.

    Raises:
        ValueError: the lengths differ, there is no position, or a group lies outside [0, groups).

    Example:
        >>> loss = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        >>> common, rare = group_scores(loss, loss < 1.5, torch.tensor([0, 0, 1]), groups=2)
        >>> round(common.perplexity, 3), common.accuracy, round(rare.perplexity, 3), rare.accuracy
        (1.649, 1.0, 7.389, 0.0)
    """
    if not nll.shape == correct.shape == group.shape or nll.numel() == 0:
        raise ValueError(
            "nll, correct and group must be vectors of one length above 0, not "
            f"{len(nll)}, {len(correct)}, {len(group)}"
        )
    if int(group.min()) < 0 or int(group.max()) >= groups:
        raise ValueError(f"groups run from {int(group.min())} to {int(group.max())} but there are {groups}, from 0")
    group = group.long()
    tokens = torch.bincount(group, minlength=groups).tolist()
    losses = torch.bincount(group, weights=nll, minlength=groups)
    hits = torch.bincount(group[correct], minlength=groups).tolist()
    return [
        GroupScore(
            tokens=count,
            share=count / len(group),
            perplexity=float((loss / count).exp()) if count else None,
            accuracy=right / count if count else None,
        )
        for count, loss, right in zip(tokens, losses, hits, strict=True)
    ]


def bits_per_byte(total_nll: float, size: int) -> float:
    """Computes how many bits a model spends on a byte of text in UTF-8, from a sum of NLL in nats; 8 is guessing.

    A perplexity counts per token and so depends on the tokenizer; the bytes of a text are the same for every model.

    Raises:
        ValueError: there are no bytes.

    Example:
        >>> bits_per_byte(100 * math.log(16), size=200)
        2.0
    """
    if size < 1:
        raise ValueError(f"the scored tokens stand for {size} bytes of text: score at least one character")
    return total_nll / math.log(2) / size


def target_rank(logits: Float[Tensor, "N V"], target: Int[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """Ranks each target among all V tokens: 1 + the number of tokens with a strictly greater logit.

    Ties go to the target, so a model that gives every token one score is always "right": look at a perplexity beside
    it. A NaN counts as greater, so a broken model is never flattered; a target that is NaN itself ranks last, V.

    Raises:
        ValueError: the shapes do not fit or a target lies outside the vocabulary.

    Example:
        >>> target_rank(torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0]]), torch.tensor([1, 1])).tolist()
        [3, 1]
    """
    ranks = []
    for block, targets in score_blocks(logits, target):
        greater = ~(block <= block.gather(1, targets[:, None]))
        ranks.append((1 + greater.sum(1)).clamp_max(logits.shape[1]))
    return torch.cat(ranks)


def ranking(ranks: Int[Tensor, " N"], k: Sequence[int] = (5,)) -> Ranking:
    """Summarises ranks from 1 as accuracy, recall at each k and mean reciprocal rank.

    Raises:
        ValueError: there are no ranks, a rank is below 1, or a k is below 1.

    Example:
        >>> ranking(torch.tensor([1, 2, 10, 1]), k=(1, 5))
        Ranking(accuracy=0.5, recall={1: 0.5, 5: 0.75}, mrr=0.65, count=4)
    """
    if ranks.ndim != 1 or ranks.numel() == 0 or int(ranks.min()) < 1:
        raise ValueError("ranks must be a non-empty vector of numbers from 1: pass the result of target_rank")
    if any(depth < 1 for depth in k):
        raise ValueError(f"k must hold depths of at least 1, not {tuple(k)}")
    return Ranking(
        accuracy=_share(ranks == 1),
        recall={depth: _share(ranks <= depth) for depth in k},
        mrr=float(ranks.double().reciprocal().mean()),
        count=ranks.numel(),
    )


def score_blocks(
    logits: Float[Tensor, "N V"], target: Int[Tensor, " N"]
) -> Iterator[tuple[Float64[Tensor, "n V"], Int[Tensor, " n"]]]:
    """Yields logits in float64 with their targets, a block of positions at a time.

    Raises:
        ValueError: the shapes do not fit, or a target lies outside the vocabulary (as an ignored -100 does).
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must be [N, V] and [N]: flatten both"
        )
    if target.numel() and (int(target.min()) < 0 or int(target.max()) >= logits.shape[1]):
        raise ValueError(
            f"targets run from {int(target.min())} to {int(target.max())} but the vocabulary is "
            f"0 to {logits.shape[1] - 1}: drop ignored positions first"
        )
    start = 0
    for block in row_blocks(logits):
        yield block, target[start : start + len(block)].long()
        start += len(block)


def _block_nll(
    logits: Float64[Tensor, "N V"], target: Int[Tensor, " N"], temperatures: Float[Tensor, " K"]
) -> Float64[Tensor, "K N"]:
    shifted = logits - logits.amax(1, keepdim=True)  # the largest becomes 0, so that dividing by 0.01 cannot overflow
    of_target = shifted.gather(1, target[:, None]).squeeze(1)
    scaled = torch.empty_like(shifted)
    rows = []
    for temperature in temperatures.tolist():
        torch.div(shifted, temperature, out=scaled)
        rows.append(scaled.exp_().sum(1).log_() - of_target / temperature)
    impossible = logits.gather(1, target[:, None]).squeeze(1) == -math.inf
    return torch.stack(rows).masked_fill(impossible, math.inf)


def _mean_curve(
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]], indices: list[int]
) -> tuple[dict[int, float], int]:
    total, count = torch.zeros(len(indices), dtype=torch.float64), 0
    for logits, target in batches():
        total += nll_by_temperature(logits, target, TEMPERATURES[indices]).cpu()
        count += len(target)
    if count == 0:
        raise ValueError("batches() gave no position to score: pass a text of at least two tokens")
    means = (total / count).nan_to_num(nan=math.inf, posinf=math.inf).tolist()
    return dict(zip(indices, means, strict=True)), count


def _lowest(curve: dict[int, float]) -> int:
    return min(curve, key=lambda index: (curve[index], abs(float(TEMPERATURES[index]) - 1.0)))


def _exp(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).exp())


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / hits.numel()
