"""Settings as text: `key=value` pairs, dotted keys in nested tables, arguments of a class, mistakes in one sentence.

`Progress` is the type of an argument that long work takes: a function which is called as the work goes on.
"""

import difflib
import inspect
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from decone.files.foreign import VALUE, plain, quoted

TOO_DEEP = "it is nested too deeply"
Progress = Callable[[str, int, int], None]  # called with the name of a stage, its steps done and all its steps


def parse_json(text: str | bytes) -> Any:
    """Reads JSON.

    Raises:
        ValueError: it is none, or nested too deeply.

    Example:
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ValueError: it is nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def parse_toml(text: str) -> dict[str, Any]:
    """Reads TOML; errors as of `parse_json`."""
    try:
        values = tomllib.loads(text)
        json.dumps(values, default=str)  # what reads it next must not fail on its depth either
        return values
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def parse_pair(text: str) -> tuple[str, str] | None:
    """Key and value of a `key=value` text; None if it is not one.

    Example:
        >>> parse_pair("gamma = 0.5"), parse_pair("gamma")
        (('gamma', '0.5'), None)
    """
    key, equals, value = (piece.strip() for piece in text.partition("="))
    return (key, value) if equals and key else None


def parse_pairs(texts: Sequence[str], option: str = "--set", example: str = "optimizer.lr=3e-4") -> dict[str, Any]:
    """Reads settings such as "optimizer.lr=3e-4".

    Args:
        texts: as on the command line.
        option: the option they belong to, for the message.
        example: a setting of that option, for the message.

    Raises:
        ValueError: a text is not key=value.

    Example:
        >>> parse_pairs(["model.width=64"])
        {'model.width': '64'}
    """
    values = {}
    for text in texts:
        pair = parse_pair(text)
        if pair is None:
            raise ValueError(f"{option} {quoted(text)} is not key=value; write e.g. {option} {example}")
        values[pair[0]] = pair[1]
    return values


def merge_settings(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Sets dotted keys in a nested dict; `values` is left unchanged.

    Example:
        >>> merge_settings({"model": {"width": 64}}, {"model.layers": "2"})
        {'model': {'width': 64, 'layers': '2'}}
    """
    result: dict[str, Any] = json.loads(json.dumps(values, default=str))
    for dotted, value in overrides.items():
        *path, last = dotted.split(".")
        section = result
        for key in path:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise ValueError(f"{dotted} does not exist: {key} is a value, not a section")
        section[last] = value
    return result


def suggest(name: str, names: Sequence[str], otherwise: str) -> str:
    """Hint after a misspelt name: the nearest one, or `otherwise` if none is near.

    Example:
        >>> suggest("tresh", ["threshold", "mle"], "choose one"), suggest("x", ["mle"], "choose one")
        ("did you mean 'threshold'?", 'choose one')
    """
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]!r}?" if near else otherwise


def typed_arguments(
    function: Callable[..., Any], values: Mapping[str, Any], explain: Callable[[str, Any, str], str]
) -> dict[str, Any]:
    """Converts settings to the types that a function's signature declares; strings may come from a command line.

    Args:
        function: a function or the `__init__` of a class; every key of `values` is a parameter of it.
        values: settings by name.
        explain: makes the message of a value that does not convert, from its key, the value and the reason.

    Raises:
        ValueError: a value does not convert.

    Example:
        >>> def scale(factor: float) -> None: ...
        >>> typed_arguments(scale, {"factor": "0.5"}, "{}={}: {}".format)
        {'factor': 0.5}
    """
    hints, typed = get_type_hints(function), {}
    for key, value in values.items():
        try:
            typed[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            raise ValueError(explain(key, plain(value, VALUE), error.errors()[0]["msg"])) from None
    return typed


def parameter_names(function: Callable[..., Any]) -> list[str]:
    """Names of the parameters of a method, `self` left out."""
    return list(inspect.signature(function).parameters)[1:]


def explain_mistake(model: type[BaseModel], error: ValidationError) -> str:
    """First mistake of a configuration in words: its key, the reason, the nearest key that exists."""
    first = error.errors()[0]
    *path, last = [str(key) for key in first["loc"]] or ["configuration"]
    dotted = ".".join([*path, last])
    if first["type"] == "extra_forbidden":
        for key in path:
            inner = model.model_fields[key].annotation
            assert isinstance(inner, type) and issubclass(inner, BaseModel)
            model = inner
        keys = list(model.model_fields)
        return f"unknown key {quoted(dotted)}; {suggest(last, keys, 'known keys: ' + ', '.join(keys))}"
    if first["type"] == "missing":
        return repr(last)
    if "error" in first.get("ctx", {}):
        return str(first["ctx"]["error"])
    return f"{dotted} = {quoted(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}"
