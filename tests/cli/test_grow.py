"""`decone grow` from the command line to a model that transformers loads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.repair.checkpoints import contents
from tests.repair.vocabularies import build, loaded, logits

from decone.repair.vocabulary.result import GrowthReport

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)


@pytest.fixture
def model() -> Path:
    return build("gpt2", Path("m"), padding=1)


def test_a_file_of_tokens(decone: Decone, model: Path) -> None:
    Path("t.txt").write_text("covid\nblog\nthe\n")
    Path("text.txt").write_text("the cat sat on the mat, by the sea. " * 5)
    arguments = ("--init", "neighbours", "--neighbours", "3", "--text", "text.txt", "--multiple", "8")
    code, out, err = decone("grow", "m", "t.txt", "--out", "n", *arguments)
    said = " ".join(out.split())
    assert (code, err) == (0, "")
    assert "2 new tokens, 1 of them in rows that were free" in said
    assert "rows 321 → 328" in said
    assert "bit for bit the same" in said
    assert "known already (the)" in said
    assert "lengths of rows" in said
    assert "nearest tokens" in said
    assert "transformer.wte.weight" in said
    ids = torch.arange(30)[None]
    assert torch.equal(logits(model, ids)[..., :320], logits(Path("n"), ids)[..., :320])
    assert loaded(Path("n")).convert_tokens_to_ids(["covid", "blog"]) == [320, 321]


def test_json_and_dry_run(decone: Decone, model: Path) -> None:
    before = contents(Path())
    code, out, _ = decone("grow", "m", "covid,blog", "--dry-run", "--json")
    report = GrowthReport.model_validate_json(out)
    assert code == 0
    assert report.written is None
    assert report.rows_after == 322
    assert contents(Path()) == before
    code, out, _ = decone("grow", "m", "covid,blog", "--dry-run")
    assert code == 0
    assert "a dry run: nothing was written" in out
    assert contents(Path()) == before
    code, out, _ = decone("grow", "m", "covid,blog", "--out", "n", "--json", "--quiet", "--link")
    written = GrowthReport.model_validate_json(out)
    assert written.written is not None
    assert "tokenizer_config.json" in written.written.linked
    assert written.model_copy(update={"written": None, "tables": []}) == report


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("m", "covid"), "say where the new model goes"),
        (("m", "the", "--out", "n"), "no new token"),
        (("m", "absent.txt", "--out", "n"), "no file"),
        (("absent", "covid", "--out", "n"), "there is no"),
        (("m", "covid", "--out", "m"), "own folder"),
        (("m", "covid", "--out", "m/n"), "own folder"),
        (("m", "covid", "--out", "n", "--init", "best"), "take one of pieces, mean, sample, neighbours, definitions"),
        (("m", "empty.txt", "--out", "n"), "empty.txt is empty; write one token per line"),
        (("m", "empty", "--out", "n"), "no file empty, but there is empty.txt; name that, or add a comma"),
        (("m", "covid", "--out", "n", "--special", "some"), "marks"),
        (("m", "covid", "--out", "n", "--text", "absent.txt"), "no file"),
        (("m", "covid", "--dry-run", "--text", "m/config.json"), "leave out --dry-run"),
        (("m", "covid", "--out", "n", "--match", "some"), "anywhere"),
        (("m", "covid", "--out", "n", "--embedding", "no.such"), "no.such"),
    ],
)
def test_mistakes_are_one_sentence(decone: Decone, model: Path, arguments: tuple[str, ...], said: str) -> None:
    Path("empty.txt").write_text(" \n\n")
    before = contents(Path())
    code, out, err = decone("grow", *arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert contents(Path()) == before


def test_strange_tokens_do_not_reach_the_terminal(decone: Decone, model: Path) -> None:
    parts = json.loads((model / "tokenizer.json").read_text())
    code, out, err = decone("grow", "m", "[bold]x,\x1b[31mred,a\u202eb,the,the", "--out", "n")
    assert code == 0
    assert "\x1b" not in out + err
    assert "\u202e" not in out + err
    assert "[bold]x" in out
    assert len(json.loads(Path("n/tokenizer.json").read_text())["added_tokens"]) == len(parts["added_tokens"]) + 3


def test_a_token_that_may_be_a_missing_file_is_named(decone: Decone, model: Path) -> None:
    code, out, _ = decone("grow", "m", "nofile", "--dry-run")
    assert code == 0
    assert "there is no file nofile, so it is the new token itself" in " ".join(out.split())


@pytest.mark.parametrize(("options", "special"), [((), [True, False]), (("--special", "none"), [False, False])])
def test_marks_are_special_unless_asked_otherwise(
    decone: Decone, model: Path, options: tuple[str, ...], special: list[bool]
) -> None:
    decone("grow", "m", "<|im_start|>,covid", "--out", "n", *options)
    added = json.loads(Path("n/tokenizer.json").read_text())["added_tokens"][-2:]
    assert [(token["content"], token["special"]) for token in added] == list(
        zip(["<|im_start|>", "covid"], special, strict=True)
    )


@pytest.mark.parametrize(("options", "name"), [((), " covid"), (("--literal",), "Ġcovid")])
def test_a_literal_mark_is_an_option(decone: Decone, model: Path, options: tuple[str, ...], name: str) -> None:
    _, out, _ = decone("grow", "m", "Ġcovid", "--dry-run", "--json", *options)
    assert [token.token for token in GrowthReport.model_validate_json(out).tokens] == [name]
