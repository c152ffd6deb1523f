"""Geometry of a table as it stands in the result of a scan."""

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from decone.diagnosis.result import CosineHistogram, RowNorms, Spectrum, TableFacts
from decone.diagnosis.table_metrics import table_metrics
from decone.metrics.statistics import spearman
from decone.metrics.table_geometry import effective_rank_of, energy_share, isoscore_of, norm_quantiles, norms_by_rank
from decone.metrics.table_survey import TableSurvey

LISTED = 512  # singular values
FIRST = 32  # of them without a gap: on a logarithmic axis these are half of the picture


def table_facts(survey: TableSurvey) -> TableFacts:
    """Turns a survey into the facts of a result, every metric of `table_metrics` among them.

    Example:
        >>> import torch
        >>> from decone.metrics.table_survey import survey_table
        >>> from decone.models.tables import MemoryTable
        >>> facts = table_facts(survey_table(MemoryTable("weight", torch.eye(3)), {"frequent": torch.arange(3)}))
        >>> facts.cosine["all"]["all"], round(facts.metrics["effective_rank"], 6)
        (0.0, 3.0)
    """
    return TableFacts(
        isotropy={group: value._asdict() for group, value in survey.isotropy.items()},
        cosine=survey.cosine,
        spectrum=_spectrum(survey.singular_values, isoscore_of(survey.covariance)),
        norms=_norms(survey),
        mean_direction=survey.mean_direction,
        metrics={metric.name: metric.measure(survey) for metric in table_metrics()},
        histograms=[CosineHistogram(groups=pair.groups, counts=pair.counts) for pair in survey.histograms],
    )


def _spectrum(values: Float64[Tensor, " R"], isoscore: float) -> Spectrum:
    ranks = np.unique(np.linspace(min(FIRST, len(values)) + 1, max(len(values), FIRST + 1), LISTED - FIRST).round())
    ranks = np.concatenate((np.arange(1, FIRST + 1), ranks)).astype(int)
    ranks = ranks[ranks <= len(values)]
    return Spectrum(
        singular_values=values[ranks - 1].tolist(),
        ranks=ranks.tolist(),
        energy_first=energy_share(values, 1),
        energy_ten=energy_share(values, 10),
        effective_rank=effective_rank_of(values),
        isoscore=isoscore,
    )


def _norms(survey: TableSurvey) -> RowNorms:
    norms, rank = survey.norms, survey.rank
    return RowNorms(
        quantiles=norm_quantiles(norms),
        rank_correlation=None if rank is None else spearman(norms.numpy(), rank.double().numpy()),
        by_rank=[] if rank is None else norms_by_rank(norms, rank),
    )
