"""`decone scan` from the command line to the files it writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from decone.diagnosis.result import ScanResult

pytestmark = pytest.mark.usefixtures("tiny")

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)


@pytest.fixture
def run(decone: Decone, tiny: Path) -> Path:
    assert decone("train", "tiny.toml", "--out", "run", "--quiet").code == 0
    return Path("run")


def read(folder: Path | str) -> ScanResult:
    return ScanResult.model_validate_json((Path(folder) / "scan.json").read_text())


def test_weights_only(decone: Decone, run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, out, err = decone("scan", "run", "--out", "scan")
    assert code == 0
    assert err == "the page is scan/report.html\n"
    assert "rows" in out.lower()
    assert "effective rank" in out
    result = read("scan")
    assert (result.model.kind, result.model.family, result.model.tied) == ("run", "decone", True)
    assert result.frequencies.source in ("training", "merges", "none")
    assert result.behaviour is None
    assert result.model.rows == len(load_file(run / "model.safetensors")["embedding.weight"])
    page = Path("scan/report.html").read_text()
    assert "Content-Security-Policy" in page
    assert "http://" not in page.split("<script>")[0]
    assert Path("scan/card.md").read_text().startswith("## Embedding health\n")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before  # nothing is changed
    assert decone("scan", "run", "--json").code == 0
    assert Path("runs/scan-run/report.html").exists()


def test_everything_at_once(decone: Decone, run: Path) -> None:
    Path("pairs.tsv").write_text("cat\tdog\t8\nsea\thill\t3\non\tby\t4\nmat\thome\t2\n")
    torch.manual_seed(1)
    tensors = load_file(run / "model.safetensors")
    tensors["embedding.weight"] += 0.1 * torch.randn_like(tensors["embedding.weight"])
    other = Path("other")
    other.mkdir()
    save_file(tensors, other / "model.safetensors")
    for name in ("config.toml", "tokenizer.json"):
        (other / name).write_bytes((run / name).read_bytes())
    words = ("--words", "pairs.tsv", "--prompts", "2", "--limit", "400")
    code, out, _ = decone(
        "scan", "run", "--text", "tiny.txt", "--blame", "--against", "other", *words, "--out", "o", "--json"
    )
    assert code == 0
    result = ScanResult.model_validate(json.loads(out))
    assert result == read("o")
    assert result.behaviour
    assert result.behaviour.tokens <= 400
    assert result.frequencies.source == "training"  # a run keeps its counts
    assert result.blame
    assert result.against
    assert result.against.reference == "other"
    assert [(found.pairs, found.used) for found in result.words] == [(4, 4)]
    codes = {finding.code for finding in result.findings}
    assert {"cone:embedding", "undertrained", "temperature", "repetition"} <= codes


def test_a_limit_that_is_exceeded_fails(decone: Decone, run: Path) -> None:
    code, out, _ = decone("scan", "run", "--check", "cone=2,padded=0", "--out", "good")
    assert code == 0
    assert "passed" in out
    code, out, err = decone("scan", "run", "--check", "cone=-1", "--out", "bad")
    assert code == 1
    assert "failed" in out
    assert err == "the page is bad/report.html\n"
    assert [check.passed for check in read("bad").checks] == [False]
    code, _, err = decone("scan", "run", "--check", "perplexity=5", "--out", "forgotten")
    assert code == 1  # not measured is not passed


def test_the_schema_is_published(decone: Decone) -> None:
    code, out, err = decone("scan", "--schema")
    schema = json.loads(out)
    assert (code, err) == (0, "")
    assert schema["properties"]["schema"]["const"] == "decone.scan/1"
    assert {"findings", "suspects", "tables"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name a model"),
        (("nowhere/at/all",), "nowhere/at/all"),
        (("run", "--check", "cones=1"), "--check knows no 'cones'"),
        (("run", "--blame"), "--blame needs a text"),
        (("run", "--text", "absent.txt"), "absent.txt"),
        (("run", "--counts", "absent.tsv"), "absent.tsv"),
        (("run", "--words", "absent.tsv"), "absent.tsv"),
        (("run", "--embedding", "nothing"), "nothing"),
        (("run", "--against", "nowhere"), "nowhere"),
        (("run", "--out", "tiny.txt"), "is a file; name a folder"),
        (("tiny.txt",), "tiny.txt"),
        (("truncated",), "truncated"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], sentence: str, decone: Decone, run: Path) -> None:
    broken = Path("truncated")
    broken.mkdir()
    for name in ("config.toml", "tokenizer.json"):
        (broken / name).write_bytes((run / name).read_bytes())
    (broken / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:-100])
    entries = sorted(Path().rglob("*"))
    code, out, err = decone("scan", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.startswith("decone: ")
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == entries  # nothing is left behind


def test_a_strangers_tokens_are_shown_and_not_obeyed(decone: Decone) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    hostile = ["<script>alert(1)</script>", '"onload=alert(1) x="', "\x1b[31mred", "\u202ereversed", "[bold]x[/bold]"]
    hostile += ["`; decone", "</script><img src=x onerror=alert(1)>", "a" * 10_000_000, "\u200b", "| cell |", "\x07"]
    words = [*hostile, *(f"w{index}" for index in range(60))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = Path("stranger")
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": "gpt2", "vocab_size": len(words), "n_embd": 8, "architectures": ["GPT2LMHeadModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    weight = torch.randn(len(words), 8)
    weight[: len(hostile)] = 0  # all of them are suspects
    save_file({"wte.weight": weight}, folder / "model.safetensors")
    code, out, err = decone("scan", "stranger", "--out", "o")
    assert code == 0
    assert "\x1b" not in out + err
    assert "\u202e" not in out
    assert "\x07" not in out
    assert "<script>" in out
    page, card = Path("o/report.html").read_text(), Path("o/card.md").read_text()
    for text in (page, card):
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "a" * 1000 not in text
    assert "\x1b" not in Path("o/scan.json").read_text()
    found = read("o")
    listed = {suspect.id for suspect in found.suspects}.union(*(row.ids for row in found.rows))
    assert set(range(len(hostile))) <= listed


def test_a_pickle_is_refused_with_the_reason(decone: Decone) -> None:
    folder = Path("pickled")
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    torch.save({"wte.weight": torch.randn(4, 4)}, folder / "pytorch_model.bin")
    code, out, err = decone("scan", "pickled")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "safetensors" in err
