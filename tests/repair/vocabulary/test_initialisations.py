"""Rows for new tokens beside naive loops, and draws beside the moments they are drawn with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.repair.checkpoints import cone

from decone.models import tables
from decone.models.tables import MemoryTable
from decone.repair.vocabulary import initialisations
from decone.repair.vocabulary.initialisations import INITIALISATIONS, RowRequest, find_initialisation

V, H = 60, 5


def request(tokens: int = 3, dtype: torch.dtype = torch.float32, **settings: int) -> RowRequest:
    trained = torch.ones(V, dtype=torch.bool)
    trained[[0, 7, 59]] = False
    pieces = [[1, 2, 2], [40], [], *([[5]] * tokens)][:tokens]
    table = MemoryTable("weight", cone(V, H, dtype))
    return RowRequest([f"new{place}" for place in range(tokens)], pieces, table, trained, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_by_hand(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(tables, "BLOCK", 7 * H)  # many blocks
    req = request(dtype=dtype, neighbours=4)
    table = req.table.read().double().numpy()
    usable = [row for row in range(V) if row not in (0, 7, 59)]
    mean = table[usable].mean(0)
    chosen = [[1, 2, 2], [40], usable]
    centres = [np.mean([table[row] for row in rows], axis=0) for rows in chosen]
    np.testing.assert_allclose(INITIALISATIONS["mean"](req).rows.numpy(), [mean] * 3, atol=1e-12)
    made = INITIALISATIONS["pieces"](req)
    np.testing.assert_allclose(made.rows.numpy(), centres, atol=1e-12)
    assert [ids.tolist() for ids in made.sources] == chosen
    made = INITIALISATIONS["neighbours"](req)
    for place, centre in enumerate(centres):
        cosine = {row: table[row] @ centre / np.linalg.norm(table[row]) / np.linalg.norm(centre) for row in usable}
        near = sorted(usable, key=lambda row: -cosine[row])[:4]  # used at once
        assert sorted(made.sources[place].tolist()) == sorted(near)
        np.testing.assert_allclose(made.rows[place].numpy(), table[near].mean(0), atol=1e-12)


def test_samples_have_the_moments_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialisations, "SAMPLE_ROWS", 11)
    req = request(20_000, seed=3)
    rows = INITIALISATIONS["sample"](req).rows.numpy()
    table = req.table.read().double().numpy()[req.trained.numpy()]
    cov = np.cov(table.T, bias=True)
    scale = np.sqrt(np.diag(cov))
    assert np.abs((rows.mean(0) - table.mean(0)) / scale).max() < 4 / np.sqrt(len(rows))
    assert np.abs((np.cov(rows.T) - cov) / np.outer(scale, scale)).max() < 5 / np.sqrt(len(rows))
    kurtosis = (((rows - rows.mean(0)) / rows.std(0)) ** 4).mean(0)
    assert np.abs(kurtosis - 3).max() < 0.2  # that of a normal distribution


def test_samples_are_repeatable_and_go_together() -> None:
    first, again, other = (INITIALISATIONS["sample"](request(4, seed=seed)).rows for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # An output that is twice the input draws twice the rows.
    req = request(4, seed=1)
    double = RowRequest(req.surfaces, req.pieces, MemoryTable("o", 2 * req.table.read()), req.trained, seed=1)
    torch.testing.assert_close(INITIALISATIONS["sample"](double).rows, 2 * first)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"--init 'best' is not known; take one of pieces"):
        find_initialisation("best")
    with pytest.raises(ValueError, match="at least 1"):
        INITIALISATIONS["neighbours"](request(neighbours=0))
    req = request()
    nothing = RowRequest(req.surfaces, req.pieces, req.table, torch.zeros(V, dtype=torch.bool))
    with pytest.raises(ValueError, match="was trained"):
        INITIALISATIONS["mean"](nothing)


def test_the_row_of_another_token() -> None:
    req = request(dtype=torch.bfloat16)
    named = replace(req, vocabulary={"<s>": 40, "5": 6})
    table = req.table.read().double()
    for name, row in (("like=<s>", 40), ("like=41", 41), ("like=5", 6)):  # a token goes before an id
        made = find_initialisation(name)(named)
        assert torch.equal(made.rows, table[[row] * 3])
        assert [ids.tolist() for ids in made.sources] == [[row]] * 3


@pytest.mark.parametrize("name", ["like=</s>", "like=60", "like=", "like=-1"])
def test_a_token_that_there_is_not(name: str) -> None:
    with pytest.raises(ValueError, match=f"--init {name}: the model has no such token"):
        find_initialisation(name)(request())


def test_a_mean_never_wins() -> None:
    req = request()
    table, states = req.table.read().double(), torch.randn(500, H, dtype=torch.float64)
    logits = states @ torch.cat((table, INITIALISATIONS["mean"](req).rows[:1])).T
    assert float(logits.softmax(1)[:, -1].max()) <= 1 / int(req.trained.sum())
