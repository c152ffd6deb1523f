"""A method as one word of a command line: `objective[:key=value[,...]][+objective...][+optimiser[:key=value...]]`.

Objectives joined by + are composed, see `objectives.compose`; the optimiser stands last.
"""

import difflib
from dataclasses import dataclass, field

import torch

from decone import objectives, optim
from decone.models.nano import Nano


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
        optimizers = optim.names()
        first, *rest = (_part(text, part) for part in text.strip().split("+"))
        optimizer, options = rest.pop() if rest and rest[-1][0] in optimizers else ("adamw", {})
        for name, _ in rest:
            if name in optimizers:
                raise ValueError(f"method {text!r} goes on after its optimiser; name one optimiser, and name it last")
            known = [*objectives.names(), *optimizers]
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"
                raise ValueError(f"{name!r} in {text!r} is neither an objective nor an optimiser; {hint}")
        method = cls(text.strip(), (first, *rest), optimizer, options)
        method.build_objective()
        optim.options(optimizer, options)
        return method

    def build_objective(self) -> objectives.Objective:
        """A fresh objective; composed where the method names several."""
        parts = [objectives.get(name, **settings) for name, settings in self.parts]
        return parts[0] if len(parts) == 1 else objectives.Compose(*parts)

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
