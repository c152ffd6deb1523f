"""A method as one word of a command line: `objective[:key=value[,...]][+objective...][+optimiser[:key=value...]]`.

Objectives joined by + are composed, see `objectives.compose`; the optimiser stands last.
"""

import difflib
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from decone import objectives, optim
from decone.models.nano import Nano

OPTIMIZERS = ("adamw", "row-adamw")
ROW_OPTIONS = ("touched", "decay", "momentum", "compiled")


@dataclass(frozen=True)
class Method:
    """One or more objectives and an optimiser by name, with their settings as given.

    Example:
        >>> Method.parse("threshold:margin=1+scalegrad:gamma=0.5+row-adamw").parts
        (('threshold', {'margin': '1'}), ('scalegrad', {'gamma': '0.5'}))
    """

    text: str
    parts: tuple[tuple[str, dict[str, str]], ...]
    optimizer: str = "adamw"
    optimizer_settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Reads a method and checks that it can be built.

        Raises:
            ValueError: the word does not follow the grammar, a name or setting is unknown, or the objectives cannot
                be composed.
        """
        first, *rest = (_part(text, part) for part in text.strip().split("+"))
        optimizer, options = rest.pop() if rest and rest[-1][0] in OPTIMIZERS else ("adamw", {})
        for name, _ in rest:
            if name in OPTIMIZERS:
                raise ValueError(f"method {text!r} goes on after its optimiser; name one optimiser, and name it last")
            known = [*objectives.names(), *OPTIMIZERS]
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"
                raise ValueError(f"{name!r} in {text!r} is neither an objective nor an optimiser; {hint}")
        for key in options:
            if optimizer != "row-adamw" or key not in ROW_OPTIONS:
                raise ValueError(f"optimiser {optimizer!r} has no setting {key!r}; row-adamw knows {ROW_OPTIONS}")
        method = cls(text.strip(), (first, *rest), optimizer, options)
        method.build_objective()
        method._options()
        return method

    def build_objective(self) -> objectives.Objective:
        """A fresh objective; composed where the method names several."""
        parts = [objectives.get(name, **settings) for name, settings in self.parts]
        return parts[0] if len(parts) == 1 else objectives.Compose(*parts)

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
        raise ValueError(f"method {text!r} lacks a name; write objective[:key=value][+objective...][+optimiser]")
    return name, settings
