"""Definitions read again: with rows that were rebuilt, in memory alone."""

from pathlib import Path

import torch
from tests.repair.checkpoints import contents
from tests.repair.definitions.worlds import WORDS, glosses, reconstructor, saved

from decone.models.tables import MemoryTable
from decone.repair.definitions.recipe import Recipe


def test_a_second_reading_sees_rebuilt_rows(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    before = contents(folder)
    defined = {word: f"{gloss} {WORDS[-1]}" for word, gloss in glosses().items()}  # made of a word that is lost
    read = reconstructor(folder, Recipe(ridge=1.0), defined)
    lost = torch.zeros(len(read.ids), dtype=torch.bool)
    lost[-8:] = True
    old, rows, first = read.encoder.rows.detach().clone(), read.rows.clone(), read.features.clone()
    out_of_fold = read.crossfit(~lost)[0][lost]
    kept = rows[~lost]
    assert read.refine_features(~lost, lost) == 1
    # By hand: the spread of the kept rows around their mean, by one factor.
    factor = (
        (kept - kept.mean(0)).square().sum(1).mean() / (out_of_fold - out_of_fold.mean(0)).square().sum(1).mean()
    ).sqrt()
    wanted = kept.mean(0) + (out_of_fold - out_of_fold.mean(0)) * factor
    assert torch.allclose(read.encoder.rows[read.ids[lost]], wanted, atol=1e-4)
    others = torch.ones(len(old), dtype=torch.bool)
    others[read.ids[lost]] = False
    assert torch.equal(read.encoder.rows[others], old[others])
    assert torch.equal(read.rows, rows)
    assert not torch.equal(read.features, first)
    assert contents(folder) == before


def test_one_reading_and_another_table_read_once(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    lost = torch.arange(40) >= 32
    for settings, table in (({"rounds": 1}, None), ({}, "other")):
        read = reconstructor(folder, Recipe(**settings))
        if table is not None:  # an output of its own: what the model reads with is not what is rebuilt
            read.table = MemoryTable(table, read.table.read() + 1)
            read.rows = read.rows + 1
        old = read.encoder.rows.detach().clone()
        assert read.refine_features(~lost, lost) == 0
        assert torch.equal(read.encoder.rows, old)
