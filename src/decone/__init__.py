"""decone opens the narrow cone: training, measuring and mending token embeddings that degenerate.

Each command of the command line is a function of this package, which is imported when it is first used:

    import decone

    print(decone.scan("my-model").to_dict())

The rooms are subpackages and are imported by name, so that one of them costs only what it needs:

    from decone import objectives, optim
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decone.diagnosis.evaluate import evaluate as evaluate
    from decone.diagnosis.scan import scan as scan
    from decone.diagnosis.text_counts import count_text as count_text
    from decone.objectives.registry import methods as methods
    from decone.repair.api import apply_delta as apply_delta
    from decone.repair.api import lexicon_coverage as lexicon_coverage
    from decone.repair.api import read_delta as read_delta
    from decone.repair.api import rebuild_definitions as rebuild_definitions
    from decone.repair.api import repair_directions as repair_directions
    from decone.repair.api import repair_rows as repair_rows
    from decone.repair.api import repair_with as repair_with
    from decone.repair.api import undo_delta as undo_delta
    from decone.repair.vocabulary.grow import grow as grow
    from decone.repair.vocabulary.trim import trim as trim
    from decone.studies.compare import compare as compare
    from decone.studies.compare import draw_report as draw_report
    from decone.studies.reproduce import reproduce as reproduce
    from decone.training.machine import doctor as doctor
    from decone.training.session import train as train

__version__ = "0.1.0"

_DOORS = {
    "apply_delta": "repair.api",
    "compare": "studies.compare",
    "count_text": "diagnosis.text_counts",
    "doctor": "training.machine",
    "draw_report": "studies.compare",
    "evaluate": "diagnosis.evaluate",
    "grow": "repair.vocabulary.grow",
    "lexicon_coverage": "repair.api",
    "methods": "objectives.registry",
    "read_delta": "repair.api",
    "rebuild_definitions": "repair.api",
    "repair_directions": "repair.api",
    "repair_rows": "repair.api",
    "repair_with": "repair.api",
    "reproduce": "studies.reproduce",
    "scan": "diagnosis.scan",
    "train": "training.session",
    "trim": "repair.vocabulary.trim",
    "undo_delta": "repair.api",
}
__all__ = [
    "__version__",
    "apply_delta",
    "compare",
    "count_text",
    "doctor",
    "draw_report",
    "evaluate",
    "grow",
    "lexicon_coverage",
    "methods",
    "read_delta",
    "rebuild_definitions",
    "repair_directions",
    "repair_rows",
    "repair_with",
    "reproduce",
    "scan",
    "train",
    "trim",
    "undo_delta",
]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(importlib.import_module(f"{__name__}.{_DOORS[name]}"), name)
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    return sorted({*globals(), *_DOORS})
