"""Tokens that a model's chat template writes, read from its source: a template is cut into strings and never run."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from decone.files.folder import inside, read_object, read_text

LIMIT = 1 << 20  # characters of a template; long published ones have about 20,000
MOST = 100  # templates of a folder
ROLES = ("system", "user", "assistant", "tool")
_FOLDER = "additional_chat_templates"


def chat_tokens(
    folder: Path, settings: Mapping[str, Any], vocabulary: Mapping[str, int], marks: Iterable[str]
) -> frozenset[int]:
    """Ids of the marks that the chat templates of a folder write, ids beyond the table among them.

    Args:
        folder: of a model.
        settings: its tokenizer_config.json.
        vocabulary: id of each token.
        marks: tokens that are told from the text around them, mostly the added ones; they count anywhere in a string
            of a template, other tokens where they are all of it and no word.

    Raises:
        ValueError: a file is damaged, lies outside the folder or is too large.
    """
    marks = [mark for mark in marks if mark]
    ids: set[int] = set()
    for template in _templates(folder, settings):
        for text in template_strings(template, settings):
            ids.update(vocabulary[mark] for mark in marks if mark in text)
            token = text.strip()
            if token in vocabulary and not token.isalnum():
                ids.add(vocabulary[token])
    return frozenset(ids)


def template_strings(template: str, variables: Mapping[str, Any]) -> Iterator[str]:
    r"""Texts that a template may write: its own, its strings, and what some variables stand for.

    Args:
        template: Jinja source; one that is broken gives what stands before the fault.
        variables: content of variables by name; values that are no strings, or objects with a content, are left out.

    Example:
        >>> list(template_strings("{{ '<|' + m['role'] + '|>' }}\n", {}))[-4:]
        ['<|system|>', '<|user|>', '<|assistant|>', '<|tool|>']
    """
    parts: list[str] = []
    roles: list[bool] = []
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        for token in environment.lexer.tokenize(template[:LIMIT]):
            value = variables.get(token.value) if token.type == "name" else None
            content = value.get("content") if isinstance(value, dict) else value
            if token.type in ("data", "string") or token.value == "role":
                parts.append(str(token.value))
                roles.append(token.value == "role")
            elif isinstance(content, str):
                parts.append(content)
                roles.append(False)
    except TemplateError:
        pass
    yield from parts
    for index in range(1, len(parts) - 1):
        if roles[index]:
            yield from (f"{parts[index - 1]}{role}{parts[index + 1]}" for role in ROLES)


def _templates(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """Sources of all templates, in each of the places where transformers has kept them."""
    stored = (read_object(folder, name) or {} for name in ("chat_template.json", "processor_config.json"))
    sources: list[Any] = []
    for value in (settings.get("chat_template"), *(content.get("chat_template") for content in stored)):
        sources += value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
    sources = [source.get("template") if isinstance(source, dict) else source for source in sources[:MOST]]
    sources.append(read_text(folder, "chat_template.jinja"))
    for path in sorted(inside(folder, _FOLDER).glob("*.jinja"))[:MOST]:
        sources.append(read_text(folder, f"{_FOLDER}/{path.name}"))
    return [source for source in sources if isinstance(source, str)]
