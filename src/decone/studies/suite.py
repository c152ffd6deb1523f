"""What models are fine-tuned on in a downstream study: tasks with their settings, their work, their columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from decone.studies.table import Measure
from decone.training.finetuning.settings import FinetuneConfig


@dataclass(frozen=True)
class Preset:
    """A model with settings that suit it.

    Attributes:
        find: gives its folder on this machine, or its name at the hub.
        settings: that differ from the defaults, for every task.
        tasks: that differ further, by task.
    """

    find: Callable[[], str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@runtime_checkable
class Suite(Protocol):
    """Some tasks that a pretrained model is fine-tuned on."""

    @property
    def tasks(self) -> Sequence[str]:
        """Every task."""
        ...

    @property
    def usual(self) -> Sequence[str]:
        """Tasks of the table where the user names none."""
        ...

    @property
    def presets(self) -> Mapping[str, Preset]:
        """Models with settings by name; the first is the default."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the numbers must know."""
        ...

    def build(self, values: dict[str, Any]) -> FinetuneConfig:
        """Settings of one fine-tuning; ValueError names a key that is not known."""
        ...

    def steps(self, config: FinetuneConfig) -> int:
        """Optimiser steps of one fine-tuning; ValueError where its data cannot be had."""
        ...

    def work(
        self, config: FinetuneConfig, model: str, folder: Path, device: str, stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Fine-tunes a model; gives `epochs` as `finetuning.loop.finetune`, and what else was measured."""
        ...

    def measures(self, tasks: Sequence[str]) -> tuple[Measure, ...]:
        """Columns of a table of some tasks."""
        ...

    def values(self, results: Mapping[str, dict[str, Any]], tasks: Sequence[str]) -> dict[str, float]:
        """Numbers of a row and seed by column, from the results of its tasks; no average while one is missing."""
        ...


def found_on_hub(name: str) -> Callable[[], str]:
    """A model that is named as at the hub."""
    return lambda: name
