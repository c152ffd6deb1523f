"""Files beside the weights that hold a vocabulary, its ids or its size: they follow a change, go, or refuse it.

What can be read follows: JSON of any name, lists with a token per line, copies of tokenizer.json. The weights in other
formats and vocabularies that transformers does not need beside a tokenizer.json are left out with a note. What may hold
the old table and cannot be read is refused by name, as it may as well belong to another part of the model.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from decone.files.folder import JSON_LIMIT, list_files, read_object, read_text
from decone.files.foreign import join_names, plain
from decone.files.safetensors import INDEX, read_header
from decone.repair.vocabulary.config_ids import (
    FileIds,
    VocabularyChange,
    json_bytes,
    read_ids,
    renumber,
    resize,
    set_vocab_size,
)
from decone.repair.vocabulary.result import HISTORY_FILE
from decone.repair.vocabulary.tensors import VocabModel
from decone.repair.vocabulary.tokenizer import build_tokenizer, read_merges

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
_STRICT = (CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
# Vocabularies in forms that are not rewritten; beside a tokenizer.json transformers needs none of them. Those of
# Mistral's library take precedence there, so that new tokens must be in them, or they must go.
_MISTRAL = ("tekken.json", "*.model.v*", "openvino_*")
_FORMS = (*_MISTRAL, "*.model", "*.spm", "*.tiktoken", "vocab.bpe", "encoder.json", "bpe.codes", "dict.txt")
_LISTS = (".txt", ".vocab", ".tsv", ".lst")  # ends of files that may have a token per line
# Weights of a whole model by their names, also where they are a small part of it.
_COPY = re.compile(r"(consolidated|openvino_|optimizer|(\w+_)?model[_.-]).*|.*\.(h5|msgpack|gguf|ot|tflite)")
NAMES = 20  # files in a note
_BITS = 2  # per number: no smaller file holds a table


@dataclass(frozen=True)
class Companions:
    """Files of a model that depend on its vocabulary.

    Attributes:
        model: the model.
        tokens: old ids by token.
        documents: content of JSON files by name.
        specs: those that hold the same tokenizer, tokenizer.json first.
        lists: lines of text files with a token per line, in the order of ids.
        omitted: names of files that are left out.
        notes: sentences for the user.
    """

    model: VocabModel
    tokens: Mapping[str, int]
    documents: dict[str, Any]
    specs: dict[str, dict[str, Any]]
    lists: dict[str, list[str]]
    omitted: list[str]
    notes: list[str]

    def ids(self) -> dict[str, FileIds]:
        """Ids of every document by its name.

        Raises:
            ValueError: a document depends on ids in a way that cannot be followed.
        """
        return {
            name: _read_ids(name, content, self.tokens, self.model.rows) for name, content in self.documents.items()
        }

    def follow(
        self, change: VocabularyChange, respell: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> tuple[dict[str, bytes | None], list[str]]:
        """Makes the new content of all files that change.

        Args:
            change: old and new ids and sizes.
            respell: makes a new tokenizer.json of an old one.

        Returns:
            Content by name, None for a file that is left out, and notes on what was done.

        Raises:
            ValueError: as `ids`, or config.json gives another size than the tables have.
        """
        files: dict[str, bytes | None] = dict.fromkeys(self.omitted)
        notes = list(self.notes)
        for name, content in self.documents.items():
            new, foreign = renumber(content, change, name)
            notes += foreign
            if name == CONFIG:
                files[name] = set_vocab_size(new, change.rows, change.new_rows)
            elif (new := resize(new, change)) != content:
                files[name] = json_bytes(new)
        for name, spec in self.specs.items():
            new_spec = respell(spec)
            files[name] = json_bytes(new_spec)
            merges = str(PurePosixPath(name).with_name("merges.txt"))
            if (self.model.folder / merges).is_file() and new_spec["model"] != spec["model"]:
                pairs = "".join(f"{first} {second}\n" for first, second in read_merges(new_spec["model"]))
                files[merges] = f"#version: 0.2\n{pairs}".encode()
        for name, lines in self.lists.items():
            retained = (line for index, line in enumerate(lines) if index in change.new_ids)
            files[name] = "".join(f"{line}\n" for line in retained).encode()
        return files, notes

    def require_unnamed(self, ids: Collection[int]) -> None:
        """Refuses new tokens that would take an id which a file names without a token there.

        Args:
            ids: of the new tokens.

        Raises:
            ValueError: a file names one of the ids, as that of a picture's place.
        """
        for name, entries in self.ids().items():
            if claimed := sorted(entry for entry in entries.needed if entry[1] in ids):
                raise ValueError(
                    f"{plain(name, 60)}: {plain(claimed[0][0], 60)} is the id {claimed[0][1]}, which has no token and "
                    "would get a new one; give it its token in tokenizer.json first, or correct it"
                )

    def require_current(self, folder: Path, tokens: Mapping[str, int], change: VocabularyChange) -> None:
        """Compares the ids in the files of a new folder with those of the old ones.

        Args:
            folder: that was written.
            tokens: new ids by token, as the tokenizer there has them.
            change: old and new ids and sizes.

        Raises:
            ValueError: an entry of a JSON names another token than before, or none.
        """
        strings = {index: token for token, index in tokens.items()}
        old_strings = {index: token for token, index in self.tokens.items()}
        for name, before in self.ids().items():
            after = read_ids(json.loads((folder / name).read_bytes()), tokens, change.new_rows)
            needed, listed = (
                {(key, change.new_ids.get(index, index), old_strings.get(index)) for key, index in entries}
                for entries in before
            )
            present = {(key, index, strings.get(index)) for entries in after for key, index in entries}
            if wrong := sorted((needed - present) | (present - needed - listed), key=str):
                raise ValueError(
                    f"{plain(name, 60)}: {plain(wrong[0][0], 60)} names the id {wrong[0][1]}, which is that of another "
                    "token in the new vocabulary; please report this model"
                )


def find_companions(
    model: VocabModel, tokens: Mapping[str, int], leave: Collection[str] = (), grown: bool = False
) -> Companions:
    """Looks through the folder of a model for files that depend on its vocabulary.

    Args:
        model: the model.
        tokens: ids by token.
        leave: names of files that have nothing to do with tokens; those of tensors may be among them.
        grown: tokens are only added, so that older forms of the old vocabulary stay right.

    Raises:
        ValueError: a file may hold the old table and cannot be read, or contradicts the tokenizer.
    """
    files = list_files(model.folder)
    for name in [name for name in files if name in (INDEX, HISTORY_FILE) or name.startswith("decone/")]:
        del files[name]
    copies = _copies(model, files, leave)
    omitted = dict.fromkeys(_with_folders(model, files, copies))
    notes: list[str] = []
    documents, specs, lists = dict[str, Any](), dict[str, dict[str, Any]](), dict[str, list[str]]()
    for name, path in files.items():
        base = PurePosixPath(name)
        if name in omitted or (name in leave and name not in (CONFIG, TOKENIZER)):
            continue
        if any(base.match(form) for form in (_MISTRAL if grown else _FORMS)):
            if str(base.parent) == ".":
                omitted[name] = None
            elif not grown:
                notes.append(f"taken over as it is, with the old vocabulary if it holds it: {plain(name, 100)}")
        elif base.suffix == ".json":
            content = _document(model, name, path, notes)
            if name == TOKENIZER or _same_tokenizer(content, tokens):
                specs[name] = content
            elif _of_omitted(base, content, omitted, files) or _contradicts(content, tokens):
                omitted[name] = None
            elif content is not None:
                documents[name] = content
        elif base.suffix in _LISTS and base.name != "merges.txt" and not grown:
            lines = _lines(model.folder, name, path)
            columns = [line.split("\t")[0] for line in lines]
            if 2 * sum(tokens.get(token) == index for index, token in enumerate(columns)) >= len(tokens):
                lists[name] = lines
            elif 2 * len(tokens.keys() & set(columns)) >= len(tokens):
                omitted[name] = None
    if omitted:
        notes.insert(0, f"left out, for the old vocabulary is in it: {join_names(sorted(omitted), NAMES)}")
    specs = {TOKENIZER: specs.pop(TOKENIZER), **specs}
    return Companions(model, tokens, documents, specs, lists, list(omitted), notes)


def _copies(model: VocabModel, files: Mapping[str, Path], leave: Collection[str]) -> Iterator[str]:
    """Names of files with the weights of the model in another format."""
    smallest = model.rows * model.tensors[0].width * _BITS // 8
    components = _components(model.folder)
    for name in model.weights.unread(files):
        base, path = PurePosixPath(name), files[name]
        if name in leave:
            continue
        if base.name.startswith("adapter_model"):
            if base.suffix != ".safetensors" or _has_rows(path, model.rows):
                raise ValueError(
                    f"{plain(name, 100)} is an adapter with rows for tokens, or one that cannot be looked into; merge "
                    "it into the model first, or take it out of the folder"
                )
        elif base.suffix == ".safetensors" and not base.name.startswith(("consolidated", "optimizer")):
            if any(stored.shape == model.tensors[0].shape for stored in read_header(path)[1].values()):
                yield name
            elif _has_rows(path, model.rows):
                raise ValueError(
                    f"{plain(name, 100)} holds what is as long as the vocabulary ({model.rows:,}) and is no table of "
                    f"this model; {_mend(name)}"
                )
        elif str(base.parent) not in components and _COPY.fullmatch(base.name):
            yield name
        elif path.stat().st_size >= smallest:
            raise ValueError(f"{plain(name, 100)} cannot be looked into and may hold the old table; {_mend(name)}")


def _with_folders(model: VocabModel, files: Mapping[str, Path], copies: Iterator[str]) -> Iterator[str]:
    """Names of copies, and of everything in the folders that hold them, but for the model's own and its parts."""
    names = list(copies)
    weights = {tensor.file for tensor in model.weights.tensors.values()}
    excepted = {"."} | _components(model.folder)
    for name, path in files.items():
        if path in weights:
            excepted.update(map(str, PurePosixPath(name).parents))
    folders = {str(PurePosixPath(name).parent) for name in names} - excepted
    for name in files:
        if name in names or folders & set(map(str, PurePosixPath(name).parents)):
            yield name


def _components(folder: Path) -> set[str]:
    """Folders of the modules of a model of sentence-transformers."""
    try:
        modules = json.loads(read_text(folder, "modules.json") or "[]")
        return {str(module["path"]) for module in modules} - {""}
    except (ValueError, LookupError, TypeError, RecursionError):  # of another program
        return set()


def _has_rows(path: Path, rows: int) -> bool:
    return any(rows in stored.shape for stored in read_header(path)[1].values())


def _document(model: VocabModel, name: str, path: Path, notes: list[str]) -> Any:
    """The content of a JSON file; None for one that nobody can read as JSON."""
    if name == CONFIG:
        return model.config
    if name in _STRICT:
        return read_object(model.folder, name)
    if name != TOKENIZER and path.stat().st_size > JSON_LIMIT:
        notes.append(f"taken over unread, for it is larger than any configuration: {plain(name, 100)}")
        return None
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def _same_tokenizer(content: Any, tokens: Mapping[str, int]) -> bool:
    if not (isinstance(content, dict) and isinstance(content.get("model"), dict) and "vocab" in content["model"]):
        return False
    try:
        return dict(build_tokenizer(content, "").get_vocab(with_added_tokens=True)) == tokens
    except ValueError:
        return False


def _of_omitted(name: PurePosixPath, content: Any, omitted: Collection[str], files: Mapping[str, Path]) -> bool:
    """True for an index of weights that are left out, and for Mistral's settings of such."""
    siblings = [PurePosixPath(file).name for file in omitted if PurePosixPath(file).parent == name.parent]
    if name.name == "params.json":
        return any(sibling.startswith("consolidated") for sibling in siblings)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not name.name.endswith(".index.json") or not isinstance(shards, dict):
        return False
    present = {PurePosixPath(file).name for file in files if PurePosixPath(file).parent == name.parent}
    return not present.difference(siblings) & set(map(str, shards.values()))


def _contradicts(content: Any, tokens: Mapping[str, int]) -> bool:
    """True for a file that is a map of all tokens to other ids: transformers does not read it beside tokenizer.json."""
    if not isinstance(content, dict) or 2 * len(tokens.keys() & content.keys()) < len(tokens):
        return False
    ids = [index for index in content.values() if isinstance(index, int)]
    matches = sum(tokens.get(token) == index for token, index in content.items())
    return len(set(ids)) == len(content) and 2 * matches < len(content)


def _lines(folder: Path, name: str, path: Path) -> list[str]:
    if path.stat().st_size > JSON_LIMIT:
        return []
    try:
        return (read_text(folder, name) or "").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except ValueError:  # no UTF-8
        return []


def _read_ids(name: str, content: Any, tokens: Mapping[str, int], rows: int) -> FileIds:
    try:
        return read_ids(content, tokens, rows)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{plain(name, 100)}: {reason}; {_mend(name)}") from None


def _mend(name: str) -> str:
    return (
        "take it out of the folder, or, if it has nothing to do with tokens, pass over it with --leave "
        f"{plain(name, 100)}"
    )
