"""Runs and evaluations as functions: models of ours and of transformers, against numbers made another way."""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from decone.diagnosis.evaluate import evaluate
from decone.metrics.table_geometry import isotropy
from decone.training.config import RunConfig
from decone.training.loop import Trainer
from decone.training.run import Run
from decone.training.session import train

Build = Callable[..., RunConfig]


def test_a_run_of_ours(build: Build, text: Path) -> None:
    config = build(steps=5)
    Trainer(config, Run.create(Path("run"), config)).train()
    part = text.read_text()[:500]
    Path("part.txt").write_text(part)
    found = evaluate("run", Path("part.txt"), batch=3, device="cpu").to_dict()
    assert (found["model"], found["text"], found["tokens"]) == ("run", "part.txt", 500)
    assert found["frequencies"]["source"] == "training"
    assert 0 <= found["alignment"] <= 1
    run = Run.open(Path("run"))
    model, tokenizer = run.model(), run.tokenizer()
    assert tokenizer is not None
    ids = tokenizer.encode(part)
    windows = (499 // 16) // 3 * 3
    for name, offset in (("HR", 0), ("LR", tokenizer.size)):
        total = 0.0
        for index in range(windows):
            window = ids[index * 16 : index * 16 + 17] + offset
            total += float(F.cross_entropy(model.logits(window[None, :-1])[0].double(), window[1:], reduction="sum"))
        mean = total / (windows * 16)
        scores = found["languages"][name]
        assert scores["count"] == windows * 16
        assert scores["perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
        assert scores["bits_per_byte"] == pytest.approx(mean / math.log(2), rel=1e-5), "a byte is a token here"
        assert sum(group["count"] for group in scores["groups"].values()) == windows * 16


def test_a_model_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*"abcdefgh ", "\n", "ä", "<unk>"]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained("gpt2")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(words), n_positions=8, n_embd=12, n_layer=1, n_head=2, initializer_range=0.5
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained("gpt2", safe_serialization=True)
    text = "abc abc\nfade ähe\n" * 12
    Path("text.txt").write_text(text, encoding="utf-8")
    found = evaluate("gpt2", Path("text.txt"), batch=4, device="cpu").to_dict()
    assert list(found["languages"]) == ["all"]
    assert "alignment" not in found
    ids = torch.tensor([words.index(character) for character in text])
    windows, total, hits = ((len(ids) - 1) // 8) // 4 * 4, 0.0, 0
    for index in range(windows):
        window = ids[index * 8 : index * 8 + 9]
        with torch.no_grad():
            logprob = model(input_ids=window[None, :-1]).logits[0].double().log_softmax(-1)
        total -= float(logprob[torch.arange(8), window[1:]].sum())
        hits += int((logprob.argmax(-1) == window[1:]).sum())
    scores = found["languages"]["all"]
    assert (found["tokens"], scores["count"]) == (len(text), windows * 8)
    assert scores["perplexity"] == pytest.approx(math.exp(total / (windows * 8)), rel=1e-5)
    assert scores["accuracy"] == hits / (windows * 8)
    bytes_per_token = len(text.encode()) / len(text)
    assert bytes_per_token > 1
    assert scores["bits_per_byte"] == pytest.approx(total / (windows * 8) / math.log(2) / bytes_per_token, rel=1e-5)
    assert scores["isotropy"] == isotropy(model.lm_head.weight.detach())._asdict()


@pytest.mark.parametrize(
    ("model", "content", "message"),
    [
        ("run", "the cat", "text.txt has 7 tokens, one window needs 17; give a longer text"),
        ("run", "the cat " * 9 + "Ω", r"characters the tokenizer does not know, e\.g\. \['Ω'\]"),
        ("run", "", "text.txt is empty"),
        ("run", None, "no file text.txt"),
        ("unfinished", "the cat " * 9, "the run unfinished is not done; finish it with: decone train --resume"),
        ("empty", "the cat " * 9, "empty holds neither a decone run"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(model: str, content: str | None, message: str, build: Build) -> None:
    config = build(steps=1)
    if model == "run":
        Trainer(config, Run.create(Path("run"), config)).train()
    Run.create(Path("unfinished"), config)
    Path("empty").mkdir()
    if content is not None:
        Path("text.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        evaluate(model, Path("text.txt"), device="cpu")
    assert "\n" not in str(error.value)


def test_a_device_that_is_not_here_is_refused(text: Path) -> None:
    with pytest.raises(ValueError, match="device 'cuda:99' is not available here"):
        evaluate("run", text, device="cuda:99")


def test_a_run_is_trained_continued_and_evaluated(build: Build, text: Path) -> None:
    steps: list[tuple[int, int]] = []
    config = build(steps=5).model_dump(mode="json")
    result = train(config, out="run", seed=3, progress=lambda stage, done, total: steps.append((done, total)))
    assert steps == [(step, 5) for step in range(1, 6)]
    assert (result.seed, result.path) == (3, Path("run"))
    assert json.loads(Path("run/result.json").read_text()) == result.to_dict()
    assert train(resume="run").to_dict() == result.to_dict(), "a finished run is only read"
    assert train(build(steps=5, seed=3), out="run").to_dict() == result.to_dict()
    with pytest.raises(ValueError, match="run holds a run of another configuration"):
        train(config, out="run", settings={"optimizer.lr": 0.5})
    with pytest.raises(ValueError, match="name the folder of the run with --out"):
        train(config)
    assert evaluate(result, text, device="cpu").to_dict() == evaluate("run", text, device="cpu").to_dict()


def test_a_notebook_may_train_in_a_thread(build: Build) -> None:
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(train, build(steps=2), out="run").result()
    assert result.path == Path("run")
    assert sorted(result.scores) == ["HR", "LR"]


def test_what_a_kill_after_the_result_leaves_goes_when_the_run_is_read(build: Build) -> None:
    result = train(build(steps=2), out="run")
    Path("run/run.lock").write_text("1 elsewhere\n")
    Path("run/.result.json.1@elsewhere.writing").touch()
    assert train(resume="run").to_dict() == result.to_dict()
    assert not [path.name for path in Path("run").iterdir() if path.name.endswith((".lock", ".writing"))]
