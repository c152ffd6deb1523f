"""What new rows are like: their lengths beside those of the old ones, and which old rows are nearest to them."""

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from decone.metrics.norms import row_norms
from decone.metrics.row_change import nearest_rows
from decone.models.tables import blocks
from decone.repair.measure import NEIGHBOURS, QUANTILES, SHOWN
from decone.repair.result import Neighbour
from decone.repair.vocabulary.growth import Growth
from decone.repair.vocabulary.layout import Resized
from decone.repair.vocabulary.result import NewToken, Norms


def norms(growth: Growth, parts: list[Resized]) -> list[Norms]:
    """Lengths of the trained rows and of the new ones, of every table."""
    found = []
    for part in parts:
        if part.tensor.role == "bias":
            continue
        table = growth.model.table(part.tensor)
        trained = growth.trained(table)
        chosen = [block[trained[start : start + len(block)]] for start, block in blocks(table)]
        old = torch.cat([row_norms(rows) for rows in chosen if len(rows)])
        new = row_norms(part.made[_places(growth)])
        found.append(
            Norms(role=part.tensor.role, tensors=list(part.tensor.names), old=_quantiles(old), new=_quantiles(new))
        )
    return found


def new_tokens(growth: Growth, part: Resized, shown: int) -> list[NewToken]:
    """The first new tokens one by one.

    Args:
        growth: the tokens.
        part: their rows in the input table.
        shown: how many.
    """
    count = min(shown, len(growth.tokens))
    if not count:
        return []
    table, rows = growth.model.table(part.tensor), part.made[_places(growth)][:count]
    near = nearest_rows(torch.full((count,), -1), rows, blocks(table), growth.trained(table), NEIGHBOURS)
    tokens = {index: token for token, index in growth.vocabulary.items()}
    return [
        NewToken(
            id=growth.ids[place],
            token=growth.tokens[place][:SHOWN],
            pieces=[piece[:SHOWN] for piece in growth.cut[place]],
            norm=length,
            neighbours=[Neighbour(id=row, token=tokens[row][:SHOWN]) for row in near[place].tolist() if row >= 0],
        )
        for place, length in enumerate(row_norms(rows).tolist())
    ]


def _places(growth: Growth) -> Tensor:
    """Where the rows of the new tokens stand among those that are made."""
    return torch.searchsorted(growth.layout.made, torch.tensor(growth.ids))


def _quantiles(lengths: Float64[Tensor, " n"]) -> dict[str, float]:
    shares = np.quantile(lengths.numpy(), QUANTILES).tolist()
    return {"mean": float(lengths.mean()), **dict(zip(map(str, QUANTILES), shares, strict=True))}
