"""Summarisation as a downstream suite: encoder-decoders that are fine-tuned to write summaries, measured by ROUGE."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decone.data import summaries
from decone.metrics.generation import scorer
from decone.studies.suite import Preset, columns, found_on_hub, last_epoch
from decone.studies.table import Measure
from decone.training.finetuning.loop import FinetuneConfig, finetune, steps
from decone.training.finetuning.pretrained import load_encoder_decoder
from decone.training.finetuning.summarization import Summarization, SummaryConfig

HEADINGS = {
    name: {"rouge1": f"{short} R-1", "rouge2": f"{short} R-2", "rougeL": f"{short} R-L"}
    for name, short in (("dialogsum", "DialogSum"), ("cnn_dailymail", "CNN/DM"))
}

# As BART's paper decodes (Lewis et al. 2020, by its released commands): CNN/DailyMail's own; DialogSum is not in it and
# has what the other set of short summaries, XSum, has there.
DECODING: dict[str, dict[str, Any]] = {
    "dialogsum": {"beams": 6, "shortest": 10, "longest": 60, "length_penalty": 1.0, "no_repeat": 3},
    "cnn_dailymail": {"beams": 4, "shortest": 55, "longest": 140, "length_penalty": 2.0, "no_repeat": 3},
}

# BART's are those of its paper but for batch and epochs, which suit files of some hundred pairs. T5 was fine-tuned by
# Adafactor (Raffel et al. 2020); here it has AdamW like every other model, at a rate usual for it. None was tuned here.
PRESETS = {
    "bart-large": Preset(
        found_on_hub("facebook/bart-large"),
        {
            "epochs": 5,
            "lr": 3e-5,
            "warmup": 0.025,
            "weight_decay": 0.01,
            "clip": 0.1,
            "smoothing": 0.1,
            "batch": 16,
            "accumulate": 4,
            "length": 1024,
            "precision": "bfloat16",
        },
    ),
    "t5-large": Preset(
        found_on_hub("google-t5/t5-large"),
        {
            "prefix": "summarize:",
            "epochs": 5,
            "lr": 1e-4,
            "warmup": 0.025,
            "weight_decay": 0.0,
            "batch": 16,
            "accumulate": 4,
            "length": 512,
            "precision": "bfloat16",
        },
    ),
}


class Summaries:
    """Sets of documents with summaries, of which every fifth pair is measured on after the last epoch."""

    tasks: Sequence[str] = tuple(HEADINGS)
    usual: Sequence[str] = tuple(HEADINGS)
    presets: Mapping[str, Preset] = PRESETS
    notes: Sequence[str] = (
        "Stand-ins: DialogSum is its development file (400 pairs to train on, 100 to measure), CNN/DM 1,000 pairs of "
        "its validation set (800, 200). So no number here stands beside one of the full sets.",
        "After the last epoch; no epoch and no setting was chosen. R-1, R-2, R-L: mean F1 of ROUGE, stemmed, times "
        "100; R-L of the whole summary as one sequence. Average: over tasks, each the mean of its three, of seeds that "
        "have all tasks.",
    )

    def build(self, values: dict[str, Any]) -> SummaryConfig:
        """Settings of one fine-tuning, the search being that of the task; ValueError names a key that is not known."""
        return SummaryConfig.build({**DECODING.get(values.get("task", ""), {}), **values})

    def steps(self, config: FinetuneConfig) -> int:
        """Optimiser steps of one fine-tuning; ValueError where its data or rouge-score cannot be had."""
        scorer()  # better missed now than after an epoch
        return steps(len(_train(config)), config.batch) * config.epochs

    def work(
        self, config: FinetuneConfig, model: str, folder: Path, device: str, stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Fine-tunes an encoder-decoder on one set.

        Args:
            config: settings, as `build` makes them; names the set.
            model: folder or hub name.
            folder: where the log goes.
            device: by name.
            stop: asked between steps.

        Returns:
            `epochs` as `finetuning.loop.finetune`; `examples` of both parts.

        Raises:
            ValueError: the model or the data will not do, or the loss is not finite.
        """
        if not isinstance(config, SummaryConfig):
            raise TypeError("settings of summaries are made by Summaries.build")
        train, dev = _train(config), summaries.load(config.task, "dev")
        network, tokenizer = load_encoder_decoder(model, max(config.length, config.target, config.longest))
        epochs = finetune(Summarization(network, tokenizer, train, dev, config), config, folder, device, stop)
        return {"epochs": epochs, "examples": {"train": len(train), "dev": len(dev)}}

    def measures(self, tasks: Sequence[str]) -> tuple[Measure, ...]:
        """Columns: ROUGE of each task, and the average over tasks."""
        return tuple(columns(HEADINGS, tasks))

    def values(self, results: Mapping[str, dict[str, Any]], tasks: Sequence[str]) -> dict[str, float]:
        """Numbers of a row and seed by column; no average while a task is missing."""
        return last_epoch(HEADINGS, results, tasks)


def _train(config: FinetuneConfig) -> list[summaries.Pair]:
    pairs = summaries.load(config.task, "train")
    return pairs[: config.examples] if config.examples else pairs
