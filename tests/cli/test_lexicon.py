"""`decone lexicon` from the command line to its report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from decone.repair.alignment.result import LexiconCoverage

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)

TOKENS = ("[UNK]", "ice", "cone", "cones", "##s", "42", "[bold]x[/bold]", "\x1b[31mred", "eis")
HOSTILE = "cone\ta [red]solid[/red] \x1b[31m\n[bold]x[/bold]\tmarkup\n\x1b[31mred\tred\n"
WORDS = f"ice\tfrozen water\nIce\ta drug\n{HOSTILE}lone\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = Tokenizer(models.WordPiece({token: id for id, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[UNK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 10}')
    save_file({"embeddings.word_embeddings.weight": torch.randn(10, 4)}, folder / "model.safetensors")
    (tmp_path / "words.tsv").write_text(WORDS)
    return Path("model")


def test_the_report_in_a_terminal(decone: Decone, model: Path) -> None:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code, out, err = decone("lexicon", "model", "words.tsv")
    assert (code, err) == (0, "")
    assert "4 of 10 tokens have a definition, 2 of them whole words" in out
    assert "words.tsv: tsv, 5 senses, not stated; left out 1 wrong number of columns" in out
    assert "a [red]solid[/red]" in out
    assert "[bold]x[/bold]" in out
    assert "\x1b" not in out  # shown, not obeyed
    assert "4 tokens have none and stay as they are: cones, eis" in out
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_the_report_as_data(decone: Decone, model: Path) -> None:
    Path("more.jsonl").write_text('{"word": "Eis", "lang_code": "de", "senses": [{"glosses": ["Wasser"]}]}\n')
    Path("counts.tsv").write_text("ice\t5\ncone\t3\n")
    ways = ("--inflections", "--numbers", "--pieces", "--senses", "first", "--language", "de")
    code, out, err = decone(
        "lexicon", "model", "words.tsv", "more.jsonl", *ways, "--counts", "counts.tsv", "--json", "--out", "c.json"
    )
    assert (code, err) == (0, "the report is c.json\n")
    report = LexiconCoverage.model_validate_json(out)
    assert report == LexiconCoverage.model_validate_json(Path("c.json").read_text())
    assert json.loads(out)["schema"] == "decone.lexicon/1"
    assert report.matches == {"exact": 4, "normalised": 1, "inflection": 1, "number": 1}
    assert report.senses == report.covered == 7
    assert [source.senses for source in report.sources] == [5, 1]
    assert report.groups is not None
    assert sum(share.tokens for share in report.groups.values()) == 8
    assert report.missing.tokens == ["##s"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nowhere/at/all", "words.tsv"), "nowhere/at/all"),
        (("model", "absent.tsv"), "no file absent.tsv"),
        (("model", "words.tsv", "--format", "xml"), "there is no format 'xml'; choose one of auto, oewn"),
        (("model", "words.tsv", "--format", "oewn"), "words.tsv, line 1: the columns are"),
        (("model", "words.tsv", "--case", "lower"), "case cannot be 'lower'; choose one of auto, exact, fold"),
        (("model", "words.tsv", "--senses", "2"), "senses cannot be '2'; choose one of all, first"),
        (("model", "words.tsv", "--forms", "drop"), "--forms 'drop' is not one of follow, keep, skip"),
        (("model", "words.tsv", "--counts", "absent"), "no file absent"),
        (("model", "words.tsv", "--out", "absent/c.json"), "cannot write absent/c.json"),
        (("model", "words.tsv", "--out", "model"), "cannot write model"),
        (("model", "german.tsv"), "none of the lexicon's 1 senses defines one of the 10 tokens, such as 'ice'"),
        (("model/model.safetensors", "words.tsv"), "has no tokenizer to align a lexicon with"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], sentence: str, decone: Decone, model: Path) -> None:
    Path("german.tsv").write_text("Kegel\tein Körper\n")
    entries = sorted(Path().rglob("*"))
    code, out, err = decone("lexicon", *arguments, "--quiet")
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.startswith("decone: ")
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == entries  # nothing is left behind
