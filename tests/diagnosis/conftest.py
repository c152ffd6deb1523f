"""Results of scans made by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from decone.diagnosis.result import ModelFacts, RowNorms, ScanResult, Spectrum, TableFacts
from decone.frequencies import FrequencyFacts


def facts(cosine: float = 0.02, rare: float = 0.03, frequent: float = 0.02, **spectrum: float) -> TableFacts:
    """A healthy table of width 64, but for what is given."""
    values = {"energy_first": 0.03, "energy_ten": 0.2, "effective_rank": 60.0, "isoscore": 0.9} | spectrum
    return TableFacts(
        isotropy={"all": {"raw": 0.9, "plus_minus": 0.8}},
        cosine={"all": {"all": cosine}, "rare": {"rare": rare}, "frequent": {"frequent": frequent}},
        spectrum=Spectrum(singular_values=[1.0, 0.9], ranks=[1, 2], **values),
        norms=RowNorms(quantiles={"0.5": 1.0}, rank_correlation=0.0, by_rank=[]),
        mean_direction=0.1,
    )


@pytest.fixture
def table() -> Callable[..., TableFacts]:
    return facts


@pytest.fixture
def make() -> Callable[..., ScanResult]:
    def result(**fields: Any) -> ScanResult:
        model = {"name": "m", "family": "gpt2", "kind": "causal", "embedding": "wte", "head": None, "tied": True}
        model |= {"rows": 1000, "width": 64, "dtype": "float32", "vocabulary": 1000} | fields.pop("model", {})
        given = {"tables": {"embedding": facts()}, "rows": [], "suspects": []} | fields
        frequencies = FrequencyFacts(source=given.pop("source", "text"))
        return ScanResult(model=ModelFacts(**model), frequencies=frequencies, **given)

    return result
