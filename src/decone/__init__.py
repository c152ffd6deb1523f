"""decone opens the narrow cone: training, measuring and mending token embeddings that degenerate.

Each command of the command line is a function of this package, which is imported when it is first used:

    import decone

    print(decone.grow("my-model", ["covid", "blog"]).to_dict())

The rooms are subpackages and are imported by name, so that one of them costs only what it needs:

    from decone import objectives, optim
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decone.objectives.cards import methods as methods
    from decone.repair.vocabulary.grow import grow as grow
    from decone.repair.vocabulary.trim import trim as trim
    from decone.training.doctor import doctor as doctor
    from decone.training.session import evaluate as evaluate
    from decone.training.session import train as train

__version__ = "0.1.0"

_DOORS = {
    "doctor": "training.doctor",
    "evaluate": "training.session",
    "grow": "repair.vocabulary.grow",
    "methods": "objectives.cards",
    "train": "training.session",
    "trim": "repair.vocabulary.trim",
}
__all__ = ["__version__", "doctor", "evaluate", "grow", "methods", "train", "trim"]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(importlib.import_module(f"{__name__}.{_DOORS[name]}"), name)
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    return sorted({*globals(), *_DOORS})
