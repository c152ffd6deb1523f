"""Tasks of fine-tuning by name. A file of this folder is found without any list to edit; it offers `TASKS`."""

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from decone.models.load import Loader
from decone.training.finetuning import FinetuneConfig, batch_count

Split = Literal["train", "dev"]

LOADER = Loader(
    needs="fine-tuning needs",
    refusal="cannot load {name} to be fine-tuned: {reason}",
    incomplete="{name} lacks weights, e.g. {weight}; name a complete checkpoint",
)


class FinetuneTask(ABC):
    """A task that a pretrained model is fine-tuned on: its data, head and measures.

    Attributes:
        name: on the command line and in results.
        suite: name of the table that it belongs to, e.g. "glue".
        headings: heading of the column of every measure, by its key in the result of an epoch.
        untuned_heading: heading of a measure that is taken before fine-tuning, None without one.
        defaults: settings of the task that take the place of those of its configuration.
        config_type: class of its settings.
    """

    name: str
    suite: ClassVar[str]
    headings: Mapping[str, str]
    untuned_heading: str | None = None
    defaults: Mapping[str, Any] = {}
    config_type: ClassVar[type[FinetuneConfig]] = FinetuneConfig

    def build(self, values: Mapping[str, Any]) -> FinetuneConfig:
        """Settings of one fine-tuning on this task; ValueError names a key that does not exist."""
        return self.config_type.build({**self.defaults, **values, "task": self.name})

    def steps(self, config: FinetuneConfig) -> int:
        """Optimiser steps of one fine-tuning; ValueError where its data cannot be had."""
        return batch_count(self.count(config), config.batch) * config.epochs

    @abstractmethod
    def count(self, config: FinetuneConfig) -> int:
        """Number of training examples; ValueError where the data or a package that the task needs cannot be had."""

    @abstractmethod
    def run(
        self, config: FinetuneConfig, model: str, folder: Path, device: str, stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Fine-tunes a model, a folder or hub name, with its log in a folder; asks `stop` between steps.

        Returns `epochs` as of `finetuning.finetune`; `examples` of both parts; `untuned` where the task has such a
        measure, None for models without it.

        Raises:
            ValueError: the model or the data will not do, or the loss is not finite.
            Interrupted: `stop` was true.
        """


@functools.cache
def tasks() -> dict[str, FinetuneTask]:
    """All tasks by name.

    Example:
        >>> "CoLA" in tasks() and "dialogsum" in tasks()
        True
    """
    modules = (importlib.import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__))
    return {task.name: task for module in modules for task in module.TASKS}


def suite_tasks(suite: str) -> tuple[str, ...]:
    """Names of the tasks of a suite.

    Example:
        >>> suite_tasks("summarization")
        ('dialogsum', 'cnn_dailymail')
    """
    return tuple(name for name, task in tasks().items() if task.suite == suite)


def load_model(loader: Loader, kind: str, name: str, **options: Any) -> tuple[Any, Any, set[str]]:
    """Loads a model in float32, of a class of transformers, with its tokenizer and the names of new weights.

    ValueError where its files lack any but those that the loader allows to be new.
    """
    quiet_library()
    model, missing = loader.model(kind, name, dtype=torch.float32, **options)
    return model, loader.tokenizer(name), missing


def quiet_library() -> Any:
    """The transformers package without its reports, which are read here; ValueError when it is not installed."""
    transformers = LOADER.library()
    transformers.utils.logging.set_verbosity_error()
    return transformers
