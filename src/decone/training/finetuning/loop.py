"""The loop of a fine-tuning: some epochs of AdamW, each measured; the last one counts.

Nothing is chosen on the development set: the best of several epochs there would flatter every table, the noisiest most.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from decone.training.devices import accelerator
from decone.training.finetuning.settings import FinetuneConfig
from decone.training.interrupt import Interrupted
from decone.training.log import Log

SPOKEN = 10  # steps between lines of the log


@runtime_checkable
class Learner(Protocol):
    """A model on a task, as the loop sees it."""

    model: nn.Module

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        ...

    def batches(self, epoch: int) -> Iterable[Sequence[int]]:
        """Places of the training examples of every step of an epoch, counted from 0."""
        ...

    def loss(self, places: Sequence[int]) -> Tensor:
        """Mean loss of training examples, a scalar in float32."""
        ...

    def measure(self) -> dict[str, float]:
        """What the model does on the development set."""
        ...


def precise(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Where products are computed in the precision asked for; weights and sums stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the highest learning rate at a step: a line up over the warm-up, then a line down to 0.

    Args:
        step: steps already done, from 0.
        total: all steps.
        warmup: share of them that warm up.

    Example:
        >>> [schedule(step, 10, 0.2) for step in (0, 1, 2, 6)]
        [0.5, 1.0, 1.0, 0.5]
    """
    rising = math.ceil(total * warmup)
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(1, total - rising)


def finetune(
    learner: Learner, config: FinetuneConfig, folder: Path, device: str, stop: Callable[[], bool]
) -> list[dict[str, Any]]:
    """Trains and measures a model.

    Args:
        learner: the model on its task; its weights are changed.
        config: settings.
        folder: where `metrics.jsonl` tells how far it is.
        device: auto, cpu, cuda, cuda:N or mps.
        stop: asked between steps; when true, the fine-tuning is given up.

    Returns:
        One entry per epoch: `epoch` from 1, mean training `loss`, `measured`, `seconds` of training and measuring.

    Raises:
        ValueError: the loss is not finite.
        Interrupted: `stop` was true; nothing is kept, for one fine-tuning is short.
    """
    total = learner.steps * config.epochs
    carrier = accelerator(device, "float32")  # the precision is ours, see `precise`
    optimizer: Any = torch.optim.AdamW(
        _groups(learner.model, config.weight_decay), config.lr, (config.beta1, config.beta2)
    )
    pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, total, config.warmup))
    learner.model, optimizer = carrier.prepare(learner.model, optimizer)
    torch.manual_seed(config.seed)  # dropout; what was drawn while loading does not count
    epochs, step = list[dict[str, Any]](), 0
    with Log(folder, 0) as log:
        for epoch in range(config.epochs):
            began, losses = time.perf_counter(), list[float]()
            learner.model.train()
            for places in learner.batches(epoch):
                if stop():
                    raise Interrupted(folder, step)
                losses.append(_step(learner, places, config, carrier, optimizer))
                pace.step()
                step += 1
                if not math.isfinite(losses[-1]):
                    raise ValueError(f"the loss is {losses[-1]} at step {step}; lower lr, or take precision float32")
                if step % SPOKEN == 0 or step == total:
                    log.write("train", step, {"loss": losses[-1]})
            trained = time.perf_counter()
            learner.model.eval()
            with torch.inference_mode(), precise(carrier.device, config.precision):
                measured = learner.measure()
            seconds = {"train": trained - began, "measure": time.perf_counter() - trained}
            log.write("validation", step, measured)
            mean = sum(losses) / len(losses)
            epochs.append({"epoch": epoch + 1, "loss": mean, "measured": measured, "seconds": seconds})
    return epochs


def _step(learner: Learner, places: Sequence[int], config: FinetuneConfig, carrier: Any, optimizer: Any) -> float:
    size, loss = -(-len(places) // config.accumulate), 0.0
    for begin in range(0, len(places), size):
        part = places[begin : begin + size]
        with precise(carrier.device, config.precision):
            share = learner.loss(part) * (len(part) / len(places))
        carrier.backward(share)
        loss += float(share.detach())
    if config.clip:
        carrier.clip_grad_norm_(learner.model.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad()
    return loss


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Matrices decay, also the table; biases and gains do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
