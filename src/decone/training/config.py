"""A run's configuration: one TOML file, every key known, the resolved copy saved with the run.

Its method is one word, as on a command line: `objective[:key=value[,...]][+objective...][+optimiser[:key=value...]]`.
Objectives joined by + are composed, see `objectives.compose`; the optimiser stands last.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from decone import objectives, optim
from decone.data import corpora
from decone.files.foreign import plain, quoted
from decone.files.settings import explain_mistake, merge_settings, parse_pair, parse_toml, suggest
from decone.models.nano import Nano, NanoConfig


@dataclass(frozen=True)
class Method:
    """One or more objectives and an optimiser by name, with their settings as given.

    Example:
        >>> Method.parse("threshold:margin=1+scalegrad:gamma=0.5+row-adamw").terms
        (('threshold', {'margin': '1'}), ('scalegrad', {'gamma': '0.5'}))
    """

    text: str
    terms: tuple[tuple[str, dict[str, str]], ...]
    optimizer: str = "adamw"
    optimizer_settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Reads a method and checks that it can be built.

        Raises:
            ValueError: the word does not follow the grammar, a name or setting is unknown, or the objectives cannot
                be composed.
        """
        optimizers = optim.names()
        terms = [_parse_term(text, term) for term in text.strip().split("+")]
        optimizer, options = terms.pop() if len(terms) > 1 and terms[-1][0] in optimizers else ("adamw", {})
        for name, _ in terms[1:]:
            if name in optimizers:
                raise ValueError(
                    f"method {quoted(text)} goes on after its optimiser; name one optimiser, and name it last"
                )
            names = [*objectives.names(), *optimizers]
            if name not in names:
                hint = suggest(name, names, f"choose one of {', '.join(names)}")
                raise ValueError(f"{quoted(name)} in {quoted(text)} is neither an objective nor an optimiser; {hint}")
        method = cls(text.strip(), tuple(terms), optimizer, options)
        method.build_objective()
        optim.options(optimizer, options)
        return method

    def build_objective(self) -> objectives.Objective:
        """A fresh objective; composed where the method names several."""
        built = [objectives.get(name, **settings) for name, settings in self.terms]
        return built[0] if len(built) == 1 else objectives.Compose(*built)

    def build_optimizer(
        self, model: Nano, lr: float, betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        """A fresh optimiser over the model: matrices decay, gains do not; row-adamw takes the tables by rows."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        fused = parameters[0].device.type in ("cpu", "cuda")
        tables = [model.embedding.weight] if model.config.tied else [model.embedding.weight, model.head]
        settings = self.optimizer_settings
        return optim.build(self.optimizer, groups, tables, lr=lr, betas=betas, fused=fused, settings=settings)


def _parse_term(text: str, term: str) -> tuple[str, dict[str, str]]:
    """Name and settings of one term of a method."""
    name, colon, pairs = term.strip().partition(":")
    settings: dict[str, str] = {}
    for item in pairs.split(",") if colon else []:
        pair = parse_pair(item)
        if pair is None or not pair[1]:
            raise ValueError(f"method {quoted(text)}: {quoted(item.strip())} is not key=value")
        key, value = pair
        if key in settings:
            raise ValueError(f"method {quoted(text)} sets {quoted(key)} twice; keep one")
        settings[key] = value
    if not name:
        raise ValueError(f"method {quoted(text)} lacks a name; write objective[:key=value][+objective...][+optimiser]")
    return name, settings


class ConfigSection(BaseModel):
    """A table of the file: unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def build(cls, values: dict[str, Any]) -> Self:
        """Validates a nested dict; ValueError in one sentence that names the key and the nearest known one."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(explain_mistake(cls, error)) from None


class CorpusConfig(ConfigSection):
    """The text."""

    name: str = Field(default="default", description=f"{', '.join(corpora.NAMES)}, or a UTF-8 file")
    validation: float = Field(default=0.1, gt=0, lt=1, description="share of the text at its end")


class TokenizerConfig(ConfigSection):
    """The tokenizer that makes ids of the text."""

    kind: Literal["characters", "bpe"] = Field(default="characters", description="one id per character, or BPE")
    size: int = Field(default=1024, ge=256, description="ids of a BPE tokenizer, at most")


class LanguageConfig(ConfigSection):
    """The simulated low-resource language."""

    low_resource: float = Field(default=0.02, ge=0, le=1, description="share of windows in it; 0 switches it off")


class BatchConfig(ConfigSection):
    """Windows of one optimiser step."""

    size: int = Field(default=12, ge=1, description="windows per micro-batch, all processes together")
    accumulate: int = Field(default=1, ge=1, description="micro-batches per optimiser step")


class OptimizerConfig(ConfigSection):
    """AdamW and its schedule: linear warm-up, then cosine."""

    lr: float = Field(default=1e-3, gt=0, description="highest learning rate")
    lr_min: float = Field(default=1e-4, ge=0, description="learning rate at the last step")
    warmup: int = Field(default=100, ge=0, description="steps of linear warm-up")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(default=0.99, ge=0, lt=1, description="decay of the second moment")
    weight_decay: float = Field(default=0.1, ge=0, description="decay of every matrix; gains have none")
    clip: float = Field(default=1.0, ge=0, description="largest global gradient norm; 0 switches clipping off")


class EvaluationConfig(ConfigSection):
    """When and on what the run is measured."""

    every: int = Field(default=250, ge=1, description="steps between validation losses")
    batches: int = Field(default=20, ge=1, description="random validation batches of one such loss")
    select: Literal["best", "last"] = Field(default="best", description="checkpoint that the run delivers")


class MachineConfig(ConfigSection):
    """Device, precision, threads: settings that do not belong to the identity of a run."""

    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="auto: bfloat16 on CUDA")
    engine: str = Field(default="auto", description="engine of the loss")
    threads: int = Field(default=0, ge=0, le=1024, description="CPU threads; 0 leaves PyTorch's choice")
    checkpoint_every: int = Field(default=250, ge=1, description="steps between checkpoints")
    tensorboard: bool = Field(default=False, description="also write TensorBoard logs")


class RunConfig(ConfigSection):
    """Everything a run depends on."""

    method: str = Field(default="mle", description="objective[:key=value,...][+optimiser]")
    seed: int = Field(default=1337, ge=0, lt=2**63, description="initial weights, batches, dropout")
    steps: int = Field(default=8000, ge=1, description="optimiser steps")
    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    language: LanguageConfig = LanguageConfig()
    model: NanoConfig = NanoConfig()
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    machine: MachineConfig = MachineConfig()

    @field_validator("method")
    @classmethod
    def _method_exists(cls, text: str) -> str:
        return Method.parse(text).text

    @classmethod
    def read(cls, path: Path, overrides: dict[str, Any] | None = None) -> Self:
        """Reads a TOML file and applies overrides such as {"optimizer.lr": "3e-4"}."""
        try:
            values = parse_toml(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"no file {path}; name a TOML configuration") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read {path}: {plain(error)}; name a TOML configuration") from None
        except ValueError as error:
            raise ValueError(f"{path} is not TOML: {plain(error)}") from None
        return cls.build(merge_settings(values, overrides or {}))

    @classmethod
    def resolve(cls, config: Self | Mapping[str, Any] | Path | str | None, overrides: dict[str, Any]) -> Self:
        """Validates a configuration, its values, or a TOML file of it, with overrides; None is that of the defaults."""
        if isinstance(config, Path | str):
            return cls.read(Path(config), overrides)
        values = config.model_dump() if isinstance(config, RunConfig) else dict(config or {})
        return cls.build(merge_settings(values, overrides))

    def dump(self) -> str:
        """The configuration as TOML, every key written out."""
        return tomli_w.dumps(self.model_dump())

    def identity(self) -> str:
        """Digest of everything that decides the result; the machine section is left out."""
        content = self.model_dump(exclude={"machine"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
