"""The linear map from features of a definition to a row: ridge regression in closed form, in float64.

With features F [N, F] and rows E [N, H], both around their means, and each block of features scaled to unit variance,

    B = (F^T F + ridge I)^-1 F^T E

Crossfit predicts each token from the others: the tokens are cut into folds by chance, and the Gram matrices of one
fold are taken out before solving for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)  # tried where none is given
STILL = 1e-12  # of the mean square; features that vary by less do not vary


@dataclass(frozen=True)
class RidgeMap:
    """A linear map with its offsets: `(features * scale - centre) matrix + mean`.

    Attributes:
        scale: factor of each feature, [F].
        centre: mean of the scaled features, [F].
        matrix: [F, H].
        mean: of the rows, [H].
    """

    scale: Float64[Tensor, " F"]
    centre: Float64[Tensor, " F"]
    matrix: Float64[Tensor, "F H"]
    mean: Float64[Tensor, " H"]

    def __call__(self, features: Float[Tensor, "N F"]) -> Float[Tensor, "N H"]:
        """Rows in float32."""
        return ((features.double() * self.scale - self.centre) @ self.matrix + self.mean).float()


@dataclass(frozen=True)
class MomentSums:
    """Sums over tokens that least squares needs."""

    count: int
    features: Float64[Tensor, " F"]
    rows: Float64[Tensor, " H"]
    gram: Float64[Tensor, "F F"]
    cross: Float64[Tensor, "F H"]

    @classmethod
    def of(cls, features: Float64[Tensor, "n F"], rows: Float64[Tensor, "n H"]) -> "MomentSums":
        return cls(len(features), features.sum(0), rows.sum(0), features.T @ features, features.T @ rows)

    def __sub__(self, fold: "MomentSums") -> "MomentSums":
        return MomentSums(
            self.count - fold.count,
            self.features - fold.features,
            self.rows - fold.rows,
            self.gram - fold.gram,
            self.cross - fold.cross,
        )

    def solve(self, ridge: float) -> tuple[Float64[Tensor, " F"], Float64[Tensor, "F H"], Float64[Tensor, " H"]]:
        centre, mean = self.features / self.count, self.rows / self.count
        gram = self.gram - self.count * torch.outer(centre, centre)
        gram.diagonal().add_(ridge)
        matrix = torch.linalg.solve(gram, self.cross - self.count * torch.outer(centre, mean))
        return centre, matrix, mean


def fit_ridge(
    features: Float[Tensor, "N F"], rows: Float[Tensor, "N H"], ridge: float, blocks: Sequence[int] | None = None
) -> RidgeMap:
    """Fits the map on some tokens.

    Args:
        features: of their definitions, finite.
        rows: of their tokens, finite.
        ridge: penalty, above 0.
        blocks: numbers of adjacent features of one kind; without it all are of one kind.

    Raises:
        ValueError: there are fewer than two tokens.

    Example:
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> bool((fit_ridge(x, 2 * x + 1, 1e-6)(x) - (2 * x + 1)).abs().max() < 1e-4)
        True
    """
    if len(features) < 2:
        raise ValueError(f"a map needs at least 2 tokens with definitions to learn from, not {len(features)}")
    scale = _scale(features.double(), blocks)
    return RidgeMap(scale, *MomentSums.of(features.double() * scale, rows.double()).solve(ridge))


def crossfit(
    features: Float[Tensor, "N F"],
    rows: Float[Tensor, "N H"],
    learn: Bool[Tensor, " N"],
    ridge: float | None = None,
    folds: int = 5,
    seed: int = 0,
    blocks: Sequence[int] | None = None,
) -> tuple[Float[Tensor, "N H"], float]:
    """Predicts every row without having seen it.

    Args:
        features: of all tokens.
        rows: of all tokens; those not to learn from are not looked at.
        learn: tokens to learn from, which are predicted from those of the other folds; all others from all of these.
        ridge: penalty; without it the one of `PENALTIES` with the least squared error of these very predictions.
        folds: their number, 2 or more.
        seed: of the cut into folds.
        blocks: as of `fit_ridge`.

    Returns:
        The predictions, and the penalty.

    Raises:
        ValueError: there are fewer tokens to learn from than folds, or than two.
    """
    size = int(learn.sum())
    if size < max(2, folds):
        raise ValueError(
            f"{size} tokens to learn from cannot be cut into {folds} folds; define more, replace fewer, or set "
            "train_on=others"
        )
    scale = _scale(features[learn].double(), blocks)
    scaled, exact = features.double() * scale, rows.double()
    train = learn.nonzero().squeeze(1)
    fold = torch.full((len(features),), -1)
    fold[train] = torch.randperm(size, generator=torch.Generator().manual_seed(seed)) % folds
    total = MomentSums.of(scaled[train], exact[train])
    without_fold = [total - MomentSums.of(scaled[fold == k], exact[fold == k]) for k in range(folds)] + [total]
    best: tuple[float, Tensor, float] | None = None
    for penalty in PENALTIES if ridge is None else (ridge,):
        predicted = torch.empty(len(features), rows.shape[1], dtype=torch.float64)
        for k, sums in zip([*range(folds), -1], without_fold, strict=True):
            centre, matrix, mean = sums.solve(penalty)
            predicted[fold == k] = (scaled[fold == k] - centre) @ matrix + mean
        error = float((predicted[train] - exact[train]).square().mean())
        if best is None or error < best[0]:
            best = (error, predicted, penalty)
    assert best is not None
    return best[1].float(), best[2]


def mean_by_token(
    features: Float[Tensor, "P F"], owner: Int64[Tensor, " P"], size: int
) -> tuple[Float[Tensor, "N F"], Int64[Tensor, " N"]]:
    """Mean features of each token over its prompts, and their number; zeros where it has none.

    Example:
        >>> mean_by_token(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 2]), 3)[0].squeeze(1).tolist()
        [2.0, 0.0, 5.0]
    """
    count = torch.bincount(owner, minlength=size)
    total = torch.zeros(size, features.shape[1], dtype=torch.float64).index_add_(0, owner, features.double())
    return (total / count.clamp_min(1)[:, None]).float(), count


def _scale(features: Float64[Tensor, "n F"], blocks: Sequence[int] | None) -> Float64[Tensor, " F"]:
    """One factor per block: then a penalty means the same for states and rows, whatever their size."""
    sizes = list(blocks) if blocks else [features.shape[1]]
    spread = torch.split((features - features.mean(0)).square().mean(0), sizes)
    square = torch.split(features.square().mean(0), sizes)
    # A block that never changes holds no information; made large, the rounding in it would drown the others.
    factors = [
        variance.mean().rsqrt() if float(variance.mean()) > STILL * float(total.mean()) else variance.new_zeros(())
        for variance, total in zip(spread, square, strict=True)
    ]
    return torch.cat([factor.expand(size) for factor, size in zip(factors, sizes, strict=True)])
