"""Sentence vectors are means of hidden states, whatever stands beside them in a batch."""

from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from tests.training.finetuning.tiny import bert, pairs
from torch.nn import functional as F

from decone.training.finetuning.pretrained import load_classifier
from decone.training.finetuning.sentences import similarity_correlation, vectors


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("tiny") / "model")


def test_vectors_are_means_without_padding(model: Path) -> None:
    network, tokenizer = load_classifier(str(model), 1, 0)
    encoder = network.base_model.eval()
    sentences = ["the film was good", "it ends", "a very very very bad plot and then it ends"]
    found = vectors(encoder, tokenizer, sentences, 32)
    for sentence, row in zip(sentences, found, strict=True):
        with torch.no_grad():
            hidden = encoder(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
        assert torch.allclose(row, hidden.mean(0), atol=1e-5)
    short = vectors(encoder, tokenizer, sentences[2:], 8)
    assert not torch.allclose(short[0], found[2], atol=1e-3), "what is longer is cut"


def test_the_correlation_is_that_of_single_pairs(model: Path) -> None:
    network, tokenizer = load_classifier(str(model), 1, 0)
    encoder = network.base_model.train()
    given = pairs(30)
    found = similarity_correlation(encoder, tokenizer, given, 32)
    assert encoder.training, "its mode is as before"
    encoder.eval()
    cosines = []
    for pair in given:
        with torch.no_grad():
            one, other = (
                encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
                for text in (pair.first, pair.second)
            )
        cosines.append(float(F.cosine_similarity(one, other, dim=0)))
    assert found == pytest.approx(spearmanr(cosines, [pair.label for pair in given]).statistic, abs=0.01)
