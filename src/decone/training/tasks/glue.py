"""Five tasks of GLUE: a classifier, or a regression of scores, on sentences and pairs of them.

Wang et al. 2018 (gluebenchmark.com); CoLA is measured by Matthews' correlation, MRPC by F1 and accuracy, STS-B by
correlations, the others by accuracy, all on the development set after the last epoch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from decone.data import glue
from decone.metrics.benchmark import accuracy, correlations, f1, matthews
from decone.training.finetuning import FinetuneConfig, batch_count, finetune, length_batches, shuffled_batches
from decone.training.tasks import LOADER, FinetuneTask, load_model

HEADS = ("classifier", "classification_head", "score")
CLASSIFIERS = replace(LOADER, may_lack=(*HEADS, "pooler"))  # modules that a pretrained model need not have
SENTENCES = 64  # sentences encoded at once

MeasureFunction = Callable[[NDArray[Any], NDArray[Any]], float]  # of answers and labels


class GlueTask(FinetuneTask):
    """A task of GLUE.

    Args:
        source: its files, columns and labels.
        measures: heading and function of every measure, by its key.
        similarity: heading of Spearman's correlation of cosines of sentence vectors before fine-tuning, which an
            encoder can answer without a head; None for tasks that are no similarity of pairs.
    """

    suite: ClassVar[str] = "glue"

    def __init__(
        self, source: glue.Task, measures: Mapping[str, tuple[str, MeasureFunction]], similarity: str | None = None
    ) -> None:
        self.name, self.source, self.measures, self.untuned_heading = source.name, source, measures, similarity
        self.headings = {key: heading for key, (heading, _) in measures.items()}

    def count(self, config: FinetuneConfig) -> int:
        """Number of training examples; ValueError where a file cannot be had."""
        glue.load(self.source, "dev")
        return len(self._training_examples(config))

    def run(
        self, config: FinetuneConfig, model: str, folder: Path, device: str, stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Fine-tunes a model with a fresh head; see `FinetuneTask.run`."""
        train, dev = self._training_examples(config), glue.load(self.source, "dev")
        network, tokenizer = load_classifier(model, self.source.outputs, config.seed)
        untuned = None
        if self.untuned_heading is not None and not network.config.is_encoder_decoder:
            untuned = similarity_correlation(network.base_model, tokenizer, dev, config.length)
        learner = Classification(network, tokenizer, self, train, dev, config)
        epochs = finetune(learner, config, folder, device, stop)
        return {"epochs": epochs, "untuned": untuned, "examples": {"train": len(train), "dev": len(dev)}}

    def score(self, logits: Float[Tensor, "N C"], labels: Sequence[int | float]) -> dict[str, float]:
        """Measures of the answers of a model to examples with these labels.

        Example:
            >>> rte = next(task for task in TASKS if task.name == "RTE")
            >>> rte.score(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [0, 0])
            {'accuracy': 0.5}
        """
        answers: NDArray[Any]
        if self.source.classes:
            answers, truth = logits.argmax(1).numpy(), np.array(labels, dtype=np.int64)
        else:
            answers, truth = logits.squeeze(1).double().numpy(), np.array(labels, dtype=np.float64)
        return {key: function(answers, truth) for key, (_, function) in self.measures.items()}

    def _training_examples(self, config: FinetuneConfig) -> list[glue.Example]:
        examples = glue.load(self.source, "train")
        return examples[: config.examples] if config.examples else examples


class Classification:
    """A classifier with the examples of a task, as the loop trains it; it gives `logits` for token ids."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        task: GlueTask,
        train: Sequence[glue.Example],
        dev: Sequence[glue.Example],
        config: FinetuneConfig,
    ) -> None:
        self.model, self.tokenizer, self.task, self.config = model, tokenizer, task, config
        self.train = [self._encode(example) for example in train]
        self.dev = [self._encode(example) for example in dev]
        self.labels = [example.label for example in train]
        self.dev_labels = [example.label for example in dev]

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return batch_count(len(self.train), self.config.batch)

    def batches(self, epoch: int) -> Iterable[Sequence[int]]:
        """Examples of similar length together; the seed and the epoch decide the order."""
        return shuffled_batches(_lengths(self.train), self.config.batch, (self.config.seed, epoch))

    def loss(self, indices: Sequence[int]) -> Tensor:
        """Cross-entropy of classes, or the squared error of scores."""
        logits = self._logits([self.train[index] for index in indices])
        labels = torch.tensor([self.labels[index] for index in indices], device=logits.device)
        if self.task.source.classes:
            return F.cross_entropy(logits, labels)
        return F.mse_loss(logits.squeeze(1), labels.float())

    def measure(self) -> dict[str, float]:
        """Measures of the task on the development set."""
        rows = torch.empty(len(self.dev), self.task.source.outputs)
        # Twice the training batch fits: no activations are kept for backward.
        for indices in length_batches(_lengths(self.dev), 2 * self.config.batch):
            rows[indices] = self._logits([self.dev[index] for index in indices]).cpu()
        return self.task.score(rows, self.dev_labels)

    def _encode(self, example: glue.Example) -> dict[str, list[int]]:
        pair = () if example.second is None else (example.second,)
        encoding: Any = self.tokenizer(example.first, *pair, truncation=True, max_length=self.config.length)
        return dict(encoding)

    def _logits(self, encoded: Sequence[dict[str, list[int]]]) -> Float[Tensor, "B C"]:
        device = next(self.model.parameters()).device
        inputs = self.tokenizer.pad(list(encoded), return_tensors="pt").to(device)
        logits: Tensor = self.model(**inputs).logits
        return logits.float()


def load_classifier(name: str, outputs: int, seed: int) -> tuple[Any, Any]:
    """Loads a model that gives some numbers per text, and its tokenizer; the head that makes them is new.

    Equal seeds give equal heads whatever the table.

    Raises:
        ValueError: transformers is missing, there is no such model in safetensors, it lacks other weights than a head,
            or it brings a head of its own.
    """
    torch.manual_seed(seed)
    # Mismatched sizes are refused below, in words.
    model, tokenizer, missing = load_model(
        CLASSIFIERS, "AutoModelForSequenceClassification", name, num_labels=outputs, ignore_mismatched_sizes=True
    )
    if {key for key, _ in model.named_parameters() if key.split(".")[0] in HEADS} - missing:
        raise ValueError(f"{name} has a head for another task already; name the pretrained model it was made from")
    return model, tokenizer


@torch.inference_mode()
def sentence_vectors(encoder: nn.Module, tokenizer: Any, sentences: Sequence[str], length: int) -> Float[Tensor, "N H"]:
    """Means of an encoder's last hidden states, in float32: the worth of a table before any fine-tuning."""
    device = next(encoder.parameters()).device
    encoded = [dict(tokenizer(sentence, truncation=True, max_length=length)) for sentence in sentences]
    rows: list[Tensor | None] = [None] * len(encoded)
    for indices in length_batches(_lengths(encoded), SENTENCES):
        inputs = tokenizer.pad([encoded[index] for index in indices], return_tensors="pt").to(device)
        hidden = encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None].to(hidden.dtype)
        for index, row in zip(indices, (hidden * mask).sum(1) / mask.sum(1), strict=True):
            rows[index] = row.float().cpu()
    return torch.stack([row for row in rows if row is not None])


def similarity_correlation(encoder: nn.Module, tokenizer: Any, pairs: Sequence[glue.Example], length: int) -> float:
    """Spearman's correlation of cosines of sentence pairs with human scores, as of STS-B."""
    training = encoder.training
    encoder.eval()
    first = sentence_vectors(encoder, tokenizer, [pair.first for pair in pairs], length)
    second = sentence_vectors(encoder, tokenizer, [pair.second or "" for pair in pairs], length)
    encoder.train(training)
    scores = torch.tensor([float(pair.label) for pair in pairs], dtype=torch.float64)
    return correlations(F.cosine_similarity(first, second).double().numpy(), scores.numpy())[1]


def _pearson(answers: NDArray[Any], scores: NDArray[Any]) -> float:
    return correlations(answers, scores)[0]


def _spearman(answers: NDArray[Any], scores: NDArray[Any]) -> float:
    return correlations(answers, scores)[1]


def _lengths(encoded: Sequence[Mapping[str, Any]]) -> list[int]:
    return [len(example["input_ids"]) for example in encoded]


TASKS = (
    GlueTask(glue.TASKS["CoLA"], {"matthews": ("CoLA MCC", matthews)}),
    GlueTask(glue.TASKS["SST-2"], {"accuracy": ("SST-2 acc", accuracy)}),
    GlueTask(glue.TASKS["MRPC"], {"f1": ("MRPC F1", f1), "accuracy": ("MRPC acc", accuracy)}),
    GlueTask(glue.TASKS["RTE"], {"accuracy": ("RTE acc", accuracy)}),
    GlueTask(glue.TASKS["STS-B"], {"pearson": ("STS-B r", _pearson), "spearman": ("STS-B ρ", _spearman)}, "Untuned ρ"),
)
