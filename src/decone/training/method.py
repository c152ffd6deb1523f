"""A method as one word of a command line: `objective[:key=value[,key=value]][+optimiser[:key=value...]]`."""

import difflib
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from decone import objectives, optim
from decone.models.nano import Nano

OPTIMIZERS = ("adamw", "row-adamw")
ROW_OPTIONS = ("touched", "decay", "momentum")


@dataclass(frozen=True)
class Method:
    """An objective and an optimiser by name, with their settings as given.

    Example:
        >>> Method.parse("threshold:margin=1+row-adamw").optimizer
        'row-adamw'
    """

    text: str
    objective: str
    settings: dict[str, str] = field(default_factory=dict)
    optimizer: str = "adamw"
    optimizer_settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Reads a method and checks that it can be built.

        Raises:
            ValueError: the word does not follow the grammar, or a name or setting is unknown.
        """
        first, *rest = text.strip().split("+")
        if len(rest) > 1:
            raise ValueError(f"method {text!r} names more than one optimiser; write objective[:key=value]+optimiser")
        objective, settings = _part(text, first)
        optimizer, options = _part(text, rest[0]) if rest else ("adamw", {})
        if optimizer not in OPTIMIZERS:
            near = difflib.get_close_matches(optimizer, OPTIMIZERS, 1)
            raise ValueError(f"unknown optimiser {optimizer!r} in {text!r}; did you mean {(near or OPTIMIZERS)[0]!r}?")
        for key in options:
            if optimizer != "row-adamw" or key not in ROW_OPTIONS:
                raise ValueError(f"optimiser {optimizer!r} has no setting {key!r}; row-adamw knows {ROW_OPTIONS}")
        method = cls(text.strip(), objective, settings, optimizer, options)
        method.build_objective()
        method._options()
        return method

    def build_objective(self) -> objectives.Objective:
        """A fresh objective."""
        return objectives.get(self.objective, **self.settings)

    def build_optimizer(
        self, model: Nano, lr: float, betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.AdamW:
        """A fresh optimiser over the model: matrices decay, gains do not; row-adamw takes the tables by rows."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        fused = parameters[0].device.type in ("cpu", "cuda")
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=fused)
        tables = [model.embedding.weight] if model.config.tied else [model.embedding.weight, model.head]
        return optim.RowAdamW(groups, lr=lr, betas=betas, fused=fused, rows=tables, **self._options())

    def _options(self) -> dict[str, Any]:
        hints = get_type_hints(optim.RowAdamW.__init__)
        typed = {}
        for key, value in self.optimizer_settings.items():
            try:
                typed[key] = TypeAdapter(hints[key]).validate_python(value)
            except ValidationError as error:
                raise ValueError(f"row-adamw setting {key}={value}: {error.errors()[0]['msg']}") from None
        return typed


def _part(text: str, part: str) -> tuple[str, dict[str, str]]:
    name, colon, rest = part.strip().partition(":")
    settings: dict[str, str] = {}
    for pair in rest.split(",") if colon else []:
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        if not equals or not key or not value:
            raise ValueError(f"method {text!r}: {pair.strip()!r} is not key=value")
        if key in settings:
            raise ValueError(f"method {text!r} sets {key!r} twice; keep one")
        settings[key] = value
    if not name:
        raise ValueError(f"method {text!r} lacks a name; write objective[:key=value][+optimiser]")
    return name, settings
