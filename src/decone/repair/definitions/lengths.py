"""New rows out of rebuilt ones: their length, how much of the old row is left in them, and their dtype."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from decone.repair.definitions.recipe import Scale

TINY = 1e-30


def scaled(
    rebuilt: Float[Tensor, "M H"], old: Float[Tensor, "M H"], kept: Float[Tensor, "K H"], scale: Scale
) -> tuple[Float64[Tensor, "M H"], int]:
    """Gives rebuilt rows a length; least squares makes them short.

    Args:
        rebuilt: as predicted.
        old: the rows they replace.
        kept: rows that were learned from, whose lengths are a model.
        scale: "none" as they are; "row" the length of the old row; "table" the mean length of the kept rows; "spread"
            around the mean of the kept rows, by one factor that gives them the kept rows' mean square distance from it;
            rows without a spread of their own, such as a single one, keep their direction from that mean.

    Returns:
        Rows in float64, and how many had no direction to be made longer in; these are the old ones.

    Example:
        >>> scaled(torch.tensor([[0.0, 0.5]]), torch.tensor([[3.0, 4.0]]), torch.eye(2), "row")[0].tolist()
        [[0.0, 5.0]]
    """
    new, before, model = rebuilt.double(), old.double(), kept.double()
    if scale == "none":
        return new, 0
    if scale == "spread":
        mean, centre = model.mean(0), new.mean(0)
        spread = (new - centre).square().sum(1).mean()
        if float(spread) <= TINY:
            centre, spread = mean, (new - mean).square().sum(1).mean()
        if float(spread) <= TINY:
            return before, len(before)
        return mean + (new - centre) * ((model - mean).square().sum(1).mean() / spread).sqrt(), 0
    lengths = torch.linalg.vector_norm(new, dim=1, keepdim=True)
    wanted = torch.linalg.vector_norm(before, dim=1, keepdim=True)
    if scale == "table":
        wanted = torch.linalg.vector_norm(model, dim=1).mean().expand_as(wanted)
    flat = (lengths <= TINY).squeeze(1)
    found = torch.where(flat[:, None], before, new * wanted / lengths.clamp_min(TINY))
    return found, int(flat.sum())


def mixed(
    new: Float64[Tensor, "M H"], old: Float[Tensor, "M H"], blend: float, dtype: torch.dtype, name: str, ids: Tensor
) -> Float[Tensor, "M H"]:
    """Mixes new rows with the old ones and rounds them to the dtype of the table.

    Raises:
        ValueError: a row is not finite, or does not fit the dtype; up to ten ids are named.

    Example:
        >>> mixed(torch.ones(1, 2).double(), torch.zeros(1, 2), 0.25, torch.float16, "weight", torch.tensor([4]))
        tensor([[0.2500, 0.2500]], dtype=torch.float16)
    """
    # An old row that is not finite has nothing to give.
    mix = new if blend == 1 else blend * new + (1 - blend) * old.double()
    found = mix.to(dtype)
    require_finite(found, dtype, name, ids)
    return found


def require_finite(rows: Float[Tensor, "M H"], dtype: torch.dtype, name: str, ids: Int64[Tensor, " M"]) -> None:
    """Refuses rows that are not finite.

    Raises:
        ValueError: there are some; up to ten ids are named.
    """
    wrong = ids[~torch.isfinite(rows).all(1)].tolist()
    if wrong:
        some = ", ".join(map(str, wrong[:10]))
        raise ValueError(
            f"{len(wrong)} rebuilt rows of {name} are not finite or do not fit {dtype}: {some}; leave them out"
        )
