"""New tokens whose rows come from their definitions, as `decone grow --init definitions` makes them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.repair.checkpoints import contents
from tests.repair.vocabularies import build, logits

from decone.cli.main import app
from decone.data.lexicons import Lexicon, Sense
from decone.models.find_tables import find_tables
from decone.repair.alignment.align import align
from decone.repair.alignment.result import TokenEntry
from decone.repair.alignment.surfaces import Surface
from decone.repair.definitions.fit import Reconstructor
from decone.repair.definitions.rebuild import from_definitions
from decone.repair.definitions.recipe import Recipe
from decone.repair.vocabulary.grow import grow

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
    words, recipe = Lexicon.of(GLOSSES | NEW), Recipe(ridge=3.0, read="states", folds=2, scale="none")
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
        grow("m", ["covid", "zebra"], Path("n"), init=from_definitions(find_tables("m"), words, Recipe(folds=2)))
    with pytest.raises(ValueError, match="no old row to go by"):
        grow("m", ["covid"], Path("n"), init=from_definitions(find_tables("m"), words, Recipe(scale="row")))
    assert not Path("n").exists()


def test_a_model_that_reads_one_way_is_refused() -> None:
    build("gpt2", Path("m"))
    with pytest.raises(ValueError, match="no model that reads a definition in both directions"):
        grow(
            "m",
            ["covid"],
            Path("n"),
            init=from_definitions(find_tables("m"), Lexicon.of(GLOSSES | NEW), Recipe(folds=2)),
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
