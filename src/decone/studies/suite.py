"""What models are fine-tuned on in a downstream study: tasks with their settings, their work, their columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from decone.studies.table import Measure
from decone.training.finetuning.loop import FinetuneConfig

AVERAGE = "average"
DIGITS = 2

Headings = Mapping[str, Mapping[str, str]]  # task -> measure -> heading of its column


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


def columns(headings: Headings, tasks: Sequence[str]) -> list[Measure]:
    """Columns of what some tasks measure, and of the average where there are several.

    Example:
        >>> [column.key for column in columns({"a": {"f1": "A F1"}, "b": {"f1": "B F1"}}, ["a", "b"])]
        ['a.f1', 'b.f1', 'average']
    """
    found = [Measure(f"{task}.{key}", name, True, DIGITS) for task in tasks for key, name in headings[task].items()]
    return [*found, Measure(AVERAGE, "Average", True, DIGITS)] if len(tasks) > 1 else found


def last_epoch(headings: Headings, results: Mapping[str, dict[str, Any]], tasks: Sequence[str]) -> dict[str, float]:
    """What was measured after the last epoch, times 100, and the average over tasks, each the mean of its measures.

    Args:
        headings: which measures a task has.
        results: by task.
        tasks: wanted; no average while one is missing.

    Example:
        >>> last_epoch({"a": {"f1": "A F1"}}, {"a": {"epochs": [{"measured": {"f1": 0.5}}]}}, ["a"])
        {'a.f1': 50.0, 'average': 50.0}
    """
    found, means = dict[str, float](), list[float]()
    for task, result in results.items():
        measured = {key: 100 * float(result["epochs"][-1]["measured"][key]) for key in headings[task]}
        found |= {f"{task}.{key}": number for key, number in measured.items()}
        means.append(sum(measured.values()) / len(measured))
    return {**found, AVERAGE: sum(means) / len(means)} if results.keys() >= set(tasks) else found
