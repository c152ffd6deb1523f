"""What is learned of a model's rows: by whom each is predicted, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.repair.checkpoints import contents
from tests.repair.definitions.worlds import FAMILIES, TOLD, WORDS, aligned, glosses, reconstructor, saved
from torch import Tensor

from decone.data.lexicons import Sense
from decone.models.find_tables import find_tables
from decone.models.tables import MemoryTable
from decone.repair.alignment.result import TokenEntry
from decone.repair.alignment.surfaces import Surface
from decone.repair.definitions.fit import Reconstructor
from decone.repair.definitions.recipe import DefinitionRecipe

GRADIENT = {"solver": "gradient", "read": "slot", "epochs": 1, "batch": 8, "rate": 1e-3}


def ridge(features: Tensor, rows: Tensor, penalty: float, blocks: list[int], asked: Tensor, scaled_by: Tensor) -> Any:
    """Least squares with more rows, in numpy."""
    scale, start = np.ones(features.shape[1]), 0
    for size in blocks:
        scale[start : start + size] = scaled_by[:, start : start + size].double().numpy().var(0).mean() ** -0.5
        start += size
    x, y = features.double().numpy() * scale, rows.double().numpy()
    left = np.block([[x, np.ones((len(x), 1))], [penalty**0.5 * np.eye(x.shape[1]), np.zeros((x.shape[1], 1))]])
    found = np.linalg.lstsq(left, np.vstack([y, np.zeros((x.shape[1], y.shape[1]))]), rcond=None)[0]
    return np.hstack([asked.double().numpy() * scale, np.ones((len(asked), 1))]) @ found


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_rows_teach_the_others(family: str, tmp_path: Path) -> None:
    """Also where rows are narrower than states (ALBERT)."""
    read = reconstructor(saved(family, tmp_path / family), DefinitionRecipe(ridge=3.0))
    table = find_tables(str(tmp_path / family)).embedding.read()
    assert torch.equal(read.rows, table[read.ids])
    assert read.ids.tolist() == sorted(read.alignment.entries)
    learn = torch.arange(40) % 5 != 0
    fit = read.fit(learn)
    asked = (~learn).nonzero().squeeze(1)
    expected = ridge(
        read.features[learn], read.rows[learn], 3.0, read.encoder.blocks, read.features[asked], read.features[learn]
    )
    for found in (read.predict(fit, asked), fit.out_of_fold[asked]):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert fit.scored.tolist() == learn.nonzero().squeeze(1).tolist()
    assert fit.scores.tokens == 32
    assert fit.ridge == 3.0
    assert fit.trained is None
    assert fit.frozen_scores is None


def test_honesty(tmp_path: Path) -> None:
    """One row a hundred times larger: its own prediction stays, those of others move."""
    read = reconstructor(saved("bert", tmp_path / "bert"), DefinitionRecipe(ridge=1.0))
    every = torch.ones(40, dtype=torch.bool)
    before = read.fit(every).out_of_fold
    for token in (0, 21):
        kept = read.rows.clone()
        read.rows[token] *= 100
        after = read.fit(every).out_of_fold
        read.rows = kept
        assert float((after[token] - before[token]).abs().max()) < 1e-5
        assert int(((after - before).abs().amax(1) > 1e-2).sum()) > 25


def test_features_are_means_over_prompts(tmp_path: Path) -> None:
    defined = {word: [gloss, *TOLD[place % 3 : 3]] for place, (word, gloss) in enumerate(glosses().items())}
    read = reconstructor(saved("bert", tmp_path / "bert"), DefinitionRecipe(senses="mean"), defined)
    assert len(read.prompts) == sum(map(len, defined.values())) > 40
    for token, id in enumerate(read.ids.tolist()):
        mine = [read.encoder.features([prompt])[0] for prompt in read.prompts if prompt.id == id]
        assert torch.allclose(read.features[token], torch.stack(mine).mean(0), atol=1e-5)


def test_a_decoder_s_rows(tmp_path: Path) -> None:
    """Pieces of a word: the decoder has read the gold pieces before the one asked for."""
    defined = glosses() | {"zebadozu": "lona kali"}
    read = reconstructor(saved("t5", tmp_path / "t5"), DefinitionRecipe(), defined, pieces=True)
    hosted = [prompt for prompt in read.prompts if len(prompt.pieces) > 1]
    assert len(read.ids) == 40 + len({prompt.id for prompt in hosted})
    assert bool(torch.isfinite(read.features).all())


def test_ranks_by_hand(tmp_path: Path) -> None:
    read = reconstructor(saved("bert", tmp_path / "bert"), DefinitionRecipe(ridge=1.0))
    fit = read.fit(torch.ones(40, dtype=torch.bool))
    table = read.table.read().double()
    centre = fit.out_of_fold.double().mean(0)
    for chosen in (torch.arange(40), torch.tensor([7]), torch.tensor([3, 30])):
        found = read.ranks(fit.out_of_fold, chosen)
        for place, token in enumerate(chosen.tolist()):
            near = torch.cosine_similarity(table - centre, fit.out_of_fold[token].double() - centre, dim=1)
            assert int(found[place]) == int((near > near[int(read.ids[token])] + 1e-6).sum())


def test_the_trained_solver(tmp_path: Path) -> None:
    read = reconstructor(saved("bert", tmp_path / "bert"), DefinitionRecipe(**GRADIENT, holdout=0.2))
    learn = torch.arange(40) < 30
    fit = read.fit(learn)
    assert fit.trained is not None
    assert fit.frozen_scores is not None
    assert len(fit.scored) == 3 == fit.scores.tokens == fit.frozen_scores.tokens
    assert len(fit.validation) == 3
    aside = {*fit.scored.tolist(), *fit.validation.tolist()}
    assert len(aside) == 6
    assert bool(learn[list(aside)].all())
    found = read.predict(fit, torch.arange(30, 40))
    prompts = [prompt for prompt in read.prompts if prompt.id in read.ids[30:].tolist()]
    expected = fit.trained.output_map(fit.trained.encoder.features(prompts))
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.shape == (10, 16)
    error = float((read.predict(fit, fit.validation) - read.rows[fit.validation]).square().mean())
    assert error == pytest.approx(min(fit.trained.errors), rel=1e-4)
    # Before training the student is the frozen model, fitted to what is not held out.
    seen = torch.tensor([token for token in range(30) if token not in aside])
    start = ridge(
        read.features[seen], read.rows[seen], fit.ridge, [16], read.features[fit.validation], read.features[seen]
    )
    wanted = ((start - read.rows[fit.validation].numpy()) ** 2).mean()
    assert fit.trained.errors[0] == pytest.approx(wanted, rel=1e-3)


def test_tokens_that_are_scored_are_neither_learned_from_nor_chosen_by(tmp_path: Path) -> None:
    """Another row of theirs changes the scores, and nothing of what was trained."""
    folder, learn = saved("bert", tmp_path / "bert"), torch.arange(40) < 30
    one, two = (
        reconstructor(folder, DefinitionRecipe(**GRADIENT, holdout=0.2, ridge=1.0, start="random")) for _ in range(2)
    )
    fit = one.fit(learn)
    two.rows[fit.scored] += 5
    again = two.fit(learn)
    assert fit.trained is not None
    assert again.trained is not None
    assert fit.trained.errors == again.trained.errors
    assert torch.equal(fit.scored, again.scored)
    assert torch.equal(fit.trained.output_map.weight, again.trained.output_map.weight)
    assert fit.scores.r2 != again.scores.r2


def test_one_held_out_token_is_not_perfect_by_itself(tmp_path: Path) -> None:
    """Its rank is around the mean of all predictions: around its own, every rank is 0."""
    row_ranks = set()
    for seed in range(4):
        read = reconstructor(
            saved("bert", tmp_path / f"{seed}"), DefinitionRecipe(**GRADIENT, seed=seed, start="random")
        )
        fit = read.fit(torch.arange(40) < 8)
        assert len(fit.scored) == 1
        assert fit.scores.tokens == 1
        row_ranks.add(fit.scores.median_rank)
    assert max(row_ranks) > 1


def test_the_same_seed(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    learn = torch.arange(40) < 30
    for settings in ({}, GRADIENT):
        one, two = (reconstructor(folder, DefinitionRecipe(**settings, seed=3)) for _ in range(2))
        rows = [read.predict(read.fit(learn), torch.arange(30, 40)) for read in (one, two)]
        assert float((rows[0] - rows[1]).abs().max()) < 1e-6


def test_tokens_that_are_not_in_the_table(tmp_path: Path) -> None:
    """A new word with the definition of an old one gets what is rebuilt of that one."""
    for settings in ({}, GRADIENT):
        read = reconstructor(saved("bert", tmp_path / str(len(settings))), DefinitionRecipe(**settings))
        fit = read.fit(torch.ones(40, dtype=torch.bool))
        senses = read.alignment.entries[int(read.ids[5])].senses
        new = [
            TokenEntry(-1, Surface("zork", "zork", "word"), "exact", senses),
            TokenEntry(-2, Surface("zonk", "zonk", "word"), "exact", (Sense("zonk", " "),)),
        ]
        rows, known = read.predict_new(fit, new)
        assert known.tolist() == [True, False]
        assert not rows[1].any()
        assert torch.allclose(rows[0], read.predict(fit, torch.tensor([5]))[0], atol=1e-5)
        nothing, none = read.predict_new(fit, new[1:])
        assert none.tolist() == [False]
        assert not nothing.any()


def test_groups_of_tokens_whose_prompts_are_the_same(tmp_path: Path) -> None:
    """Senses that are not read do not tell tokens apart, and names that are hidden are hidden alike."""
    defined: dict[str, Any] = glosses()
    for word, texts in zip(
        WORDS,
        (["lona kali", "deko"], ["lona kali", "dule"], ["lona kali"], [f"{WORDS[3]} diku"], [f"{WORDS[4]} diku"]),
        strict=False,
    ):
        defined[word] = texts
    folder, every = saved("bert", tmp_path / "bert"), torch.ones(40, dtype=torch.bool)
    read = reconstructor(folder, DefinitionRecipe(senses="first"), defined)
    ids = read.ids.tolist()
    assert read.identical_groups(every) == [ids[:3], ids[3:5]]
    fit = read.fit(torch.arange(40) > 4)
    rows = read.predict(fit, torch.arange(5))
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])
    assert torch.equal(rows[3], rows[4])
    assert reconstructor(folder, DefinitionRecipe(), defined).identical_groups(every) == [ids[3:5]]
    assert reconstructor(folder, DefinitionRecipe(mention="keep"), defined).identical_groups(every) == []
    some = torch.tensor([True, False, True] + [False] * 37)
    assert read.identical_groups(some) == [[ids[0], ids[2]]]


def test_rows_that_are_not_finite(tmp_path: Path) -> None:
    model_tables = find_tables(str(saved("bert", tmp_path / "bert")))
    table = model_tables.embedding.read().clone()
    table[[4, 90], 0] = torch.tensor([float("nan"), float("inf")])
    with pytest.raises(ValueError, match=r"rows of t are not finite \(2: 4, 90\); give them a value first"):
        Reconstructor(model_tables, MemoryTable("t", table), aligned(model_tables), DefinitionRecipe(), "cpu")


def test_states_that_are_not_finite(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.0.output.dense.bias"))
    weights[name][0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"states for the definitions of 61, 62, .* are not finite; it is damaged"):
        reconstructor(folder).fit(torch.ones(40, dtype=torch.bool))


def test_too_few_tokens(tmp_path: Path) -> None:
    read = reconstructor(saved("bert", tmp_path / "bert"))
    with pytest.raises(ValueError, match="4 tokens to learn from cannot be cut into 5 folds"):
        read.fit(torch.arange(40) < 4)


def test_no_definition_fits(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert", max_position_embeddings=4)
    with pytest.raises(ValueError, match="no definition fits into 4 positions"):
        reconstructor(folder)


def test_a_tokenizer_with_more_tokens_than_rows(tmp_path: Path) -> None:
    """A mask that was added without resizing the table."""
    folder = saved("bert", tmp_path / "bert", padding=-1)
    model_tables = find_tables(str(folder))
    assert model_tables.tokenizer is not None
    last = model_tables.tokenizer.get_vocab_size() - 1
    alignment = aligned(model_tables)
    mask = model_tables.tokenizer.id_to_token(last)
    with pytest.raises(ValueError, match=f"gives id {last}, and the model has {last:,} rows; resize its table"):
        Reconstructor(model_tables, model_tables.embedding, alignment, DefinitionRecipe(), "cpu", mask)


def test_a_device_that_is_not_here(tmp_path: Path) -> None:
    model_tables = find_tables(str(saved("bert", tmp_path / "bert")))
    with pytest.raises(ValueError, match="choose auto"):
        Reconstructor(model_tables, model_tables.embedding, aligned(model_tables), DefinitionRecipe(), "cuda:99")


def test_precisions_one_after_the_other(tmp_path: Path) -> None:
    """In one process, as a notebook has them; products of bfloat16 change digits, not what is learned."""
    folder = saved("bert", tmp_path / "bert")
    for settings in (GRADIENT, {"ridge": 1.0}):
        rows = []
        for precision in ("float32", "bfloat16", "auto"):
            read = reconstructor(folder, DefinitionRecipe(**settings, precision=precision))
            fit = read.fit(torch.arange(40) < 30)
            rows.append(fit.out_of_fold)
            assert fit.trained is None or fit.trained.errors[0] > 0
        assert torch.equal(rows[0], rows[2])
        assert 1e-6 < float((rows[0] - rows[1]).abs().max()) < 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tables_of_low_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = saved("t5", tmp_path / "t5", dtype=dtype)
    read = reconstructor(folder, DefinitionRecipe(ridge=1.0))
    assert read.table.dtype == dtype
    assert read.rows.dtype == torch.float32
    fit = read.fit(torch.arange(40) < 30)
    assert fit.out_of_fold.dtype == torch.float32
    assert bool(torch.isfinite(fit.out_of_fold).all())


def test_a_second_reading_sees_rebuilt_rows(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "bert")
    before = contents(folder)
    defined = {word: f"{gloss} {WORDS[-1]}" for word, gloss in glosses().items()}  # made of a word that is lost
    read = reconstructor(folder, DefinitionRecipe(ridge=1.0), defined)
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
        read = reconstructor(folder, DefinitionRecipe(**settings))
        if table is not None:  # an output of its own: what the model reads with is not what is rebuilt
            read.table = MemoryTable(table, read.table.read() + 1)
            read.rows = read.rows + 1
        old = read.encoder.rows.detach().clone()
        assert read.refine_features(~lost, lost) == 0
        assert torch.equal(read.encoder.rows, old)
