"""A run's configuration: one TOML file, every key known, the resolved copy saved with the run."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from decone.models.nano import NanoConfig
from decone.training.method import Method


class Section(BaseModel):
    """A table of the file: unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CorpusConfig(Section):
    """The text."""

    name: str = Field(default="default", description="default, shakespeare, wikitext-2, or a UTF-8 file")
    validation: float = Field(default=0.1, gt=0, lt=1, description="share of the text at its end")


class TokenizerConfig(Section):
    """How text becomes ids."""

    kind: Literal["characters", "bpe"] = Field(default="characters", description="one id per character, or BPE")
    size: int = Field(default=1024, ge=256, description="ids of a BPE tokenizer, at most")


class LanguageConfig(Section):
    """The simulated low-resource language."""

    low_resource: float = Field(default=0.02, ge=0, le=1, description="share of windows in it; 0 switches it off")


class BatchConfig(Section):
    """What one optimiser step sees."""

    size: int = Field(default=12, ge=1, description="windows per micro-batch, all processes together")
    accumulate: int = Field(default=1, ge=1, description="micro-batches per optimiser step")


class OptimizerConfig(Section):
    """AdamW and its schedule: linear warm-up, then cosine."""

    lr: float = Field(default=1e-3, gt=0, description="highest learning rate")
    lr_min: float = Field(default=1e-4, ge=0, description="learning rate at the last step")
    warmup: int = Field(default=100, ge=0, description="steps of linear warm-up")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(default=0.99, ge=0, lt=1, description="decay of the second moment")
    weight_decay: float = Field(default=0.1, ge=0, description="decay of every matrix; gains have none")
    clip: float = Field(default=1.0, ge=0, description="largest global gradient norm; 0 switches clipping off")


class EvaluationConfig(Section):
    """When and on what the run is measured."""

    every: int = Field(default=250, ge=1, description="steps between validation losses")
    batches: int = Field(default=20, ge=1, description="random validation batches of one such loss")
    select: Literal["best", "last"] = Field(default="best", description="checkpoint that the run delivers")


class MachineConfig(Section):
    """How the run is carried out; does not belong to what is compared."""

    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="auto: bfloat16 on CUDA")
    engine: str = Field(default="auto", description="engine of the loss")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0 leaves PyTorch's choice")
    checkpoint_every: int = Field(default=250, ge=1, description="steps between checkpoints")
    tensorboard: bool = Field(default=False, description="also write TensorBoard logs")


class RunConfig(Section):
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
    def _known_method(cls, text: str) -> str:
        return Method.parse(text).text

    @classmethod
    def build(cls, values: dict[str, Any]) -> Self:
        """Validates a nested dict; ValueError in one sentence that names the key and the nearest known one."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(sentence(cls, error)) from None

    @classmethod
    def read(cls, path: Path, overrides: dict[str, Any] | None = None) -> Self:
        """Reads a TOML file and applies overrides such as {"optimizer.lr": "3e-4"}."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"no file {path}; name a TOML configuration") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read {path}: {error}; name a TOML configuration") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is not TOML: {error}") from None
        return cls.build(merge(values, overrides or {}))

    def dump(self) -> str:
        """The configuration as TOML, every key written out."""
        return tomli_w.dumps(self.model_dump())

    def identity(self) -> str:
        """Digest of everything that decides the result; the machine section is left out."""
        content = self.model_dump(exclude={"machine"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def pairs(texts: Sequence[str], option: str = "--set", example: str = "optimizer.lr=3e-4") -> dict[str, Any]:
    """Reads overrides such as "optimizer.lr=3e-4".

    Args:
        texts: as on the command line.
        option: that gave them, for the message.
        example: of one, likewise.

    Raises:
        ValueError: a text is not key=value.

    Example:
        >>> pairs(["model.width=64"])
        {'model.width': '64'}
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{option} {text!r} is not key=value; write e.g. {option} {example}")
        found[key.strip()] = value.strip()
    return found


def merge(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Sets dotted keys in a nested dict; the dict given is left as it was.

    Example:
        >>> merge({"model": {"width": 64}}, {"model.layers": "2"})
        {'model': {'width': 64, 'layers': '2'}}
    """
    result: dict[str, Any] = json.loads(json.dumps(values, default=str))
    for dotted, value in overrides.items():
        *path, last = dotted.split(".")
        place = result
        for key in path:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise ValueError(f"{dotted} does not exist: {key} is a value, not a section")
        place[last] = value
    return result


def sentence(model: type[BaseModel], error: ValidationError) -> str:
    """The first mistake of a configuration in words: its key, what is wrong, the nearest key that exists."""
    first = error.errors()[0]
    *path, last = [str(part) for part in first["loc"]] or ["configuration"]
    dotted = ".".join([*path, last])
    if first["type"] == "extra_forbidden":
        for key in path:
            inner = model.model_fields[key].annotation
            assert isinstance(inner, type) and issubclass(inner, BaseModel)
            model = inner
        near = difflib.get_close_matches(last, model.model_fields, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(model.model_fields)}"
        return f"unknown key {dotted!r}; {hint}"
    if "error" in first.get("ctx", {}):
        return str(first["ctx"]["error"])
    return f"{dotted} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
