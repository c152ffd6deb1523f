"""`decone trim` from the command line to a model that transformers loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.repair.checkpoints import contents
from tests.repair.vocabularies import build, loaded, logits

from decone.repair.vocabulary.result import TrimReport

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)


@pytest.fixture
def model() -> Path:
    Path("one.txt").write_text("the cat sat on the mat\n")
    Path("two.txt").write_text("by the sea\n")
    return build("llama", Path("m"), padding=2)


def test_two_texts(decone: Decone, model: Path) -> None:
    code, out, err = decone("trim", "m", "--text", "one.txt", "--text", "two.txt", "--out", "n")
    said = " ".join(out.split())
    assert (code, err) == (0, "")
    assert "tokens 400 →" in said
    assert "rows 402 →" in said
    assert "tokens of text are cut as before" in said
    assert "alphabet 256" in said
    assert "go, among others" in said
    old = load_file("n/decone/ids.safetensors")["old"]
    ids = torch.arange(30)[None]
    assert torch.equal(logits(model, old[ids])[..., old], logits(Path("n"), ids))
    for text in ("the cat sat on the mat", "by the sea"):
        assert old[loaded(Path("n"))(text)["input_ids"]].tolist() == loaded(model)(text)["input_ids"]


def test_json_and_dry_run(decone: Decone, model: Path) -> None:
    before = contents(Path())
    code, out, _ = decone("trim", "m", "--text", "one.txt", "--min-count", "2", "--dry-run", "--json")
    report = TrimReport.model_validate_json(out)
    assert code == 0
    assert report.written is None
    assert report.settings["min_count"] == 2
    assert contents(Path()) == before
    code, out, _ = decone("trim", "m", "--unreachable", "--dry-run")
    assert code == 0
    assert "a dry run: nothing was written" in out
    assert contents(Path()) == before
    code, out, _ = decone("trim", "m", "--keep", "one.txt", "--dry-run")
    assert code == 2
    Path("keep.txt").write_text("▁the\n▁cat\n")
    code, out, _ = decone("trim", "m", "--keep", "keep.txt", "--out", "n", "--json", "--quiet", "--link")
    written = TrimReport.model_validate_json(out)
    assert code == 0
    assert written.written is not None
    assert written.retained["listed"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("m", "--text", "one.txt"), "say where the new model goes"),
        (("m", "--out", "n"), "say what stays"),
        (("m", "--text", "one.txt", "--unreachable", "--out", "n"), "leave out --text and --keep"),
        (("m", "--unreachable", "--min-count", "3", "--out", "n"), "add --text"),
        (("m", "--text", "absent.txt", "--out", "n"), "no file"),
        (("absent", "--text", "one.txt", "--out", "n"), "there is no"),
        (("m", "--keep", "empty.txt", "--out", "n"), "empty.txt is empty; write one token per line"),
        (("m", "--text", "one.txt", "--out", "m"), "own folder"),
        (("m", "--text", "one.txt", "--out", "m/n"), "own folder"),
        (("m", "--keep", "one.txt", "--out", "n"), "that the vocabulary lacks"),
        (("m", "--text", "one.txt", "--out", "n", "--leave", "odd"), "no tensor"),
    ],
)
def test_mistakes_are_one_sentence(decone: Decone, model: Path, arguments: tuple[str, ...], said: str) -> None:
    Path("empty.txt").write_text("\n")
    before = contents(Path())
    code, out, err = decone("trim", *arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert contents(Path()) == before
