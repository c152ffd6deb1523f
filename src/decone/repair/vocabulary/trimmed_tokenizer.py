"""The files of a tokenizer without some of its tokens, and with new ids for the others."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from decone.files.folder import inside, read_object, read_text
from decone.files.foreign import plain
from decone.repair.vocabulary.configured import written
from decone.repair.vocabulary.merges import joined, read_merges

Ids = Mapping[int, int]

# Files that hold a whole vocabulary in a form that is not rewritten; a tokenizer.json does not need them.
_FORMS = ("*.model", "*.spm", "*.tiktoken", "tekken.json", "vocab.bpe", "encoder.json", "bpe.codes", "dict.txt")


def kind_of(model: Mapping[str, Any]) -> str:
    """WordPiece, BPE, Unigram or WordLevel; older files do not say.

    Raises:
        ValueError: it is of another kind.

    Example:
        >>> kind_of({"vocab": [["a", -1.0]], "unk_id": 0})
        'Unigram'
    """
    said = model.get("type")
    if said is None:
        said = "Unigram" if isinstance(model.get("vocab"), list) else "BPE" if "merges" in model else "WordPiece"
    if said not in ("WordPiece", "BPE", "Unigram", "WordLevel"):
        raise ValueError(f"the tokenizer is a {plain(said, 40)}; WordPiece, BPE, Unigram and WordLevel can be trimmed")
    return str(said)


def trimmed_parts(parts: Mapping[str, Any], new: Ids) -> dict[str, Any]:
    """A tokenizer.json with the tokens that stay.

    Args:
        parts: the old one.
        new: the new id of every old one that stays, in the same order.

    Raises:
        ValueError: it is of an unknown kind.
    """
    found: dict[str, Any] = json.loads(json.dumps(parts))
    model = found["model"]
    kind = kind_of(model)
    if kind == "Unigram":
        if isinstance(model.get("unk_id"), int):
            model["unk_id"] = new[model["unk_id"]]
        model["vocab"] = [entry for place, entry in enumerate(model["vocab"]) if place in new]
    else:
        model["vocab"] = trimmed_vocabulary(model["vocab"], new)
    if kind == "BPE":
        prefix = model.get("continuing_subword_prefix") or ""
        pairs = read_merges(model)
        kept = [{*pair, joined(pair, prefix)} <= model["vocab"].keys() for pair in pairs]
        model["merges"] = [merge for merge, stays in zip(model["merges"], kept, strict=True) if stays]
    found["added_tokens"] = [
        {**entry, "id": new[entry["id"]]} for entry in found.get("added_tokens") or [] if entry["id"] in new
    ]
    for processor in _processors(found.get("post_processor")):
        for entry in (processor.get("special_tokens") or {}).values():
            entry["ids"] = [new[index] for index in entry["ids"]]
        for role in ("sep", "cls"):
            if isinstance(processor.get(role), list):
                processor[role] = [processor[role][0], new[processor[role][1]]]
    if isinstance(found.get("padding"), dict) and found["padding"].get("pad_id") in new:
        found["padding"]["pad_id"] = new[found["padding"]["pad_id"]]
    return found


def marks(parts: Mapping[str, Any]) -> set[int]:
    """Ids that a tokenizer puts around texts, or fills them up with."""
    found = {parts["padding"].get("pad_id")} if isinstance(parts.get("padding"), dict) else set()
    for processor in _processors(parts.get("post_processor")):
        for entry in (processor.get("special_tokens") or {}).values():
            found.update(entry["ids"])
        found.update(processor[role][1] for role in ("sep", "cls") if isinstance(processor.get(role), list))
    return {index for index in found if isinstance(index, int)}


def trimmed_vocabulary(vocabulary: Mapping[str, int], new: Ids) -> dict[str, int]:
    """Tokens with their new ids, in the order of these.

    Example:
        >>> trimmed_vocabulary({"b": 4, "a": 2, "c": 3}, {2: 0, 4: 1})
        {'a': 0, 'b': 1}
    """
    kept = {token: new[index] for token, index in vocabulary.items() if index in new}
    return dict(sorted(kept.items(), key=lambda pair: pair[1]))


def trimmed_files(folder: Path, parts: Mapping[str, Any], new: Ids) -> dict[str, bytes | None]:
    """The other files of a tokenizer that hold its vocabulary; None where one is not rewritten but left out.

    Args:
        folder: of the model.
        parts: the new tokenizer.json.
        new: the new id of every old one that stays.
    """
    files: dict[str, bytes | None] = {"tokenizer.json": written(parts)}
    for form in _FORMS:
        files |= dict.fromkeys((path.name for path in sorted(folder.glob(form)) if path.is_file()), None)
    for name in ("vocab.json", "added_tokens.json"):
        if (listed := read_object(folder, name)) is not None:
            files[name] = written(trimmed_vocabulary(listed, new)) if _ids_alone(listed) else None
    if (text := read_text(folder, "vocab.txt")) is not None:
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        files["vocab.txt"] = "".join(f"{line}\n" for place, line in enumerate(lines) if place in new).encode()
    if inside(folder, "merges.txt").is_file():
        pairs = read_merges(parts["model"])
        files["merges.txt"] = ("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in pairs)).encode()
    return files


def _ids_alone(listed: Mapping[str, Any]) -> bool:
    return all(isinstance(index, int) for index in listed.values())


def _processors(processor: Any) -> Iterator[dict[str, Any]]:
    if isinstance(processor, dict):
        yield processor
        for inner in processor.get("processors") or ():
            yield from _processors(inner)
