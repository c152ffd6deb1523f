"""The geometry of a table: isotropy, cosines, spectrum and lengths, by frequency group, in two readings of it.

The first reading sums up (see `moments`), the second projects every row on the axes of all rows and on those of its own
group. Nothing of the size of the table is made.

How exact this is: in float64, as for tables with V x H x H up to 3e10, everything agrees with the functions in
`metrics` to about 1e-9. Larger tables are multiplied in float32 and added in float64: singular values above a hundredth
of the largest then agree to 1e-5, log I(W) to 1e-5 (of itself where it is beyond 1), mean cosines to 2e-6. Singular
values come from the eigenvalues of W^T W; those below 1e-7 of the largest (in float32 1e-4) are rounding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from decone.diagnosis.cosine_sample import histograms
from decone.diagnosis.moments import GroupSums, Moments, gather, layout, sweep
from decone.diagnosis.plane import Plane, draw, plane_of
from decone.diagnosis.result import RowNorms, Spectrum, TableFacts
from decone.metrics.effective_rank import effective_rank_of, energy_share
from decone.metrics.group_cosine import cosine_of_sums
from decone.metrics.isoscore import isoscore_of
from decone.metrics.isotropy import Isotropy, from_log_partition, isotropy, log_partition, signed_axes
from decone.metrics.norms import norms_by_rank
from decone.metrics.word_similarity import spearman
from decone.models.tables import Table

__all__ = ["TableSurvey", "draw", "measure_table", "survey"]

QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
SHOWN = 512  # singular values
FIRST = 32  # of them without a gap: on a logarithmic axis these are half of the picture


@dataclass(frozen=True)
class TableSurvey:
    """What two readings of a table tell.

    Attributes:
        facts: its geometry.
        plane: where `draw` puts its rows; handing it over saves reading the table again.
    """

    facts: TableFacts
    plane: Plane


def measure_table(
    table: Table, groups: dict[str, Int64[Tensor, " M"]], rank: Int64[Tensor, " V"] | None = None, seed: int = 0
) -> TableFacts:
    """Measures the geometry of a table.

    Args:
        table: V x H, finite in the rows of the groups; other rows are not looked at.
        groups: different ids by name, no id in two groups.
        rank: frequency rank of each row, 1 for the most frequent; None when nothing is known.
        seed: of the sampled pairs in the histograms.

    Returns:
        Numbers by group and for "all", the union of the groups. Empty groups have no isotropy. Rows of zeros count
        everywhere but in cosines.

    Raises:
        ValueError: no group has a row, an id is outside the table or in two groups, the rows are all zero or not
            finite, or the table is wider than any table of tokens.

    Example:
        >>> from decone.models.tables import MemoryTable
        >>> facts = measure_table(MemoryTable("weight", torch.eye(3)), {"frequent": torch.arange(3)})
        >>> facts.cosine["all"]["all"], round(facts.spectrum.effective_rank, 6)
        (0.0, 3.0)
    """
    return survey(table, groups, rank, seed).facts


def survey(
    table: Table, groups: dict[str, Int64[Tensor, " M"]], rank: Int64[Tensor, " V"] | None = None, seed: int = 0
) -> TableSurvey:
    """Measures a table as `measure_table` does, and keeps its main plane for `draw`; arguments and errors as there."""
    arranged = layout(table, groups)
    if rank is not None and len(rank) != table.shape[0]:
        raise ValueError(f"rank has {len(rank)} entries, {table.name} has {table.shape[0]} rows; give one per row")
    moments = gather(table, arranged, seed)
    if not any(sums.directed for sums in moments.groups):
        raise ValueError(f"{table.name} holds nothing but zeros; name a trained table with --embedding or --head")
    gram = moments.gram()
    covariance = moments.covariance(gram)
    squares, axes = signed_axes(gram, moments.total)
    lengths = moments.norms[arranged.label >= 0]
    facts = TableFacts(
        isotropy={name: value._asdict() for name, value in _isotropy(table, moments, axes).items()},
        cosine=_cosines(moments),
        spectrum=_spectrum(squares.flip(0)[: moments.count], isoscore_of(covariance)),
        norms=_norms(lengths, None if rank is None else rank[arranged.label >= 0]),
        mean_direction=min(1.0, float(moments.total.norm() / lengths.sum())),
        histograms=histograms({name: sums.sample for name, sums in _named(moments)}, seed),
    )
    return TableSurvey(facts, plane_of(moments.total / moments.count, covariance))


def _named(moments: Moments) -> list[tuple[str, GroupSums]]:
    return list(zip(moments.layout.names, moments.groups, strict=True))


def _isotropy(table: Table, moments: Moments, common: Float64[Tensor, "H H"]) -> dict[str, Isotropy]:
    """I(W) of all rows and of each group, whose eigenvectors are its own: the second reading of the table."""
    axes = {-1: common.to(moments.dtype)}
    for place, sums in enumerate(moments.groups):
        if sums.gram is not None:
            axes[place] = signed_axes(sums.gram, sums.total)[1].to(moments.dtype)
    logs = {place: torch.full((2, table.shape[1]), -torch.inf, dtype=torch.float64) for place in axes}
    for _, rows, spans in sweep(table, moments.layout, moments.dtype):
        for place, span in [(-1, slice(None)), *spans]:
            if place in axes:
                logs[place] = torch.logaddexp(logs[place], log_partition(rows[span] @ axes[place]))
    found = {"all": from_log_partition(logs[-1])}
    for place, (name, sums) in enumerate(_named(moments)):
        if place in axes:
            found[name] = from_log_partition(logs[place])
        elif sums.rows:
            found[name] = isotropy(torch.cat(sums.rows))
    return found


def _cosines(moments: Moments) -> dict[str, dict[str, float | None]]:
    groups = {name: (sums.units, sums.directed) for name, sums in _named(moments)}
    units, sizes = zip(*groups.values(), strict=True)
    everything = {"all": (torch.stack(units).sum(0), sum(sizes)), **groups}

    def cosine(name: str, other: str) -> float | None:
        (first, size), (second, count) = everything[name], everything[other]
        common = min(size, count) if "all" in (name, other) or name == other else 0
        return cosine_of_sums(first, second, size, count, common)

    return {name: {other: cosine(name, other) for other in everything} for name in everything}


def _spectrum(squares: Float64[Tensor, " R"], isoscore: float) -> Spectrum:
    values = squares.clamp_min(0).sqrt()
    values = values / values[0]
    places = np.unique(np.linspace(min(FIRST, len(values)) + 1, max(len(values), FIRST + 1), SHOWN - FIRST).round())
    places = np.concatenate((np.arange(1, FIRST + 1), places)).astype(int)
    places = places[places <= len(values)]
    return Spectrum(
        singular_values=values[places - 1].tolist(),
        ranks=places.tolist(),
        energy_first=energy_share(values, 1),
        energy_ten=energy_share(values, 10),
        effective_rank=effective_rank_of(values),
        isoscore=isoscore,
    )


def _norms(lengths: Float64[Tensor, " n"], rank: Int64[Tensor, " n"] | None) -> RowNorms:
    quantiles = np.quantile(lengths.numpy(), QUANTILES)
    return RowNorms(
        quantiles={str(share): float(value) for share, value in zip(QUANTILES, quantiles, strict=True)},
        rank_correlation=None if rank is None else spearman(lengths.numpy(), rank.double().numpy()),
        by_rank=[] if rank is None else norms_by_rank(lengths, rank),
    )
