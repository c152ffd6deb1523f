"""Rows that equal another, to the last bit or nearly, and which of them is the original."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float32, Float64, Int64
from scipy.spatial import cKDTree
from torch import Tensor

from decone.metrics.undertrained import ownership
from decone.models.tables import Table

NEAR = 0.01  # distance of a near copy, relative to the length of the row
LEARNED = 2048  # rows from which is learned which row suits which token
JUDGED = 2000  # copies that are judged; of more, none passes as the original


def near_clusters(
    table: Table, ids: Int64[Tensor, " N"], places: Float64[Tensor, "N D"], norm: Float64[Tensor, " N"]
) -> list[list[int]]:
    """Groups of rows that differ by less than 1 % of their length, by a search in a few directions.

    Args:
        table: where the rows of a pair are read to be sure.
        ids: rows that are searched; no two equal to the last bit.
        places: the rows in some orthonormal directions.
        norm: their lengths.
    """
    if len(ids) < 2:
        return []
    bound = NEAR * float(norm.quantile(0.9))
    found, partner = cKDTree(places.numpy()).query(places.numpy(), k=2, distance_upper_bound=bound)
    groups: dict[int, set[int]] = {}
    for one in (found[:, 1] <= bound).nonzero()[0].tolist():
        other = int(partner[one, 1]) if int(partner[one, 0]) == one else int(partner[one, 0])
        first, second = (table.read(int(ids[row]), int(ids[row]) + 1)[0].double() for row in (one, other))
        if float((first - second).norm()) <= NEAR * float(min(norm[one], norm[other])):
            joined = groups.get(one, {one}) | groups.get(other, {other})
            groups.update(dict.fromkeys(joined, joined))
    return [sorted(ids[sorted(group)].tolist()) for group in {id(group): group for group in groups.values()}.values()]


def originals(
    table: Table,
    clusters: Sequence[Sequence[int]],
    tokens: Sequence[str],
    rank: Int64[Tensor, " V"],
    ordinary: Int64[Tensor, " N"],
) -> dict[int, float]:
    """Probability of each row of some clusters to be the original: the token whose row the others copy.

    A row tells its token's rank and spelling to some degree, since tokens that are alike lie together; the rows of no
    cluster teach how. Among three rows or more, or too many to judge, one may still be the original.

    Args:
        table: the rows.
        clusters: groups of equal rows.
        tokens: by row.
        rank: of frequency, by row.
        ordinary: rows to learn from.
    """
    members = [row for cluster in clusters for row in cluster]
    if not members:
        return {}
    copied = set(members)
    others = [row for row in ordinary.tolist() if row not in copied]
    if len(others) < 24 or len(members) > JUDGED:
        return {row: 1 / len(cluster) for cluster in clusters for row in cluster}
    teachers = [
        others[place] for place in torch.linspace(0, len(others) - 1, min(LEARNED, len(others))).long().tolist()
    ]
    odds = ownership(
        _units(table, teachers),
        _features(teachers, tokens, rank),
        _units(table, members),
        _features(members, tokens, rank),
    )
    by_row = dict(zip(members, odds.tolist(), strict=True))
    shares: dict[int, float] = {}
    for cluster in clusters:
        share = torch.tensor([by_row[row] for row in cluster], dtype=torch.float64).softmax(0)
        shares.update(zip(cluster, share.tolist(), strict=True))
    return shares


def _units(table: Table, rows: Sequence[int]) -> Float32[Tensor, "N H"]:
    found = torch.stack([table.read(row, row + 1)[0].float() for row in rows])
    return torch.nn.functional.normalize(found, dim=1)


def _features(rows: Sequence[int], tokens: Sequence[str], rank: Tensor) -> Float64[Tensor, "N F"]:
    spelt = torch.tensor([_spelling(tokens[row]) for row in rows], dtype=torch.float64)
    return torch.cat((rank[list(rows)].double().log()[:, None], spelt), 1)


def _spelling(token: str) -> list[float]:
    """What strings of tokens have in common across languages and kinds of tokenizers."""
    bare = token[:64].removeprefix("##").removesuffix(" (LR)").lstrip("Ġ▁ ")
    kind = unicodedata.category(bare[0]) if bare else "Zs"
    flags = (
        token.startswith("##"),
        token[:1] in ("Ġ", "▁", " "),
        token.endswith(" (LR)"),
        kind == "Lu",
        kind == "Ll",
        kind in ("Lo", "Lm", "Lt"),
        kind[0] == "N",
        kind[0] == "P",
        kind[0] in "SZC",
        bare.isascii(),
    )
    return [min(len(bare), 20) ** 0.5, *map(float, flags)]


def joined(clusters: Sequence[Sequence[int]], near: Sequence[Sequence[int]]) -> list[list[int]]:
    """Clusters of equal rows, those joined whose rows nearly equal each other.

    Example:
        >>> joined([[0, 4], [1, 2]], [[0, 9]])
        [[0, 4, 9], [1, 2]]
    """
    of = {row: set(cluster) for cluster in clusters for row in cluster}
    for group in near:
        whole = {row for member in group for row in of.get(member, {member})}
        of.update(dict.fromkeys(whole, whole))
    unique: dict[int, list[int]] = defaultdict(list)
    for whole in of.values():
        unique.setdefault(min(whole), sorted(whole))
    return [unique[first] for first in sorted(unique)]
