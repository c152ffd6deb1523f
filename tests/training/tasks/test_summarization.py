"""Summaries: the loss is that of transformers, a tiny model learns to write, one that copies its target scores 1."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.tiny import bart, bert, gpt2, t5, texts
from torch import Tensor

from decone.training.finetuning import finetune
from decone.training.tasks.summarization import Summarization, SummaryConfig, load_encoder_decoder


def config(**values: Any) -> SummaryConfig:
    settings = {"model": "tiny", "task": "TINY", "lr": 1e-2, "batch": 16, "seed": 5, "length": 32, "target": 16}
    return SummaryConfig.build({**settings, "beams": 2, "longest": 5, **values})


def learner(folder: Path, count: int = 40, **values: Any) -> Summarization:
    settings = config(**values)
    network, tokenizer = load_encoder_decoder(str(folder), 64)
    return Summarization(network, tokenizer, texts(count), texts(12, seed=1), settings)


@pytest.fixture(scope="module", params=[bart, t5])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = request.param(tmp_path_factory.mktemp("tiny") / "model")
    return made


def test_the_loss_is_teacher_forcing(model: Path) -> None:
    """Of all pairs at once it is the mean over tokens that transformers gives; parts of a batch add up to it."""
    one = learner(model)
    one.model.eval()
    pairs = texts(40)
    inputs = one.tokenizer([pair.document for pair in pairs], padding=True, return_tensors="pt")
    labels = one.tokenizer([pair.summary for pair in pairs], padding=True, return_tensors="pt")["input_ids"]
    labels[labels == 0] = -100
    with torch.no_grad():
        taken = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        whole = one.model(**taken, labels=labels).loss
        assert float(one.loss(range(40))) == pytest.approx(float(whole), rel=1e-5)
        parts = [one.loss(range(0, 30)) * 30, one.loss(range(30, 40)) * 10]
    assert float(sum(parts)) / 40 == pytest.approx(float(whole), rel=1e-5)


def test_smoothing_gives_a_share_to_all_tokens() -> None:
    folder = bart(Path("model"))
    plain, smooth = learner(folder), learner(folder, smoothing=0.25)
    uniform = learner(folder, smoothing=0.999999)
    with torch.no_grad():
        losses = [float(one.loss(range(40))) for one in (plain, smooth, uniform)]
    assert losses[1] == pytest.approx(0.75 * losses[0] + 0.25 * losses[2], rel=1e-4)


def test_a_tiny_model_learns_to_write() -> None:
    one = learner(bart(Path("model"), width=32), 320, epochs=6, lr=3e-3)
    Path("log").mkdir()
    epochs = finetune(one, one.config, Path("log"), "cpu", lambda: False)
    assert epochs[-1]["loss"] < 0.3 * epochs[0]["loss"]
    first, last = (epoch["measured"] for epoch in (epochs[0], epochs[-1]))
    assert set(last) == {"rouge1", "rouge2", "rougeL"}
    assert last["rouge1"] > max(0.6, first["rouge1"])


def test_a_model_that_copies_its_target_scores_one(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the tokenizer there and back, and each summary at the place of its own document."""
    one = learner(model)
    wanted = {pair.document: pair.summary for pair in texts(12, seed=1)}

    def copied(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        documents = one.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        summaries = [wanted[document] for document in documents]
        tokens: Tensor = one.tokenizer(summaries, padding=True, return_tensors="pt")["input_ids"]
        return tokens

    monkeypatch.setattr(one.model, "generate", copied)
    assert one.measure() == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}


def test_lengths_of_what_is_written_are_settings(model: Path) -> None:
    for shortest, longest in ((7, 7), (3, 20), (0, 1)):
        one = learner(model, shortest=shortest, longest=longest, beams=3)
        one.model.eval()
        with torch.inference_mode():
            found = one.model.generate(**one.padded(one.dev))  # type: ignore[operator]
            alone = one.write()
        start = one.model.generation_config.decoder_start_token_id  # type: ignore[union-attr]
        assert set(found[:, 0].tolist()) == {start}
        assert shortest <= found.shape[1] - 1 <= longest
        together = one.tokenizer.batch_decode(found, skip_special_tokens=True)
        assert alone == [text.strip() for text in together], "batches are put back in order"


def test_what_a_folder_says_of_decoding_does_not_count() -> None:
    """Neither in its own file nor, as in older folders, in config.json."""
    for name in ("generation_config.json", "config.json"):
        path = bart(Path(name.split(".")[0])) / name
        asked = {"num_beams": 7, "no_repeat_ngram_size": 3, "max_length": 9, "length_penalty": 2.0}
        path.write_text(json.dumps({**json.loads(path.read_text()), **asked}))
        if name == "config.json":
            path.with_name("generation_config.json").unlink()
        one = learner(path.parent, beams=1)
        assert len(one.write()) == 12
        kept: Any = one.model.generation_config
        assert (kept.num_beams, kept.no_repeat_ngram_size, kept.length_penalty, kept.max_new_tokens) == (1, 0, 1.0, 5)
        assert (kept.eos_token_id, kept.forced_eos_token_id, kept.decoder_start_token_id) == (3, 3, 3)


def test_a_prefix_and_cuts() -> None:
    folder = bart(Path("model"))
    plain, told = learner(folder), learner(folder, prefix="the film", length=8, target=3)
    words = plain.train[0]["input_ids"]
    the, film = told.tokenizer.convert_tokens_to_ids(["the", "film"])
    assert told.train[0]["input_ids"] == [*([2, the, film, *words[1:-1]][:7]), 3]
    assert {len(target) for target in told.targets} == {3}
    assert all(target[-1] == 3 for target in told.targets)


def test_other_models_are_refused_in_a_sentence() -> None:
    for make, kind in ((bert, "bert"), (gpt2, "gpt2")):
        folder = make(Path(kind))
        with pytest.raises(ValueError, match=rf"^{kind} is no encoder-decoder \(its type is {kind}\), so .* or T5$"):
            load_encoder_decoder(str(folder), 16)
    with pytest.raises(ValueError, match=r"takes 64 tokens at most, not 512; .* --set length=64"):
        load_encoder_decoder(str(bart(Path("bart"))), 512)
    with pytest.raises(ValueError, match="does not say what its decoder starts with"):
        load_encoder_decoder(str(t5(Path("t5"), decoder_start_token_id=None)), 512)
    with pytest.raises(ValueError, match="cannot load nowhere to be fine-tuned: "):
        load_encoder_decoder("nowhere", 16)


def test_a_shortest_above_the_longest_is_refused() -> None:
    for values in ({"shortest": 6}, {"shortest": 200, "longest": 100}):
        with pytest.raises(ValueError, match=r"longest = \d+ is below shortest = \d+; raise it, or lower shortest"):
            config(**values)
