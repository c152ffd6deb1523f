"""The tokenizer beside a model's weights, its special ids, and the marks that chat templates write.

Broken files leave a note. A template is cut into strings and never run.
"""

import json
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer

from decone.files.folder import JSON_LIMIT, inside, read_object, read_text
from decone.files.foreign import plain
from decone.models.load import Loader

SIZE_LIMIT = 512 << 20  # bytes of a tokenizer.json; large published ones take about 35 MB
MOST = 1 << 21  # ids of a vocabulary and numbers of a configuration; larger ones would size what nobody needs
MAKE = "make a tokenizer.json with transformers' AutoTokenizer.from_pretrained(MODEL).save_pretrained(MODEL)"
UNJUDGED = "so there is no verdict on which tokens a text reaches"
# What the classes of transformers read where there is no tokenizer.json.
VOCABULARY_FILES = (
    *("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
    *("tokenizer.model", "spiece.model", "spm.model", "sentencepiece.model", "sentencepiece.bpe.model"),
    *("vocab-src.json", "vocab-tgt.json", "source.spm", "target.spm", "target_vocab.json", "bpe.codes", "dict.txt"),
    *("emoji.json", "normalizer.json", "word_shape.json", "word_pronunciation.json", "byte_maps.json"),
    *("prophetnet.tokenizer", "tekken.json"),
)
# Classes of transformers that cut texts with Python, mostly into words first, and read no tokenizer.json.
PYTHON_CLASSES = (
    *("BertJapaneseTokenizer", "BertTokenizerLegacy", "BertweetTokenizer", "BioGptTokenizer", "ByT5Tokenizer"),
    *("BlenderbotSmallTokenizer", "CTRLTokenizer", "CanineTokenizer", "ClvpTokenizer", "CpmAntTokenizer"),
    *("CpmTokenizer", "DiaTokenizer", "EsmTokenizer", "FSMTTokenizer", "FastSpeech2ConformerTokenizer"),
    *("FlaubertTokenizer", "GPTNeoXJapaneseTokenizer", "M2M100Tokenizer", "MarianTokenizer", "MgpstrTokenizer"),
    *("MyT5Tokenizer", "PerceiverTokenizer", "PhobertTokenizer", "Pop2PianoTokenizer", "ProphetNetTokenizer"),
    *("RoCBertTokenizer", "Speech2TextTokenizer", "TapasTokenizer", "VitsTokenizer", "Wav2Vec2CTCTokenizer"),
    *("Wav2Vec2PhonemeCTCTokenizer", "XLMTokenizer"),
)
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_NAMES = (*(f"{role}_token" for role in _ROLES), "additional_special_tokens", "extra_special_tokens")
_LOADER = Loader(needs="a tokenizer without tokenizer.json needs", refusal="{reason}", incomplete="{weight}")
_UNSAFE = ("file", "path", "dir", "auto_map", "remote", "kwargs", "object", "backend")  # in keys that name files, code


@dataclass(frozen=True)
class FolderTokenizer:
    """Tokenizer of a folder as far as its files give one.

    Attributes:
        tokenizer: cuts texts as the model's does; None where that cannot be had, and `notes` say why.
        vocabulary: id of each token, added ones included; None where no file names them.
        special: ids that are treated as special.
        chat: ids of the marks that its chat templates write.
        notes: sentences a reader of the numbers must know.
    """

    tokenizer: Tokenizer | None = None
    vocabulary: Mapping[str, int] | None = None
    special: frozenset[int] = frozenset()
    chat: frozenset[int] = frozenset()
    notes: list[str] = field(default_factory=list)


def read_tokenizer(folder: Path, config: Mapping[str, Any] | None = None) -> FolderTokenizer:
    """Reads the tokenizer of a model: its tokenizer.json, else what transformers builds of the older files by class.

    Nothing outside the folder is opened, no code of the folder runs and nothing is fetched. A class that cuts texts
    with Python gives names alone, and so do files that transformers cannot make a tokenizer of.

    Args:
        folder: of the model.
        config: its config.json; its model_type decides where the folder names no class.
    """
    notes: list[str] = []
    settings: list[dict[str, Any]] = []
    for name in SETTINGS:
        try:
            content = read_object(folder, name)
        except ValueError as error:
            content = None
            notes.append(str(error))
        settings.append(content or {})
    tokenizer, vocabulary, special = _guarded(folder, config or {}, settings, notes)
    if tokenizer is not None:
        tokenizer.no_truncation()  # some come with a length to cut and fill texts to
        tokenizer.no_padding()
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        highest = max(vocabulary.values(), default=0)
        special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        if highest > MOST:  # the library takes memory for every id below the highest whenever it copies a tokenizer
            tokenizer = None
            notes.append(f"the tokenizer gives the id {highest:,}, which no table has, {UNJUDGED}; take that token out")
    if not vocabulary:
        return FolderTokenizer(notes=notes)
    contents = (*_special_tokens(settings), *_declared(settings))
    special |= {vocabulary[content] for content in contents if content in vocabulary}
    added = set() if tokenizer is None else tokenizer.get_added_tokens_decoder().keys()
    marks = [token for token, index in vocabulary.items() if index in added or index in special]
    chat: frozenset[int] = frozenset()
    try:
        chat = chat_tokens(folder, settings[0], vocabulary, marks)
    except ValueError as error:
        notes.append(f"its chat templates were not read: {error}")
    return FolderTokenizer(tokenizer, vocabulary, frozenset(special), chat, notes)


def declared_tokens(folder: Path) -> list[str]:
    """Tokens that the files beside a tokenizer.json name; transformers adds those that it lacks when it loads it.

    Raises:
        ValueError: such a file is damaged.
    """
    settings = [read_object(folder, name) or {} for name in SETTINGS]
    added = [setting.get("added_tokens_decoder") for setting in settings]
    tokens = [content for by_id in added if isinstance(by_id, dict) for content in _contents(by_id)]
    tokens += read_object(folder, "added_tokens.json") or {}
    return list(dict.fromkeys([*tokens, *_special_tokens(settings)]))


def _special_tokens(settings: list[dict[str, Any]]) -> list[str]:
    return [content for setting in settings for name in _NAMES for content in _contents(setting.get(name))]


_Reading = tuple[Tokenizer | None, Mapping[str, int] | None, set[int]]


def _guarded(folder: Path, config: Mapping[str, Any], settings: list[dict[str, Any]], notes: list[str]) -> _Reading:
    """Tokenizer or names, and special ids of the latter; whatever goes wrong becomes a note."""
    names = (setting.get("tokenizer_class") for setting in (settings[0], config))
    kind = next((name for name in names if isinstance(name, str) and name.isidentifier()), "")
    try:
        path = inside(folder, "tokenizer.json")
        if not path.is_file():
            return _of_class(folder, kind, config, settings, notes)
        if path.stat().st_size > SIZE_LIMIT:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        tokenizer = Tokenizer.from_file(str(path))
        if not notes:  # transformers adds what the other files declare; damaged ones are left alone
            absent = [content for content in declared_tokens(folder) if tokenizer.token_to_id(content) is None]
            tokenizer.add_tokens([AddedToken(content, normalized=False) for content in absent if content])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics beside it
        notes.append(f"the tokenizer cannot be read ({_reason(error)}), so tokens have no names; {MAKE}")
        return None, None, set()
    if kind in PYTHON_CLASSES:
        notes.append(f"{kind} of transformers does not cut texts as the tokenizer.json beside it does, {UNJUDGED}")
        return None, tokenizer.get_vocab(with_added_tokens=True), set()
    return tokenizer, None, set()


def _of_class(
    folder: Path, kind: str, config: Mapping[str, Any], settings: list[dict[str, Any]], notes: list[str]
) -> _Reading:
    """The tokenizer that transformers makes of the older files; the names in them where it makes none."""
    try:
        built = _built(folder, kind, config, settings)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        vocabulary = _listed(folder, settings)
        nameless = "" if vocabulary else ", and tokens have no names"
        notes.append(f"{kind or 'the tokenizer'} cannot be built ({_reason(error)}), {UNJUDGED}{nameless}; {MAKE}")
        return None, vocabulary, set()
    if built.is_fast:
        return built.backend_tokenizer, None, set()
    notes.append(f"{type(built).__name__} cuts texts with Python, where not every token can be tried, {UNJUDGED}")
    return None, built.get_vocab(), set(built.all_special_ids)


def _built(folder: Path, kind: str, config: Mapping[str, Any], settings: list[dict[str, Any]]) -> Any:
    """The tokenizer of transformers, of copies of its files and of settings that name neither files nor code."""
    transformers = _LOADER.library()
    model_type = config.get("model_type")
    identity = {"model_type": model_type if isinstance(model_type, str) else "", "tokenizer_class": kind or None}
    safe = {key: value for key, value in settings[0].items() if _is_safe(key, value)}
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity_error()
        try:
            present = [name for name in VOCABULARY_FILES if _copied(folder, name, Path(scratch))]
            for name, content in (("config.json", identity), ("tokenizer_config.json", safe)):
                (Path(scratch) / name).write_text(json.dumps(content), encoding="utf-8")
            built = transformers.AutoTokenizer.from_pretrained(scratch, trust_remote_code=False, local_files_only=True)
        finally:
            logging.set_verbosity(verbosity)
    needed = {name for role, name in built.vocab_files_names.items() if role != "tokenizer_file"}
    if needed and not needed.intersection(present):
        raise ValueError(f"the folder has no {' or '.join(sorted(needed))}")
    return built


def _copied(folder: Path, name: str, target: Path) -> bool:
    """Copies a file of a vocabulary where there is one; its ids may not be so high that they fill the memory."""
    path = inside(folder, name)
    if not path.is_file():
        return False
    if path.stat().st_size > JSON_LIMIT:
        raise ValueError(f"{name} has {path.stat().st_size:,} bytes")
    if name.endswith(".json"):
        ids = [index for index in (read_object(folder, name) or {}).values() if isinstance(index, int)]
        if max(ids, default=0) > MOST:
            raise ValueError(f"{name} has an id of {max(ids):,}")
    shutil.copyfile(path, target / name)
    return True


def _is_safe(key: str, value: Any) -> bool:
    if any(name in key for name in _UNSAFE):
        return False
    if key == "added_tokens_decoder":
        ids = (
            [index for index in value if not index.isdecimal() or int(index) > MOST]
            if isinstance(value, dict)
            else [""]
        )
        if ids:
            raise ValueError(f"added_tokens_decoder has an id of {plain(ids[0], 40)}")
    return isinstance(value, str | bool | list | dict | None) or abs(value) <= MOST


def _listed(folder: Path, settings: list[dict[str, Any]]) -> Mapping[str, int] | None:
    """Ids by token as the older files have them; None where they hold none, or number them in a way of their own."""
    try:
        text = read_text(folder, "vocab.txt", JSON_LIMIT)
        names = next((name for name in ("vocab-tgt.json", "vocab.json") if inside(folder, name).is_file()), "")
        if text is not None and not inside(folder, "bpe.codes").is_file():
            pieces = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
            vocabulary = {piece: index for index, piece in enumerate(pieces)}
        elif names:
            vocabulary = _ids_by_token(read_object(folder, names) or {})
        else:
            return None
        vocabulary |= _ids_by_token(read_object(folder, "added_tokens.json") or {})
    except ValueError:
        return None  # what reads it says why
    added = settings[0].get("added_tokens_decoder")
    for index, token in added.items() if isinstance(added, dict) else ():
        vocabulary |= {content: int(index) for content in _contents(token) if index.isdecimal()}
    return vocabulary


def _ids_by_token(content: Mapping[str, Any]) -> dict[str, int]:
    return {token: index for token, index in content.items() if type(index) is int and index >= 0}


def _reason(error: BaseException) -> str:
    return plain(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)


def _contents(value: Any) -> Iterator[str]:
    """The strings of special tokens in any of their notations."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and isinstance(value.get("content"), str):
        yield value["content"]
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, str | dict):
                yield from _contents(item)


def _declared(settings: list[dict[str, Any]]) -> Iterator[str]:
    for setting in settings:
        added = setting.get("added_tokens_decoder")
        for token in added.values() if isinstance(added, dict) else ():
            if isinstance(token, dict) and token.get("special") is True:
                yield from _contents(token)


TEMPLATE_LIMIT = 1 << 20  # characters; long published ones have about 20,000
TEMPLATES = 100  # of a folder, at most
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
    pieces: list[str] = []
    roles: list[bool] = []
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        for token in environment.lexer.tokenize(template[:TEMPLATE_LIMIT]):
            value = variables.get(token.value) if token.type == "name" else None
            content = value.get("content") if isinstance(value, dict) else value
            if token.type in ("data", "string") or token.value == "role":
                pieces.append(str(token.value))
                roles.append(token.value == "role")
            elif isinstance(content, str):
                pieces.append(content)
                roles.append(False)
    except TemplateError:
        pass
    yield from pieces
    for index in range(1, len(pieces) - 1):
        if roles[index]:
            yield from (f"{pieces[index - 1]}{role}{pieces[index + 1]}" for role in ROLES)


def _templates(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """Sources of all templates, in each of the places where transformers has kept them."""
    stored = (read_object(folder, name) or {} for name in ("chat_template.json", "processor_config.json"))
    sources: list[Any] = []
    for value in (settings.get("chat_template"), *(content.get("chat_template") for content in stored)):
        sources += value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
    sources = [source.get("template") if isinstance(source, dict) else source for source in sources[:TEMPLATES]]
    sources.append(read_text(folder, "chat_template.jinja"))
    for path in sorted(inside(folder, _FOLDER).glob("*.jinja"))[:TEMPLATES]:
        sources.append(read_text(folder, f"{_FOLDER}/{path.name}"))
    return [source for source in sources if isinstance(source, str)]
