"""A method as one word of a command line: `objective[:key=value[,...]][+objective...][+optimiser[:key=value...]]`.

Objectives joined by + are composed, see `objectives.compose`; the optimiser stands last.
"""

from dataclasses import dataclass, field

import torch

from decone import objectives, optim
from decone.files.settings import parse_pair, suggest
from decone.models.nano import Nano


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
                raise ValueError(f"method {text!r} goes on after its optimiser; name one optimiser, and name it last")
            names = [*objectives.names(), *optimizers]
            if name not in names:
                hint = suggest(name, names, f"choose one of {', '.join(names)}")
                raise ValueError(f"{name!r} in {text!r} is neither an objective nor an optimiser; {hint}")
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
            raise ValueError(f"method {text!r}: {item.strip()!r} is not key=value")
        key, value = pair
        if key in settings:
            raise ValueError(f"method {text!r} sets {key!r} twice; keep one")
        settings[key] = value
    if not name:
        raise ValueError(f"method {text!r} lacks a name; write objective[:key=value][+objective...][+optimiser]")
    return name, settings
