"""Results of scans made by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.document.reading import ALL, HOSTILE

from decone.diagnosis.result import ModelFacts, RowNorms, ScanResult, Spectrum, TableFacts
from decone.frequencies import FrequencyFacts
from decone.metrics.table_survey import TableSample


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


def _table(head: bool) -> dict[str, Any]:
    groups = ["all", "frequent", "medium", "rare", "special"]
    names = groups[1:]
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index:]]
    return {
        "isotropy": {name: {"raw": 0.9 - 0.1 * index, "plus_minus": 0.5} for index, name in enumerate(groups)},
        "cosine": {a: {b: None if a == b == "special" else 0.45 if head else 0.02 for b in groups} for a in groups},
        "spectrum": {
            "singular_values": [1.0, 0.5, 0.1, 0.0],
            "places": [1, 2, 3, 4],
            "energy_first": 0.8,
            "energy_ten": 1.0,
            "effective_rank": 2.4,
            "isoscore": 0.3,
        },
        "norms": {
            "quantiles": {"0": 0.0, "0.5": 1.0, "1": 2.0},
            "rank_correlation": -0.37,
            "by_rank": [(2.0, 0.8, 1.0, 1.2), (8.0, 0.7, 0.9, 1.1)],
        },
        "mean_direction": 0.2,
        "histograms": [{"groups": pair, "counts": [0, 3, 9, 0] if pair != names else [0] * 4} for pair in pairs],
    }


@pytest.fixture
def full_scan() -> ScanResult:
    """A scan with everything in it, each foreign string hostile."""
    groups = ["frequent", "medium", "rare", "special"]
    kinds = ["zero", "non-finite", "identical", "padded", "reserved", "unreachable", "partial", "untrained"]
    suspects = [
        {
            "id": 100 + place,
            "token": HOSTILE[place] if place < len(HOSTILE) else f"token{place}",
            "score": 60.0 - place,
            "reasons": [HOSTILE[place % len(HOSTILE)][:500], "near the mean of unused rows"],
            "group": groups[place % 4],
            "norm": place / 10,
            "count": None if place % 5 == 0 else 7 * place % 11,
        }
        for place in range(60)
    ]
    share = {"share": 0.5, "tokens": 10, "perplexity": 30.5, "accuracy": 0.25}
    none = {"share": 0.0, "tokens": 0, "perplexity": None, "accuracy": None}
    decoded = {"rep": {"1": 0.4, "3": 0.2}, "uniq_words": 90, "uniq_tokens": 99, "continuations": 5}
    row = {"push_frequent": 0.2, "push_medium": 0.1, "push_rare": 0.0, "push": 0.3, "count": 3}
    severities = ["good", "note", "serious", "warning"]
    return ScanResult.model_validate(
        {
            "model": {
                "name": ALL, "family": ALL, "kind": "causal", "embedding": ALL, "head": ALL, "tied": False,
                "rows": 5000, "width": 4, "dtype": ALL, "vocabulary": 4990, "padded": 10, "bias": True,
                "softcap": 30.0, "state_scale": 0.25, "logit_scale": 0.5, "notes": [ALL],
            },
            "frequencies": {
                "source": "merges", "tokens": 900, "types": 80, "warning": ALL,
                "sizes": {"frequent": 1500, "medium": 2500, "rare": 1000, "special": 5},
            },
            "tables": {"embedding": _table(False), "head": _table(True)},
            "rows": [
                {"kind": kind, "count": 12, "ids": [3, 1, 2, *range(90, 99)], "tokens": HOSTILE, "note": ALL}
                for kind in kinds
            ],
            "suspects": suspects,
            "behaviour": {
                "text": ALL, "tokens": 1000, "bytes": 4000, "perplexity": 31.5, "best_perplexity": 29.25,
                "best_temperature": 0.88, "bits_per_byte": 0.957, "accuracy": 0.374, "recall5": 0.61, "mrr": 0.48,
                "groups": {"all": share, "frequent": share, "rare": none}, "scripts": {"Latin": share, ALL: none},
                "rep_at": {"8": 0.1, "16": 0.2}, "rep_at_human": {"8": 0.05, "16": 0.1},
                "uniq": {"all": 50, "rare": 1}, "uniq_human": {"all": 80, "rare": 20},
                "decoding": {
                    "greedy": decoded | {"samples": list(zip(HOSTILE, reversed(HOSTILE), strict=True))},
                    "human": decoded, ALL: decoded,
                },
            },
            "blame": {
                "steps": 20, "tokens": 900, "ratio_of_average": {"all": 2.5, "rare": 0.03, "special": None},
                "average_of_ratio": {"all": 2.0, "rare": None},
                "rows": [
                    row | {"id": place, "token": text, "group": groups[place % 4], "pull": 0.1 * place, "input": 0.0}
                    for place, text in enumerate(HOSTILE)
                ],
            },
            "words": [
                {"file": ALL, "pairs": 300, "used": 290, "plain": 41.25, "plain_interval": (38.0, 44.0),
                 "spaced": None, "spaced_interval": None},
                {"file": "/a/b/MEN.txt", "pairs": 3, "used": 0, "plain": None, "plain_interval": None,
                 "spaced": None, "spaced_interval": None},
            ],
            "against": {
                "other": ALL, "same_width": False, "metrics": {ALL: (0.25, 0.5), "IsoScore": (None, 0.3)},
                "cosine": {"all": 0.9, "rare": None}, "neighbours": {"all": 0.5, "rare": None},
                "changed": [
                    {"id": place, "token": text, "group": "rare", "cosine": 0.5, "norm_before": 1.0, "norm_after": 2.0}
                    for place, text in enumerate(HOSTILE)
                ],
            },
            "findings": [
                {
                    "code": f"code-{severity}", "severity": severity, "title": f"Title {severity}",
                    "meaning": f"Claim {severity}: 0.5 of {ALL}", "source": ALL,
                    "remedy": f"run `decone trim {severity} --text FILE`, not `{HOSTILE[1]}` {ALL}",
                    "evidence": {"value": 0.4512, ALL: [HOSTILE[7], 1], "nested": {"count": 3}},
                }
                for severity in severities
            ],
            "checks": [
                {"name": ALL, "limit": 0.2, "value": 0.45, "passed": False},
                {"name": "undertrained", "limit": 500, "value": 60, "passed": True},
                {"name": "repetition", "limit": 0.2, "value": None, "passed": False},
            ],
            "seconds": 7.31,
            "provenance": {"date": ALL, "commit": None, "versions": {ALL: ALL, "torch": "2.13"}, ALL: [ALL]},
        }
    )  # fmt: skip


@pytest.fixture
def least_scan() -> ScanResult:
    """A scan with nothing in it that may be missing."""
    empty = _table(False) | {"isotropy": {}, "cosine": {}, "histograms": []}
    empty["norms"] = {"quantiles": {}, "rank_correlation": None, "by_rank": []}
    empty["spectrum"] |= {"singular_values": [], "places": [], "effective_rank": 0.0}
    model = {"name": "m", "family": "unknown", "kind": "tables", "embedding": "weight", "head": None, "tied": False}
    model |= {"rows": 4, "width": 2, "dtype": "float32", "vocabulary": None}
    frequencies = {"source": "none"}
    return ScanResult.model_validate(
        {"model": model, "frequencies": frequencies, "tables": {"embedding": empty}, "rows": [], "suspects": []}
    )


@pytest.fixture
def drawings() -> list[TableSample]:
    """Rows of both tables, the hostile ones among them."""
    tokens = [*HOSTILE, "the"]
    many = len(tokens)
    groups = [("frequent", "medium", "rare", "special")[place % 4] for place in range(many)]
    random = np.random.default_rng(0)
    return [
        TableSample(
            table,
            np.arange(many),
            tokens,
            groups,
            random.normal(size=(many, 2)),
            np.arange(1, many + 1),
            random.uniform(0.5, 1.5, many),
            np.arange(many) < 3,
        )
        for table in ("embedding", "head")
    ]
