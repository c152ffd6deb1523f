"""The loop of a fine-tuning: epochs of AdamW over batches of similar length, each measured; the last epoch counts.

Nothing is selected on the development set: the best of several epochs there would flatter every table, the noisiest
most.
"""

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from decone.training.config import ConfigSection
from decone.training.interrupt import Interrupted
from decone.training.machine import accelerator, autocast
from decone.training.run import RunLog

LOG_EVERY = 10  # steps between lines of the log
POOL = 50  # batches whose examples are sorted together: larger pads less, smaller mixes better


class FinetuneConfig(ConfigSection):
    """Settings of one fine-tuning: AdamW, linear warm-up, then a straight line to 0; the last epoch counts."""

    model: str = Field(description="preset, folder or hub name of the pretrained model")
    task: str = Field(description="what it is trained on")
    row: str = Field(default="original", description="which repair its table went through")
    seed: int = Field(default=1337, ge=0, lt=2**31, description="of the new head, the order of examples, dropout")
    epochs: int = Field(default=3, ge=1, description="passes over the training examples")
    lr: float = Field(default=5e-5, gt=0, description="highest learning rate")
    warmup: float = Field(default=0.1, ge=0, le=1, description="share of the steps that warm up")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="decay of the second moment")
    weight_decay: float = Field(default=0.01, ge=0, description="decay of every matrix; biases and gains have none")
    clip: float = Field(default=1.0, ge=0, description="largest global gradient norm; 0 switches clipping off")
    batch: int = Field(default=32, ge=1, description="examples of one optimiser step")
    accumulate: int = Field(default=1, ge=1, description="parts of such a batch that are computed one by one")
    length: int = Field(default=128, ge=8, description="tokens of an example; what is longer is cut")
    examples: int = Field(default=0, ge=0, description="first training examples that are used; 0 is all")
    precision: Literal["float32", "bfloat16"] = Field(default="float32", description="of the products, by autocast")

    def identity(self) -> str:
        """Digest of everything that decides the result."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:16]


class TaskLearner(ABC):
    """A model of transformers with its tokenizer and encoded examples of a task, as the loop sees it."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        config: FinetuneConfig,
        train: Sequence[dict[str, list[int]]],
        dev: Sequence[dict[str, list[int]]],
    ) -> None:
        self.model, self.tokenizer, self.config, self.train, self.dev = model, tokenizer, config, train, dev

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return batch_count(len(self.train), self.config.batch)

    def batches(self, epoch: int) -> Iterable[Sequence[int]]:
        """Indices of the training examples of every step of an epoch, counted from 0; the seed decides their order."""
        return shuffled_batches(lengths(self.train), self.config.batch, (self.config.seed, epoch))

    def dev_batches(self, size: int) -> list[list[int]]:
        """Examples to be measured on, the longest first."""
        return length_batches(lengths(self.dev), size)

    def padded(self, encoded: Sequence[dict[str, list[int]]]) -> Any:
        """Inputs of the model for some examples, on its device."""
        device = next(self.model.parameters()).device
        return self.tokenizer.pad(list(encoded), return_tensors="pt").to(device)

    @abstractmethod
    def loss(self, indices: Sequence[int]) -> Tensor:
        """Mean loss of training examples, a scalar in float32."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """Measures of the model on the development set."""


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the highest learning rate after so many steps: a line up over the warm-up, then a line down to 0.

    Example:
        >>> [schedule(step, 10, 0.2) for step in (0, 1, 2, 6)]
        [0.5, 1.0, 1.0, 0.5]
    """
    rising = math.ceil(total * warmup)
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(1, total - rising)


def finetune(
    learner: TaskLearner, config: FinetuneConfig, folder: Path, device: str, stop: Callable[[], bool]
) -> list[dict[str, Any]]:
    """Trains and measures a model on its task, with `metrics.jsonl` in the folder; asks `stop` between steps.

    One entry per epoch: `epoch` from 1, mean training `loss`, `measured`, `seconds` of training and measuring.

    Raises:
        ValueError: the loss is not finite.
        Interrupted: `stop` was true; there is no checkpoint, for one fine-tuning is short.
    """
    total = learner.steps * config.epochs
    accelerated = accelerator(device, "float32")  # the precision is ours, see `autocast`
    optimizer: Any = torch.optim.AdamW(
        parameter_groups(learner.model, config.weight_decay), config.lr, (config.beta1, config.beta2)
    )
    pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, total, config.warmup))
    learner.model, optimizer = accelerated.prepare(learner.model, optimizer)
    torch.manual_seed(config.seed)  # dropout, whatever was drawn while loading
    epochs, step = list[dict[str, Any]](), 0
    with RunLog(folder, 0) as log:
        for epoch in range(config.epochs):
            began, losses = time.perf_counter(), list[float]()
            learner.model.train()
            for indices in learner.batches(epoch):
                if stop():
                    raise Interrupted(folder, step)
                losses.append(_step(learner, indices, config, accelerated, optimizer))
                pace.step()
                step += 1
                if not math.isfinite(losses[-1]):
                    raise ValueError(f"the loss is {losses[-1]} at step {step}; lower lr, or take precision float32")
                if step % LOG_EVERY == 0 or step == total:
                    log.write("train", step, {"loss": losses[-1]})
            trained = time.perf_counter()
            learner.model.eval()
            with torch.inference_mode(), autocast(accelerated.device, config.precision):
                measured = learner.measure()
            seconds = {"train": trained - began, "measure": time.perf_counter() - trained}
            log.write("validation", step, measured)
            mean = sum(losses) / len(losses)
            epochs.append({"epoch": epoch + 1, "loss": mean, "measured": measured, "seconds": seconds})
    return epochs


def _step(
    learner: TaskLearner, indices: Sequence[int], config: FinetuneConfig, accelerated: Any, optimizer: Any
) -> float:
    size, loss = -(-len(indices) // config.accumulate), 0.0
    for begin in range(0, len(indices), size):
        chunk = indices[begin : begin + size]
        with autocast(accelerated.device, config.precision):
            chunk_loss = learner.loss(chunk) * (len(chunk) / len(indices))
        accelerated.backward(chunk_loss)
        loss += float(chunk_loss.detach())
    if config.clip:
        accelerated.clip_grad_norm_(learner.model.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad()
    return loss


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Matrices decay, also the table; biases and gains do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def shuffled_batches(lengths: Sequence[int], size: int, key: tuple[int, int]) -> list[list[int]]:
    """Cuts examples into batches of similar length, in random order; the last of a pool may be smaller.

    The order depends on the key (seed, epoch) and the lengths alone: models with the same tokenizer see the same
    batches, and their differences are paired.

    Example:
        >>> sorted(map(sorted, shuffled_batches([9, 1, 8, 2], 2, (0, 0))))
        [[0, 2], [1, 3]]
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    order = random.permutation(len(lengths))
    batches: list[list[int]] = []
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL].tolist(), key=lambda index: lengths[index])
        batches += [pool[begin : begin + size] for begin in range(0, len(pool), size)]
    return [batches[index] for index in random.permutation(len(batches))]


def lengths(encoded: Sequence[Mapping[str, Any]]) -> list[int]:
    """Tokens of every encoded example."""
    return [len(example["input_ids"]) for example in encoded]


def length_batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Cuts examples into batches by length, the longest first, to be measured.

    Example:
        >>> length_batches([3, 9, 4], 2)
        [[1, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[begin : begin + size] for begin in range(0, len(order), size)]


def batch_count(examples: int, size: int) -> int:
    """Batches of one pass over the examples.

    Example:
        >>> batch_count(33, 16)
        3
    """
    return -(-examples // size)
