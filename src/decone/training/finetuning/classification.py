"""A model that tells classes or scores of sentences and pairs of them, as the loop trains it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from decone.data.glue import Example, Task
from decone.metrics.benchmark import accuracy, correlations, f1, matthews
from decone.training.finetuning.loop import FinetuneConfig, ordered, shuffled, steps

Scores = Callable[[Float[Tensor, "N C"], Sequence[int | float]], dict[str, float]]


class Classification:
    """A classifier with the examples of a task.

    Args:
        model: gives `logits`, [B, C], for token ids.
        tokenizer: of transformers.
        task: whose examples they are.
        train: examples to learn from.
        dev: examples to be measured on.
        config: seed, size of batches, longest example.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        task: Task,
        train: Sequence[Example],
        dev: Sequence[Example],
        config: FinetuneConfig,
    ) -> None:
        self.model, self.tokenizer, self.task, self.config = model, tokenizer, task, config
        self.train = [self._encoded(example) for example in train]
        self.dev = [self._encoded(example) for example in dev]
        self.labels = [example.label for example in train]
        self.dev_labels = [example.label for example in dev]

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return steps(len(self.train), self.config.batch)

    def batches(self, epoch: int) -> Iterable[Sequence[int]]:
        """Examples of similar length together; the seed and the epoch decide the order."""
        return shuffled([len(one["input_ids"]) for one in self.train], self.config.batch, (self.config.seed, epoch))

    def loss(self, places: Sequence[int]) -> Tensor:
        """Cross-entropy of classes, or the squared error of scores."""
        logits = self._logits([self.train[place] for place in places])
        labels = torch.tensor([self.labels[place] for place in places], device=logits.device)
        if self.task.classes:
            return F.cross_entropy(logits, labels)
        return F.mse_loss(logits.squeeze(1), labels.float())

    def measure(self) -> dict[str, float]:
        """The measures of the task on the development set."""
        rows = torch.empty(len(self.dev), self.task.outputs)
        # Twice a training batch fits, for nothing is kept for a way back.
        for places in ordered([len(one["input_ids"]) for one in self.dev], 2 * self.config.batch):
            rows[places] = self._logits([self.dev[place] for place in places]).cpu()
        return score(self.task, rows, self.dev_labels)

    def _encoded(self, example: Example) -> dict[str, list[int]]:
        pair = () if example.second is None else (example.second,)
        found: Any = self.tokenizer(example.first, *pair, truncation=True, max_length=self.config.length)
        return dict(found)

    def _logits(self, encoded: Sequence[dict[str, list[int]]]) -> Float[Tensor, "B C"]:
        device = next(self.model.parameters()).device
        inputs = self.tokenizer.pad(list(encoded), return_tensors="pt").to(device)
        logits: Tensor = self.model(**inputs).logits
        return logits.float()


def score(task: Task, logits: Float[Tensor, "N C"], labels: Sequence[int | float]) -> dict[str, float]:
    """Measures answers as GLUE does: CoLA by Matthews' correlation, MRPC by accuracy and F1, STS-B by correlations.

    Args:
        task: which measures.
        logits: what the model gave, [N, C].
        labels: of the same examples.

    Example:
        >>> from decone.data.glue import TASKS
        >>> score(TASKS["RTE"], torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [0, 0])
        {'accuracy': 0.5}
    """
    if not task.classes:
        pearson, spearman = correlations(
            logits.squeeze(1).double().numpy(), np.array([float(label) for label in labels], dtype=np.float64)
        )
        return {"pearson": pearson, "spearman": spearman}
    answers, wanted = logits.argmax(1).numpy(), np.array(labels, dtype=np.int64)
    if task.name == "CoLA":
        return {"matthews": matthews(answers, wanted)}
    if task.name == "MRPC":
        return {"f1": f1(answers, wanted), "accuracy": accuracy(answers, wanted)}
    return {"accuracy": accuracy(answers, wanted)}
