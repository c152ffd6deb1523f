"""Tasks of GLUE: a fresh head that the seed alone decides, vectors of sentences, the registry of all tasks."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from tests.training.tiny import bert, pairs
from torch.nn import functional as F

from decone.training import tasks as package
from decone.training.tasks import FinetuneTask, suite_tasks, tasks
from decone.training.tasks.glue import TASKS, load_classifier, sentence_vectors, similarity_correlation


def test_the_seed_decides_the_head_whatever_the_table(tmp_path: Path) -> None:
    first, second = bert(tmp_path / "a"), bert(tmp_path / "b", seed=1)
    one, other = (load_classifier(str(folder), 3, 7)[0] for folder in (first, second))
    assert one.classifier.weight.shape == (3, 16)
    assert torch.equal(one.classifier.weight, other.classifier.weight)
    assert not torch.equal(one.bert.embeddings.word_embeddings.weight, other.bert.embeddings.word_embeddings.weight)
    assert not torch.equal(one.classifier.weight, load_classifier(str(first), 3, 8)[0].classifier.weight)
    stored = load_file(first / "model.safetensors")
    assert torch.equal(one.bert.embeddings.word_embeddings.weight, stored["embeddings.word_embeddings.weight"])


def test_a_head_of_another_task_is_refused(tmp_path: Path) -> None:
    folder = bert(tmp_path / "a", head=True)
    for outputs in (2, 3):
        with pytest.raises(ValueError, match="has a head for another task already; name the pretrained model"):
            load_classifier(str(folder), outputs, 1)


def test_what_is_no_whole_model_is_refused(tmp_path: Path) -> None:
    folder = bert(tmp_path / "a")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights, e\.g\. bert\.encoder\.layer\.0\.output\.dense\.weight"):
        load_classifier(str(folder), 2, 1)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"cannot load .* to be fine-tuned: "):
        load_classifier(str(folder), 2, 1)
    with pytest.raises(ValueError, match="cannot load nowhere to be fine-tuned: "):
        load_classifier("nowhere", 2, 1)


NAMES = [task.name for task in TASKS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("tiny") / "model")


def test_vectors_are_means_without_padding(model: Path) -> None:
    network, tokenizer = load_classifier(str(model), 1, 0)
    encoder = network.base_model.eval()
    sentences = ["the film was good", "it ends", "a very very very bad plot and then it ends"]
    found = sentence_vectors(encoder, tokenizer, sentences, 32)
    for sentence, row in zip(sentences, found, strict=True):
        with torch.no_grad():
            hidden = encoder(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
        assert torch.allclose(row, hidden.mean(0), atol=1e-5)
    short = sentence_vectors(encoder, tokenizer, sentences[2:], 8)
    assert not torch.allclose(short[0], found[2], atol=1e-3), "what is longer is cut"


def test_the_correlation_is_that_of_single_pairs(model: Path) -> None:
    network, tokenizer = load_classifier(str(model), 1, 0)
    encoder = network.base_model.train()
    examples = pairs(30)
    found = similarity_correlation(encoder, tokenizer, examples, 32)
    assert encoder.training, "its mode is as before"
    encoder.eval()
    cosines = []
    for pair in examples:
        with torch.no_grad():
            one, other = (
                encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
                for text in (pair.first, pair.second)
            )
        cosines.append(float(F.cosine_similarity(one, other, dim=0)))
    assert found == pytest.approx(spearmanr(cosines, [pair.label for pair in examples]).statistic, abs=0.01)


def test_every_task_is_found_by_its_file() -> None:
    assert set(tasks()) >= {*NAMES, "dialogsum", "cnn_dailymail"}
    for name, task in tasks().items():
        assert isinstance(task, FinetuneTask)
        config = task.build({"model": "m", "task": "another"})
        assert config.task == name == task.name
        assert task.headings


QNLI = """
from decone.data.published import Published
from decone.metrics.statistics import accuracy
from decone.training.tasks.glue import GlueTask

FILE = Published("glue/QNLI/{split}.tsv", None, "0" * 64)
MEASURES = {"accuracy": ("QNLI acc", accuracy)}
TASKS = (GlueTask("QNLI", FILE, FILE, (1, 2, 3), 4, MEASURES, classes=("entailment", "not_entailment")),)
"""


def test_a_new_file_is_a_new_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qnli.py").write_text(QNLI)
    monkeypatch.setitem(vars(package), "__path__", [*package.__path__, str(tmp_path)])
    tasks.cache_clear()
    try:
        assert set(suite_tasks("glue")) >= {*NAMES, "QNLI"}
        assert tasks()["QNLI"].headings == {"accuracy": "QNLI acc"}
    finally:
        tasks.cache_clear()
