"""Which tensor is the input table and which the output table, told from names and shapes alone."""

import difflib
from collections.abc import Iterable, Mapping

from decone.files.foreign import plain
from decone.models.families import FAMILIES, Family

Shapes = Mapping[str, tuple[int, ...]]

INPUT_LIKE = ("emb", "wte", "tok", "shared")  # parts of names that only input tables have
SAME_VOCABULARY = 0.9  # tables whose row counts differ by more do not belong together
FAR = 2  # a vocabulary must be this many times longer than any other dimension to be told by its length
_INPUTS = tuple(dict.fromkeys(name for family in FAMILIES.values() for name in family.embedding))
_OUTPUTS = tuple(dict.fromkeys(name for family in FAMILIES.values() for name in family.head))


def named(patterns: Iterable[str], shapes: Shapes, rows: int | None = None) -> str | None:
    """The tensor that one of some names fits, with or without a prefix; the least nested if several do.

    Args:
        patterns: names, likeliest first.
        shapes: of the tensors that may be meant.
        rows: preferred where there are several.

    Raises:
        ValueError: several fit equally well.

    Example:
        >>> named(["wte.weight"], {"transformer.wte.weight": (9, 2), "transformer.wpe.weight": (4, 2)})
        'transformer.wte.weight'
    """
    for pattern in patterns:
        fitting = [name for name in shapes if name == pattern or name.endswith(f".{pattern}")]
        fitting = [name for name in fitting if shapes[name][0] == rows] or fitting
        least = min((name.count(".") for name in fitting), default=0)
        nearest = [name for name in fitting if name.count(".") == least]
        if len(nearest) > 1:
            raise ValueError(_unclear(nearest, shapes))
        if nearest:
            return nearest[0]
    return None


def place(
    shapes: Shapes, family: Family | None, rows: int | None, embedding: str | None = None, head: str | None = None
) -> tuple[str, str | None]:
    """Names of the input and of the output table; of the latter None where no tensor of its own is stored.

    Args:
        shapes: of all tensors, [V, H] of the tables.
        family: None for a model that is not in the list of families; then shapes decide.
        rows: V as the configuration has it.
        embedding: name the user gave, which overrides everything.
        head: likewise.

    Raises:
        ValueError: there is no such tensor, or several may be meant.
    """
    for given, option in ((embedding, "--embedding"), (head, "--head")):
        if given is not None and given not in shapes:
            near = difflib.get_close_matches(
                given, [name for name in shapes if len(name) < 200][:10000], n=3, cutoff=0.3
            )
            raise ValueError(f"there is no tensor {plain(given)!r} for {option}; near to it: {_listed(near, shapes)}")
    tables = {name: shape for name, shape in shapes.items() if len(shape) == 2 and 0 not in shape}
    if family is not None:
        found = embedding or named(family.embedding, tables, rows)
        other = head or named(family.head, tables, rows)
    elif embedding is not None:
        found = embedding
        other = head or named(_OUTPUTS, {name: tables[name] for name in _as_long_as(embedding, tables)})
    else:
        found, other = _by_shape(tables, rows)
        other = head or other
    found = found or other  # of two names for one tensor some savers keep that of the head
    if found is None:
        raise ValueError(_unclear(_longest(tables), shapes))
    return found, None if other == found else other


def _by_shape(tables: Shapes, rows: int | None) -> tuple[str | None, str | None]:
    """The tables of an unknown model: those with V rows, or, where V is not known, with the most."""
    known = rows is not None and any(shape[0] == rows for shape in tables.values())
    V = rows if known and rows is not None else max((shape[0] for shape in tables.values()), default=0)
    candidates = {name: shape for name, shape in tables.items() if shape[0] == V}
    if named(_INPUTS, candidates) is None and named(_OUTPUTS, candidates) is not None:
        # Some have input rows without an output, for images for example.
        candidates = {name: shape for name, shape in tables.items() if V <= shape[0] <= V / SAME_VOCABULARY}
    found = named(_INPUTS, candidates)
    others = [size for name, shape in tables.items() for size in (shape if name not in candidates else shape[1:])]
    if found is None and not known and max(others, default=0) * FAR > V:
        return None, None
    inputs = [name for name in candidates if any(part in name.lower() for part in INPUT_LIKE)] or list(candidates)
    found = found or (inputs[0] if len(inputs) == 1 else None)
    outputs = {name: shape for name, shape in candidates.items() if name != found and name not in inputs}
    if found is None or len(outputs) < 2:
        return found, next(iter(outputs), None)
    head = named(_OUTPUTS, outputs)
    return (None, None) if head is None else (found, head)


def _as_long_as(name: str, tables: Shapes) -> list[str]:
    return [other for other, shape in tables.items() if name in tables and shape[0] == tables[name][0]]


def _longest(tables: Shapes) -> list[str]:
    return sorted(tables, key=lambda name: -tables[name][0])[:6]


def _unclear(names: list[str], shapes: Shapes) -> str:
    listed = _listed(names, shapes)
    return (
        f"cannot tell which tensor is the vocabulary's table (candidates: {listed}); pass --embedding NAME, --head NAME"
    )


def _listed(names: Iterable[str], shapes: Shapes) -> str:
    return ", ".join(f"{plain(name, 80)} {list(shapes[name])}" for name in names) or "none"
