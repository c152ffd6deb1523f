"""Tokens that a tokenizer produces but that seem never trained, most suspicious first.

Every indicator gives a score in robust z units, 3.5 being unusual, and a row has the highest of its scores. What only
says that a row is rarely trained (a short row, nearness to unused rows, an odd angle to the mean row) ends at 4.5, so
that it stays below what says never: a row that equals another, points where a random direction would, or is zero.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float32, Float64, Int64
from scipy.spatial import cKDTree
from torch import Tensor

from decone.diagnosis.result import SUSPECTS, RowFinding, Suspect
from decone.diagnosis.rows import LONGEST, RowKinds, row_finding, tables_by_name
from decone.frequencies import Frequencies, token_texts
from decone.metrics.neighbours import neighbour_cosine
from decone.metrics.row_survey import RowSurvey
from decone.metrics.undertrained import (
    LEAST,
    RANDOM,
    UNUSUAL,
    nearness_scores,
    noise_scores,
    ownership,
    robust_scores,
    structure,
    unexplained,
)
from decone.models.tables import ModelTables, Table, blocks

NOTHING = 10.0  # score of a row of zeros, and of one that is not finite
SIZES = 1e-15, 1e15  # lengths beyond which squares leave single precision
COPY, ORIGINAL = 9.0, 4.6  # scores of a row that surely copies another, and of one that surely is copied
REPORTED = 2.5  # scores below are not reported
SAMPLE = 1 << 26  # entries of the rows that others are compared with: 256 MiB
WORK = 1 << 36  # multiplications for comparing rows with others
FITTED = 8192  # rows that a structure is learned from in tables wider than 1,024
SEED = 0x5CA1AB1E  # of samples and random directions; not one that a planted disease would have
FEW = 0.005  # share of the rows below which they are read one by one
LONG, ANGLE = "longer than rows of its frequency", "at an unusual angle to the mean row"
DIRECTIONS = 8  # directions in which near copies are searched


class Evidence(NamedTuple):
    """Verdict of one indicator on all rows: a score, [V], and a phrase."""

    score: Float64[Tensor, " V"]
    phrase: str


def find_suspects(
    model_tables: ModelTables, rows: RowKinds, frequencies: Frequencies, limit: int = SUSPECTS
) -> tuple[list[Suspect], RowFinding | None]:
    """Ranks the tokens that look untrained among those that text can produce.

    Args:
        model_tables: the model.
        rows: what `find_rows` gave; rows it explains as unreachable, reserved or without a token are no suspects.
        frequencies: lengths and angles are compared between rows of similar rank.
        limit: how many at most.

    Returns:
        Rows with a score of 2.5 or more, highest first; above 3.5 is unusual. And the tokens that a chat template
        writes though their rows look never trained. Those are mostly reserved, and trained ones have rows of a kind of
        their own, so that an odd angle or length proves nothing of them.
    """
    size = model_tables.output.shape[0]
    chat = {row for row in model_tables.chat if row < size}
    candidate = torch.ones(size, dtype=torch.bool)
    candidate[sorted(rows.of("padded", "gap", "unreachable", "reserved", "partial") | model_tables.special)] = False
    candidate[rows.inside] = True
    ordinary = candidate.clone()
    candidate[sorted(chat)] = True
    tokens = token_texts(model_tables)
    indicators: list[Evidence] = []
    for name, table in tables_by_name(model_tables).items():
        evidence = _evidence(table, rows.surveys[name], candidate, rows, tokens, frequencies.rank)
        where = "" if model_tables.head is None else f" ({'input' if name == 'embedding' else 'output'} row)"
        indicators += [Evidence(_fitted(score, size), phrase + where) for score, phrase in evidence]
    scores = torch.stack([evidence.score for evidence in indicators])
    proof = torch.tensor([not evidence.phrase.startswith((LONG, ANGLE)) for evidence in indicators])
    untrained = rows.untrained()
    clusters = [set(cluster) for survey in rows.surveys.values() for cluster in survey.clusters]
    copies = {row for cluster in clusters if cluster & rows.marks for row in cluster}  # of a trained mark, on purpose
    never = sorted(
        row for row in chat if row in untrained or (row not in copies and bool((scores[proof, row] > UNUSUAL).any()))
    )
    total = scores.amax(0).where(ordinary, 0.0)
    order = torch.argsort(total, descending=True, stable=True)[:limit]
    group = {row: name for name, ids in frequencies.groups.items() for row in ids.tolist()}
    norm = rows.surveys["embedding" if model_tables.head is None else "head"].norm
    suspects = [
        Suspect(
            id=row,
            token=tokens[row][:LONGEST],
            score=round(float(total[row]), 3),
            reasons=_reasons(scores[:, row], [evidence.phrase for evidence in indicators]),
            group=group.get(row, "rare"),
            norm=float(norm[row]) if torch.isfinite(norm[row]) else 0.0,
            count=None if frequencies.counts is None else int(frequencies.counts[row]),
        )
        for row in order.tolist()
        if total[row] >= REPORTED
    ]
    note = "the chat template writes them"
    return suspects, row_finding("chat", never, tokens, note) if never else None


def _evidence(
    table: Table, survey: RowSurvey, candidate: Tensor, rows: RowKinds, tokens: list[str], rank: Tensor
) -> Iterator[Evidence]:
    size = table.shape[0]
    candidate = _fitted(candidate, size)
    rank = _fitted(rank, size)
    yield Evidence(NOTHING * survey.zero.double(), "all zeros")
    yield Evidence(NOTHING * (~survey.finite).double(), "not a finite number")
    sized = (survey.norm > SIZES[0]) & (survey.norm < SIZES[1])
    yield Evidence(NOTHING * (survey.finite & ~survey.zero & ~sized).double(), "of a size that arithmetic loses")
    ids = (candidate & sized).nonzero().squeeze(1)
    if len(ids) < 2 * LEAST:
        return
    z = robust_scores(survey.norm[ids].log(), rank[ids])
    yield Evidence(_spread(_softened(-z), ids, size), "shorter than rows of its frequency")
    # A long row has moved, so it is no proof of anything by itself.
    yield Evidence(_spread(z.clamp(max=UNUSUAL), ids, size), LONG)
    if survey.distance is not None and survey.limit > 0:
        distance = survey.distance[ids]
        near = nearness_scores(distance, survey.limit, float(distance.quantile(0.5)))
        yield Evidence(_spread(_softened(near), ids, size), "like rows that are never used")
    view = _look(table, ids, survey.norm)
    angle = _softened(robust_scores(view.cosine, rank[ids]).abs())
    yield Evidence(_spread(angle, ids, size), ANGLE)
    noise = torch.where(view.noise > 0, (view.noise.square() + angle.square()).sqrt().clamp(max=RANDOM), 0.0)
    yield Evidence(_spread(noise, ids, size), "points nowhere in particular, like random numbers")
    yield from _copies(table, survey, ids, view.coordinates, rows, tokens, rank)


class _View(NamedTuple):
    """Directions of the candidate rows: cosine with the mean, likeness to noise, coordinates for near copies."""

    cosine: Float64[Tensor, " N"]
    noise: Float64[Tensor, " N"]
    coordinates: Float64[Tensor, "N D"]


def _look(table: Table, ids: Int64[Tensor, " N"], norm: Float64[Tensor, " V"]) -> _View:
    width = table.shape[1]
    random = torch.Generator().manual_seed(SEED)
    sampled = torch.randperm(len(ids), generator=random)[: max(64, SAMPLE // width)].sort().values
    sample = _gather(table, ids[sampled], norm)
    fitted = torch.arange(len(sample)) if width <= 1024 else torch.randperm(len(sample), generator=random)[:FITTED]
    learned = structure(sample[fitted])
    inside = torch.zeros(len(ids), dtype=torch.bool)
    inside[sampled[fitted]] = True
    mean = torch.nn.functional.normalize(sample.mean(0), dim=0)
    main = learned.weight.argsort()[:DIRECTIONS]
    onto = torch.cat((learned.axes, mean[:, None]), 1)
    cosine, share, coordinates = [], [], []
    for span, rows in _rows(table, ids):
        length = norm[ids[span], None]
        shadows = (rows @ onto / length).float()
        cosine.append(shadows[:, -1].double())
        share.append(unexplained(shadows[:, :-1], learned, inside[span]))
        coordinates.append(shadows[:, main].double() * length)
    unlike = torch.cat(share)
    directions = torch.nn.functional.normalize(torch.randn(256, width, generator=random), dim=1)
    noise = noise_scores(unlike, unlike, unexplained(directions @ learned.axes, learned))
    if noise is None:
        noise = torch.zeros(len(ids), dtype=torch.float64)
    else:
        noise = _alone(table, ids, norm, noise, sampled, sample, directions)
    return _View(torch.cat(cosine), noise, torch.cat(coordinates))


def _alone(
    table: Table,
    ids: Int64[Tensor, " N"],
    norm: Float64[Tensor, " V"],
    noise: Float64[Tensor, " N"],
    sampled: Int64[Tensor, " S"],
    sample: Float32[Tensor, "S H"],
    directions: Float32[Tensor, "R H"],
) -> Float64[Tensor, " N"]:
    """Lowers the likeness to noise of rows that have near neighbours, where the table is such that noise has none."""
    most = max(64, WORK // sample.numel())
    index = torch.full((len(ids),), -1)
    index[sampled] = torch.arange(len(sampled))
    usual = torch.linspace(0, len(sampled) - 1, min(512, most // 4, len(sampled))).long()
    ordinary = -neighbour_cosine(sample[usual], sample, usual)
    random = -neighbour_cosine(directions[: most // 4], sample)
    suspected = torch.argsort(noise, descending=True, stable=True)[: most // 2]
    suspected = suspected[noise[suspected] > 0].sort().values
    lonely = -neighbour_cosine(_gather(table, ids[suspected], norm), sample, index[suspected])
    if float(random.quantile(0.05)) <= float(ordinary.quantile(0.8)):
        return noise  # in a small table hardly any row has near neighbours
    scores = noise_scores(lonely, ordinary, random, tail=1.0)
    result = noise.clamp(max=UNUSUAL)
    result[suspected] = noise[suspected] if scores is None else torch.minimum(noise[suspected], scores)
    return result


def _copies(
    table: Table, survey: RowSurvey, ids: Tensor, coordinates: Tensor, rows: RowKinds, tokens: list[str], rank: Tensor
) -> Iterator[Evidence]:
    size = table.shape[0]
    equal = {row for cluster in survey.clusters for row in cluster[1:]}
    single = torch.tensor([row not in equal for row in ids.tolist()], dtype=torch.bool)
    near = near_clusters(table, ids[single], coordinates[single], survey.norm[ids[single]])
    candidates = set(ids.tolist())
    unused = rows.of("padded", "gap", "unreachable")
    twins, strays = [], []
    for cluster in join_clusters(survey.clusters, near):
        members = [row for row in cluster if row in candidates]
        if any(row in unused for row in cluster):
            strays += members
        elif len(members) > 1:
            twins.append(members)
    score = torch.zeros(size, dtype=torch.float64)
    score[strays] = COPY
    yield Evidence(score, "equals a row that is never used")
    score = torch.zeros(size, dtype=torch.float64)
    for row, share in originals(table, twins, tokens, rank, ids).items():
        score[row] = COPY - (COPY - ORIGINAL) * share
    yield Evidence(score, "equals the row of another token")


def _rows(table: Table, ids: Int64[Tensor, " N"]) -> Iterator[tuple[slice, Float32[Tensor, "n H"]]]:
    """Some rows, block by block, each block with its place among the ids."""
    for start, block in blocks(table):
        low, high = torch.searchsorted(ids, torch.tensor([start, start + len(block)])).tolist()
        if low < high:
            members = ids[low:high]
            yield slice(low, high), (block if len(members) == len(block) else block[members - start]).float()


def _gather(table: Table, ids: Int64[Tensor, " N"], norm: Float64[Tensor, " V"]) -> Float32[Tensor, "N H"]:
    """Some rows as directions."""
    result = torch.empty(len(ids), table.shape[1])
    if len(ids) < FEW * table.shape[0]:
        for index, row in enumerate(ids.tolist()):
            result[index] = table.read(row, row + 1)[0].float()
    else:
        for span, rows in _rows(table, ids):
            result[span] = rows
    return result.div_(norm[ids, None].float())


def _softened(z: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
    """Scores above 3.5 pressed together, in order, below 4.5."""
    return torch.where(z > UNUSUAL, UNUSUAL + 1 - torch.exp(UNUSUAL - z), z)


def _spread(scores: Tensor, ids: Tensor, size: int) -> Float64[Tensor, " V"]:
    result = torch.zeros(size, dtype=torch.float64)
    result[ids] = scores.double()
    return result


def _fitted(values: Tensor, size: int) -> Tensor:
    """A value per row for a table of another number of rows: cut, or filled with zeros."""
    return torch.nn.functional.pad(values[:size], (0, max(0, size - len(values))))


def _reasons(scores: Float64[Tensor, " E"], phrases: list[str]) -> list[str]:
    """Phrases of all indicators above 3.5, strongest first; of the strongest where none is."""
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    return [phrases[index] for index in order if scores[index] > UNUSUAL] or [phrases[order[0]]]


NEAR = 0.01  # distance of a near copy, relative to the length of the row
LEARNED = 2048  # rows from which is learned which row suits which token
JUDGED = 2000  # copies that are judged; of more, none passes as the original


def near_clusters(
    table: Table, ids: Int64[Tensor, " N"], coordinates: Float64[Tensor, "N D"], norm: Float64[Tensor, " N"]
) -> list[list[int]]:
    """Groups of rows that differ by less than 1 % of their length, by a search in a few directions.

    Args:
        table: where the rows of a pair are read to be sure.
        ids: rows that are searched; no two equal to the last bit.
        coordinates: the rows in some orthonormal directions.
        norm: their lengths.
    """
    if len(ids) < 2:
        return []
    bound = NEAR * float(norm.quantile(0.9))
    distance, partner = cKDTree(coordinates.numpy()).query(coordinates.numpy(), k=2, distance_upper_bound=bound)
    groups: dict[int, set[int]] = {}
    for row in (distance[:, 1] <= bound).nonzero()[0].tolist():
        partner_row = int(partner[row, 1]) if int(partner[row, 0]) == row else int(partner[row, 0])
        first, second = (table.read(int(ids[i]), int(ids[i]) + 1)[0].double() for i in (row, partner_row))
        if float((first - second).norm()) <= NEAR * float(min(norm[row], norm[partner_row])):
            join_clusters = groups.get(row, {row}) | groups.get(partner_row, {partner_row})
            groups.update(dict.fromkeys(join_clusters, join_clusters))
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
    distinct = [row for row in ordinary.tolist() if row not in copied]
    if len(distinct) < 24 or len(members) > JUDGED:
        return {row: 1 / len(cluster) for cluster in clusters for row in cluster}
    teachers = [
        distinct[index] for index in torch.linspace(0, len(distinct) - 1, min(LEARNED, len(distinct))).long().tolist()
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
    selection = torch.stack([table.read(row, row + 1)[0].float() for row in rows])
    return torch.nn.functional.normalize(selection, dim=1)


def _features(rows: Sequence[int], tokens: Sequence[str], rank: Tensor) -> Float64[Tensor, "N F"]:
    spelt = torch.tensor([_spelling(tokens[row]) for row in rows], dtype=torch.float64)
    return torch.cat((rank[list(rows)].double().log()[:, None], spelt), 1)


def _spelling(token: str) -> list[float]:
    """Features of the spelling of a token that languages and kinds of tokenizers share."""
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


def join_clusters(clusters: Sequence[Sequence[int]], near: Sequence[Sequence[int]]) -> list[list[int]]:
    """Clusters of equal rows, those joined whose rows nearly equal each other.

    Example:
        >>> join_clusters([[0, 4], [1, 2]], [[0, 9]])
        [[0, 4, 9], [1, 2]]
    """
    of = {row: set(cluster) for cluster in clusters for row in cluster}
    for group in near:
        union = {row for member in group for row in of.get(member, {member})}
        of.update(dict.fromkeys(union, union))
    unique: dict[int, list[int]] = defaultdict(list)
    for union in of.values():
        unique.setdefault(min(union), sorted(union))
    return [unique[first] for first in sorted(unique)]
