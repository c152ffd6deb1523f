"""Loading: a fresh head that the seed alone decides, nothing else random, nothing pickled."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.training.finetuning.tiny import bert

from decone.training.finetuning.pretrained import load_classifier


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
