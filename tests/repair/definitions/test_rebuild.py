"""Rows rebuilt, in a world where definitions tell everything, and on tiny models from delta to undo."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.repair.checkpoints import contents
from tests.repair.definitions.worlds import FAMILIES, SOUNDS, WORDS, aligned, glosses, reconstructor, saved
from tests.repair.vocabularies import build, logits
from torch import Tensor

from decone.cli.main import app
from decone.data.lexicons import Lexicon, Sense
from decone.models.find_tables import find_tables
from decone.models.tables import MemoryTable
from decone.repair import checkpoint
from decone.repair.alignment.align import align
from decone.repair.alignment.result import TokenEntry
from decone.repair.alignment.surfaces import Surface
from decone.repair.definitions.encoder import DefinitionEncoder
from decone.repair.definitions.fit import Reconstructor
from decone.repair.definitions.prompts import Prompt
from decone.repair.definitions.rebuild import find_doubtful_rows, from_definitions, rebuild_rows
from decone.repair.definitions.recipe import DefinitionRecipe
from decone.repair.delta import repair_targets, write_delta
from decone.repair.vocabulary.grow import grow

transformers = pytest.importorskip("transformers")
MANY = [first + second + "x" for first in SOUNDS for second in SOUNDS][:300]


def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: int = 0, noise: float = 0.05, **settings: Any
) -> tuple[Reconstructor, Tensor, Tensor]:
    """300 tokens whose rows are a linear function of what is read of their definitions, but for some shuffled ones.

    Returns:
        The reconstructor, its rows before they were shuffled, and which were.
    """
    model_tables = find_tables(str(saved("bert", tmp_path / "bert", MANY)))
    draw = torch.Generator().manual_seed(5)
    size = model_tables.embedding.shape[0]
    features = torch.randn(size, 8, generator=draw)
    table = features @ torch.randn(8, 16, generator=draw) + noise * torch.randn(size, 16, generator=draw)

    def read(body: DefinitionEncoder, prompts: list[Prompt], progress: Any = None) -> Tensor:
        return torch.stack([features[prompt.id] for prompt in prompts])

    monkeypatch.setattr(DefinitionEncoder, "features", read)
    alignment = aligned(model_tables, glosses(words=MANY))
    good = table.clone()
    rare = torch.tensor(alignment.defined_ids()[-60:])
    wrong = rare[torch.randperm(60, generator=draw)[:spoiled]].sort().values
    table[wrong] = good[wrong].roll(1, 0)
    recipe = DefinitionRecipe(**{"read": "slot", "scale": "none", **settings})
    return Reconstructor(model_tables, MemoryTable("t", table), alignment, recipe, "cpu"), good, wrong


def rows_of(read: Reconstructor, ids: Tensor) -> tuple[Tensor, Tensor, dict[str, Any], list[str]]:
    model_tables = find_tables(str(Path("bert")))
    (target,) = repair_targets(model_tables)
    change, found, notes = rebuild_rows(target, read, ids)
    return change.ids, change.rows.read(), found, notes


def test_shuffled_rows_are_found_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, good, wrong = world(tmp_path, monkeypatch, spoiled=30)
    among = read.ids[-60:]
    read.rows[:4] = read.rows[:4].roll(1, 0)  # wrong ones elsewhere are not asked for
    found, facts = find_doubtful_rows(read, among)
    assert set(found.tolist()) <= set(among.tolist())
    hit = set(found.tolist()) & set(wrong.tolist())
    assert len(hit) > 22
    assert len(found) - len(hit) <= 2  # of a shuffled row one in ten is near by chance
    assert facts["looked_at"] == 60
    assert facts["in_doubt"] == len(found)
    assert facts["unrelated_rare"] == pytest.approx(0.5, abs=0.25)
    assert facts["unrelated_elsewhere"] < 0.05
    ids, rows, fit, notes = rows_of(read, found)
    assert torch.equal(ids, found)
    error = (rows - good[found]).square().mean() / (good[found] - good.mean(0)).square().mean()
    assert float(error) < 0.02  # of the variance
    assert fit["unrelated"] > 0.5
    assert fit["held_out"]["r2"] > 0.7
    assert fit["learned_from"] == 300 - len(found)
    assert not [note for note in notes if "so little was lost" in note]


def test_a_healthy_table_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, _, _ = world(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=r"nothing seems lost: the 60 rarest defined rows .* name them: --rows rare"):
        find_doubtful_rows(read, read.ids[-60:])
    for among in (read.ids, torch.tensor([0, 1])):
        with pytest.raises(ValueError, match="rows in doubt are looked for among some of the defined rows"):
            find_doubtful_rows(read, among)


def test_a_table_that_means_nothing_anywhere_is_not_worse_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, _, _ = world(tmp_path, monkeypatch, noise=1000.0)
    with pytest.raises(ValueError, match="nothing seems lost"):
        find_doubtful_rows(read, read.ids[-60:])


def test_each_row_from_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`others` never lets a row teach itself, `all` does, `kept` leaves all that are rebuilt out."""
    ids = None
    found = {}
    for way in ("kept", "others", "all"):
        read, good, wrong = world(tmp_path / way, monkeypatch, spoiled=30, train_on=way, ridge=0.1)
        monkeypatch.chdir(tmp_path / way)
        ids = wrong
        _, rows, fit, _ = rows_of(read, ids)
        found[way] = rows
        assert fit["learned_from"] == (270 if way == "kept" else 300)
        expected = {
            "kept": read.fit(~torch.isin(read.ids, ids)),
            "others": read.fit(torch.ones(300, dtype=torch.bool)),
        }
        places = torch.isin(read.ids, ids).nonzero().squeeze(1)
        if way == "kept":
            assert torch.allclose(rows, expected["kept"].ridge_map(read.features[places]), atol=1e-5)
        if way == "others":
            assert torch.allclose(rows, expected["others"].out_of_fold[places], atol=1e-5)
        if way == "all":
            assert torch.allclose(rows, expected["others"].ridge_map(read.features[places]), atol=1e-5)
        error = float((rows - good[ids]).square().mean())
        found[way] = error
    assert found["kept"] < found["others"]
    assert found["kept"] < found["all"]


def test_all_rows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, _, _ = world(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="none is left to learn from; replace fewer, or set train_on=others"):
        rows_of(read, read.ids)
    read, _, _ = world(tmp_path / "o", monkeypatch, train_on="others")
    monkeypatch.chdir(tmp_path / "o")
    ids, _, fit, notes = rows_of(read, read.ids)
    assert len(ids) == 300
    assert fit["held_out"]["r2"] > 0.9
    assert fit["unrelated"] < 0.1
    said = " ".join(notes)
    assert "100% of the defined rows are replaced; without fine-tuning" in said
    assert "so little was lost" in said


def test_what_a_user_must_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, _, _ = world(tmp_path, monkeypatch, noise=30.0, ridge=1e5)
    _, _, fit, notes = rows_of(read, torch.cat([read.ids[-10:], torch.tensor([0, 1])]))
    said = " ".join(notes)
    assert "2 of the 12 rows have no definition and stay as they are" in said
    assert f"rebuilt rows have {fit['length']:.0%} of the old length; set scale=spread, or blend=0.5" in said
    assert fit["length"] < 0.5
    assert "are few to learn" not in said
    read.recipe = DefinitionRecipe(read="slot", scale="row")
    _, rows, fit, notes = rows_of(read, read.ids[-10:])
    assert "of the old length" not in " ".join(notes)
    assert torch.allclose(rows.norm(dim=1), read.rows[-10:].norm(dim=1), rtol=1e-4)
    _, _, _, notes = rows_of(read, read.ids[:275])
    assert "25 tokens are few to learn 16 dimensions from; rows will mostly be the mean" in " ".join(notes)


def test_definitions_that_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, _, _ = world(tmp_path, monkeypatch, noise=1000.0, ridge=1.0)
    _, _, fit, notes = rows_of(read, read.ids[-10:])
    assert fit["held_out"]["r2"] <= 0
    assert "definitions tell nothing of rows that were not learned from" in notes[0]


def test_no_row_with_a_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, _, _ = world(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="none of the 2 rows has a definition; choose others, or another lexicon"):
        rows_of(read, torch.tensor([0, 7]))


def test_each_row_from_all_others_is_for_ridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, _, _ = world(tmp_path, monkeypatch, train_on="others", solver="gradient")
    with pytest.raises(ValueError, match="set solver=ridge, or train_on=kept"):
        rows_of(read, read.ids[-3:])


def test_tokens_with_the_same_definitions(tmp_path: Path) -> None:
    defined = glosses() | dict.fromkeys(WORDS[30:33], "lona kali") | dict.fromkeys(WORDS[38:], "deko deko")
    saved("bert", tmp_path / "bert")
    for way, count in (("warn", 10), ("keep-old", 7)):
        read = reconstructor(Path("bert"), DefinitionRecipe(collision=way), defined)
        ids, rows, fit, notes = rows_of(read, read.ids[30:])
        assert len(ids) == fit["rebuilt"] == count
        if way == "warn":
            assert torch.equal(rows[0], rows[2])
            assert torch.equal(rows[8], rows[9])
            assert "5 rows in 2 groups get the same values" in notes[0]
            assert f"{WORDS[30]!r} = {WORDS[31]!r} = {WORDS[32]!r}; {WORDS[38]!r} = {WORDS[39]!r}" in notes[0]
            assert "collision=keep-old leaves all but the first as they are" in notes[0]
        else:
            assert ids.tolist() == [int(read.ids[place]) for place in (30, 33, 34, 35, 36, 37, 38)]
            assert "3 rows keep their old values: an earlier token has the same definitions" in notes[0]


@pytest.mark.parametrize("solver", ["ridge", "gradient"])
@pytest.mark.parametrize("family", FAMILIES)
def test_from_rows_to_undo(family: str, solver: str, tmp_path: Path) -> None:
    """Chosen rows are the rebuilt ones, all others and all else keep every bit, and undo brings all back."""
    folder = saved(family, tmp_path / "model")
    before = contents(folder)
    model_tables = find_tables(str(folder))
    (target,) = repair_targets(model_tables)
    recipe = DefinitionRecipe(solver=solver, epochs=1, batch=16, blend=0.75, scale="spread")
    read = Reconstructor(model_tables, target.table, aligned(model_tables), recipe, "cpu")
    change, found, notes = rebuild_rows(target, read, read.ids[-8:])
    assert contents(folder) == before
    assert found["rebuilt"] == 8
    assert found["learned_from"] == 32
    write_delta(Path("d.safetensors"), model_tables, "definitions", {}, [change], {"input": found}, notes)
    checkpoint.apply_delta(str(folder), Path("d.safetensors"), Path("new"))
    old, new = (load_file(place / "model.safetensors") for place in (folder, Path("new")))
    assert old.keys() == new.keys()
    for name, part in old.items():
        if name != target.table.name:
            assert torch.equal(part, new[name]), name
    table = new[target.table.name]
    changed = (table != old[target.table.name]).any(1).nonzero().squeeze(1)
    assert changed.tolist() == read.ids[-8:].tolist() == change.ids.tolist()
    assert torch.equal(table[changed], change.rows.read())
    checkpoint.undo_delta("new", Path("d.safetensors"), Path("back"))
    assert contents(Path("back")) == before
    # What is tied follows: a head has the new rows when transformers loads it.
    config = transformers.AutoConfig.from_pretrained("new")
    loaded = getattr(transformers, config.architectures[0]).from_pretrained("new")
    head = loaded.get_output_embeddings()
    assert model_tables.tied
    assert head is not None
    assert torch.equal(head.weight[changed], change.rows.read())


def test_shares_of_old_and_new(tmp_path: Path) -> None:
    saved("bert", tmp_path / "bert")
    found = {}
    for blend in (0.25, 1.0):
        read = reconstructor(Path("bert"), DefinitionRecipe(blend=blend, ridge=1.0))
        found[blend] = rows_of(read, read.ids[-8:])[1]
    assert torch.allclose(found[0.25], 0.25 * found[1.0] + 0.75 * read.rows[-8:], atol=1e-6)


def test_rows_that_do_not_fit_the_table(tmp_path: Path) -> None:
    """A float16 table whose kept rows are far apart: spread to their distance, rebuilt rows would be infinite."""
    folder = saved("bert", tmp_path / "bert", dtype=torch.float16)
    model_tables = find_tables(str(folder))
    (target,) = repair_targets(model_tables)
    table = model_tables.embedding.read().clone()
    read = Reconstructor(
        model_tables, MemoryTable("t", table), aligned(model_tables), DefinitionRecipe(scale="spread"), "cpu"
    )
    read.rows[:20] = 6e4
    read.rows[20:32] = -6e4
    before = contents(folder)
    with pytest.raises(
        ValueError, match=r"rebuilt rows of .* are not finite or do not fit torch.float16: .*leave them"
    ):
        rebuild_rows(target, read, read.ids[-8:])
    assert contents(folder) == before


def test_a_prediction_that_is_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("bert", tmp_path / "bert")
    read = reconstructor(Path("bert"), DefinitionRecipe())
    original = Reconstructor.predict

    def spoiled(self: Reconstructor, *given: Any) -> Tensor:
        rows = original(self, *given)
        rows[2, 3] = torch.nan
        return rows

    monkeypatch.setattr(Reconstructor, "predict", spoiled)
    with pytest.raises(ValueError, match=f"1 rebuilt rows .* are not finite .*: {int(read.ids[34])}; leave them out"):
        rows_of(read, read.ids[-8:])


def test_lengths_are_those_of_rows_that_stay(tmp_path: Path) -> None:
    saved("bert", tmp_path / "bert")
    read = reconstructor(Path("bert"), DefinitionRecipe(scale="table"))
    read.rows[-8:] *= 9  # rows that are given up are no model
    rows = rows_of(read, read.ids[-8:])[1]
    assert torch.allclose(rows.norm(dim=1), read.rows[:-8].norm(dim=1).mean().expand(8), rtol=1e-5)


def test_a_row_without_direction_stays_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("bert", tmp_path / "bert")
    read = reconstructor(Path("bert"), DefinitionRecipe(scale="row"))
    original = Reconstructor.predict

    def flat(self: Reconstructor, *given: Any) -> Tensor:
        rows = original(self, *given)
        rows[2] = 0
        return rows

    monkeypatch.setattr(Reconstructor, "predict", flat)
    _, rows, found, _ = rows_of(read, read.ids[-8:])
    assert found["without_direction"] == 1
    assert torch.equal(rows[2], read.rows[-6])


OLD = ("the", "cat", "sat", "on", "mat")
GLOSSES = {word: f"the {word} over a hill by the sea and {place} then" for place, word in enumerate(OLD)}
NEW = {"covid": "a cat that sat on a mat", "blog": "the sea over the hill"}


def lexicon(folder: Path, words: dict[str, str]) -> Path:
    file = folder / "words.tsv"
    file.write_text("".join(f"{word}\t{gloss}\n" for word, gloss in words.items()))
    return file


@pytest.mark.parametrize("kind", ["bert", "roberta", "bart", "t5"])
def test_new_rows_are_the_map_of_old_ones_on_new_definitions(kind: str) -> None:
    source = build(kind, Path("m"))
    before, model_tables = contents(source), find_tables("m")
    words, recipe = Lexicon.of(GLOSSES | NEW), DefinitionRecipe(ridge=3.0, read="states", folds=2, scale="none")
    report = grow("m", list(NEW), Path("n"), init=from_definitions(model_tables, words, recipe, device="cpu"))
    assert report.settings["init"] == "definitions"
    assert contents(source) == before
    ids = torch.arange(30).view(2, 15)
    assert torch.equal(
        logits(source, ids)[..., : report.tokens_before], logits(Path("n"), ids)[..., : report.tokens_before]
    )
    # By hand: least squares on rows and sqrt(penalty) rows of the identity, around the means.
    assert model_tables.tokenizer is not None
    alignment = align(model_tables.tokenizer, words, model_tables.embedding.shape[0], model_tables.special)
    reader = Reconstructor(model_tables, model_tables.embedding, alignment, recipe, "cpu")
    x, y = reader.features.double().numpy(), reader.rows.double().numpy()
    half = x.shape[1] // 2
    spread = [((part - part.mean(0)) ** 2).mean() ** 0.5 for part in (x[:, :half], x[:, half:])]
    scale = np.repeat(spread, half)
    centred = (x - x.mean(0)) / scale
    stacked = np.vstack([centred, np.sqrt(3.0) * np.eye(len(scale))])
    matrix = np.linalg.lstsq(stacked, np.vstack([y - y.mean(0), np.zeros((len(scale), y.shape[1]))]), rcond=None)[0]
    asked = TokenEntry(-1, Surface("covid", "covid", "word"), "exact", (Sense("covid", NEW["covid"]),))
    features = reader.encoder.features(reader.writer.write([asked])).double().numpy()
    wanted = (features - x.mean(0)) / scale @ matrix + y.mean(0)
    table = find_tables("n").embedding.read().double().numpy()
    place = report.tokens_before if len(table) > report.tokens_before else 0
    assert np.abs(table[place] - wanted[0]).max() < 1e-4


def test_a_new_token_without_a_definition_is_named() -> None:
    build("bert", Path("m"))
    words = Lexicon.of(GLOSSES | NEW)
    with pytest.raises(ValueError, match=r"1 new tokens have no definition in the lexicon: 'zebra'; add lines"):
        grow(
            "m",
            ["covid", "zebra"],
            Path("n"),
            init=from_definitions(find_tables("m"), words, DefinitionRecipe(folds=2)),
        )
    with pytest.raises(ValueError, match="no old row to go by"):
        grow("m", ["covid"], Path("n"), init=from_definitions(find_tables("m"), words, DefinitionRecipe(scale="row")))
    assert not Path("n").exists()


def test_a_model_that_reads_one_way_is_refused() -> None:
    build("gpt2", Path("m"))
    with pytest.raises(ValueError, match="no model that reads a definition in both directions"):
        grow(
            "m",
            ["covid"],
            Path("n"),
            init=from_definitions(find_tables("m"), Lexicon.of(GLOSSES | NEW), DefinitionRecipe(folds=2)),
        )


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("bert", Path("m"))
    file = lexicon(tmp_path, GLOSSES | NEW)
    words = ["grow", "m", "covid,blog", "--init", "definitions", "--lexicon", str(file), "--set", "folds=2"]
    with pytest.raises(SystemExit) as ended:
        app([*words, "--out", "n", "--device", "cpu", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert said["settings"]["init"] == "definitions"
    tables = [tensor for path in Path("n").glob("*.safetensors") for tensor in load_file(path).values()]
    assert any(len(tensor) == said["rows_after"] for tensor in tables if tensor.ndim == 2)
    with pytest.raises(SystemExit) as ended:
        app(["grow", "m", "covid", "--lexicon", str(file), "--out", "o"])
    assert ended.value.code == 2
    assert "--init definitions" in " ".join(capsys.readouterr().err.split())
