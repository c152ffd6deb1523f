"""`decone eval`: a model of ours or of transformers on a text, for people and for programs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from decone.diagnosis.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("tiny")

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)


def test_a_run_of_ours(decone: Decone) -> None:
    assert decone("train", "tiny.toml", "--out", "run").code == 0
    code, out, err = decone("eval", "run", "--text", "tiny.txt", "--device", "cpu")
    assert (code, err) == (0, "")
    wanted = evaluate("run", Path("tiny.txt"), device="cpu").to_dict()
    for name, scores in wanted["languages"].items():
        numbers = [f"{scores[key]:.2f}" for key in ("perplexity", "best_perplexity", "best_temperature")]
        line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
        assert line.split()[1:5] == [*numbers, f"{scores['bits_per_byte']:.3f}"]
    assert "run on tiny.txt, 3000 tokens" in out
    assert "alignment:" in out
    code, out, err = decone("eval", "run", "--text", "tiny.txt", "--batch", "5", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(json.dumps(evaluate("run", Path("tiny.txt"), batch=5).to_dict()))


def test_a_model_of_transformers(decone: Decone) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*sorted(set(Path("tiny.txt").read_text())), "<unk>"]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained("gpt2")
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(vocab_size=len(words), n_positions=16, n_embd=8, n_layer=1, n_head=2, **ends)
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained("gpt2", safe_serialization=True)
    code, out, err = decone("eval", "gpt2", "--text", "tiny.txt", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    ids = torch.tensor([words.index(character) for character in Path("tiny.txt").read_text()])
    count = (2999 // 16) // 12 * 12
    windows = torch.stack([ids[16 * index : 16 * index + 17] for index in range(count)])
    with torch.no_grad():
        logprob = model(input_ids=windows[:, :-1]).logits.double().log_softmax(-1)
    mean = -logprob.gather(2, windows[:, 1:, None]).mean()
    scores = found["languages"]["all"]
    assert scores["perplexity"] == pytest.approx(float(mean.exp()), rel=1e-5)
    assert scores["count"] == count * 16
    assert found["tokens"] == 3000
    code, out, err = decone("eval", "gpt2", "--text", "tiny.txt")
    assert (code, err) == (0, "")
    assert f"{scores['perplexity']:.2f}" in out
    assert "alignment" not in out
