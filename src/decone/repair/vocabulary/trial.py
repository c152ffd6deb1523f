"""New tokens tried on texts before anything is written, with the tokenizer as transformers loads it.

Its classes build normalizer, splitter and decoder anew whatever tokenizer.json says, so that alone proves little. Each
new token stands alone, between words, beside punctuation, glued to words and inside one. It must be met where it is
meant to be, and a text that came back from the old tokenizer should come back from the new one.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from decone.files.folder import read_object
from decone.files.foreign import join_names, plain, quoted
from decone.models.load import Loader
from decone.models.tokenizer_files import MAKE
from decone.repair.vocabulary.config_ids import json_bytes
from decone.repair.vocabulary.spelling import Position, Spelling
from decone.repair.vocabulary.tokenizer import build_tokenizer, encode, guard

WORDS = (
    "a",
    "user",
    "the",
    "and",
    "x",
    "да",
    "1",
)  # neighbours of a new token, the first that comes back from decoding
BATCH = 512  # tokens tried at once
CROWD = 10_000  # tokens that a class may add of its own
UNREADABLE = "\ufffd"  # what decoders write for bytes that are no text
_CROWDS = ("extra_ids", "num_madeup_words", "offset")
_NAMING = ("model_type", "tokenizer_class", "model_name", "_name_or_path")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf")
_LOADER = Loader(needs="that needs", refusal="{reason}", incomplete="")

# Texts with a new token {t} and a word {w}, by the position in words.
PROBES = {
    "alone": "{t}",
    "at the start of a text": "{t} {w}",
    "behind a space": "{w} {t} {w}",
    "before a comma": "{w} {t}, {w}",
    "in brackets": "{w} ({t})",
    "glued behind a word": "{w}{t}",
    "glued before a word": "{w} {t}{w}",
    "inside a word": "{w}{t}{w}",
}
_GLUED = ("glued behind a word", "glued before a word", "inside a word")
_SPACED = ("behind a space", "before a comma")
# Where a token must be met, by its position.
_EXPECTED: dict[Position, tuple[str, ...]] = {
    "word": ("alone", "at the start of a text", *_SPACED),
    "start": _SPACED,
    "inside": ("glued behind a word", "inside a word"),
    "anywhere": tuple(PROBES),
}


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer as a program has it.

    Attributes:
        encode: gives ids of texts, without marks around them.
        decode: gives texts of ids, special tokens too.
        ids: gives ids of tokens by their names.
    """

    encode: Callable[[list[str]], list[list[int]]]
    decode: Callable[[list[list[int]]], list[str]]
    ids: Callable[[list[str]], list[int | None]]


class Outcome(NamedTuple):
    """Outcome of one text.

    Attributes:
        position: key of `PROBES`.
        hit: True where the ids have the new token.
        text: the text.
        back: what decoding gives, None where that is right, or was not right before either.
    """

    position: str
    hit: bool
    text: str
    back: str | None


def try_tokens(
    folder: Path,
    files: Mapping[str, bytes | None],
    spellings: Sequence[Spelling],
    ids: Sequence[int],
    unknown: Collection[int],
) -> list[str]:
    """Tries new tokens on texts.

    Args:
        folder: folder of the model.
        files: new content of its files by name, None for one that is left out.
        spellings: the new tokens.
        ids: their ids.
        unknown: ids for whatever the old tokenizer does not know.

    Returns:
        Sentences on tokens that are not met everywhere, or that change a text that is decoded.

    Raises:
        ValueError: a token is met nowhere, or transformers gives it another id.
    """
    with TemporaryDirectory(prefix="decone-", ignore_cleanup_errors=True) as name:
        old_folder, new_folder = Path(name, "old"), Path(name, "new")
        _fill(old_folder, folder, {})
        _fill(new_folder, folder, files)
        old, new, notes = _load(old_folder, new_folder, read_object(folder, "tokenizer_config.json") or {})
        loaded = new.ids([spelling.name for spelling in spellings])
        for spelling, index, expected in zip(spellings, loaded, ids, strict=True):
            if index != expected:
                raise ValueError(
                    f"transformers gives {quoted(spelling.name)} the id {index} and not {expected}, for "
                    f"it adds tokens when it is loaded; {MAKE}"
                )
        words = _neighbours(old)
        outcomes = list[list[Outcome]]()
        for start in range(0, len(spellings), BATCH):
            batch = slice(start, start + BATCH)
            outcomes += _try_batch(old, new, spellings[batch], ids[batch], unknown, words)
    _require_met(spellings, outcomes)
    return [*notes, *_unmet(spellings, outcomes), *_changed(spellings, outcomes)]


def _neighbours(old: LoadedTokenizer) -> list[str]:
    """Words to stand beside new tokens: those that come back from decoding."""
    lines = [f"{word} {word}" for word in WORDS]
    backs = old.decode(old.encode(lines))
    return [word for word, line, back in zip(WORDS, lines, backs, strict=True) if back == line] or list(WORDS)


def _try_batch(
    old: LoadedTokenizer,
    new: LoadedTokenizer,
    spellings: Sequence[Spelling],
    ids: Sequence[int],
    unknown: Collection[int],
    words: Sequence[str],
) -> Iterator[list[Outcome]]:
    """Yields the outcomes of each token on its texts."""
    probes = [list(_probes(spelling, words)) for spelling in spellings]
    texts = [text for token_probes in probes for _, text in token_probes]
    before, after = old.encode(texts), new.encode(texts)
    results = zip(texts, before, old.decode(before), after, new.decode(after), strict=True)
    for token_probes, index in zip(probes, ids, strict=True):
        outcomes = []
        for (position, _), (text, old_ids, old_back, new_ids, back) in zip(token_probes, results, strict=False):
            right = old_back == text
            if not right and position in _GLUED and not set(unknown).isdisjoint(old_ids):
                right = _letters(back) == _letters(text)  # the old one lost a letter; the new one may lose no space
            hit = index in new_ids
            outcomes.append(Outcome(position, hit, text, back if hit and right and back != text else None))
        yield outcomes


def _probes(spelling: Spelling, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Positions and texts to try a token in; a piece inside words behind many of them, for they may swallow it."""
    for word in words if spelling.position == "inside" else words[:1]:
        for position, probe in PROBES.items():
            yield position, probe.format(t=spelling.text, w=word)


def _require_met(spellings: Sequence[Spelling], outcomes: Sequence[list[Outcome]]) -> None:
    missed = [
        spelling.request
        for spelling, tried in zip(spellings, outcomes, strict=True)
        if not any(outcome.hit for outcome in tried if outcome.position in _EXPECTED[spelling.position])
    ]
    if missed:
        raise ValueError(
            f"the tokenizer does not find {join_names(missed)} in a text again: its normalizer makes another token or "
            "nothing of it; leave it out, or write it as the tokenizer does, e.g. in lower case"
        )


def _unmet(spellings: Sequence[Spelling], outcomes: Sequence[list[Outcome]]) -> Iterator[str]:
    """Sentences on the positions in which tokens are not met."""
    names: dict[tuple[str, ...], list[str]] = {}
    for spelling, tried in zip(spellings, outcomes, strict=True):
        hits = {outcome.position for outcome in tried if outcome.hit}
        if absent := tuple(position for position in _EXPECTED[spelling.position] if position not in hits):
            names.setdefault(absent, []).append(spelling.request)
    for positions, requests in names.items():
        yield f"not met {', '.join(positions)}: {join_names(requests)}"


def _changed(spellings: Sequence[Spelling], outcomes: Sequence[list[Outcome]]) -> Iterator[str]:
    """Sentences on tokens with which a text is decoded to another one, with an example."""
    names: dict[bool, list[str]] = {}
    examples: dict[bool, Outcome] = {}
    for spelling, tried in zip(spellings, outcomes, strict=True):
        changed = [outcome for outcome in tried if outcome.back is not None]
        if changed:
            letters = any(_letters(outcome.text) != _letters(outcome.back or "") for outcome in changed)
            names.setdefault(letters, []).append(spelling.request)
            examples.setdefault(letters, changed[0])
    for letters, requests in sorted(names.items()):
        example, kind = examples[letters], "letters" if letters else "spaces"
        mend = f"; written Ġ{plain(requests[0])} it takes the space before it along and comes back"
        yield (
            f"decoding gives other {kind} where {join_names(requests)} stands, e.g. {quoted(example.back)} for "
            f"{quoted(example.text)}{mend if UNREADABLE in (example.back or '') else ''}"
        )


def _letters(text: str) -> str:
    return "".join(text.split()).casefold()


def _fill(trial: Path, folder: Path, files: Mapping[str, bytes | None]) -> None:
    """Makes a folder like that of the model without its weights, and with what its tokenizer needs of config.json."""
    config = json_bytes(_naming(read_object(folder, "config.json") or {}))
    try:
        trial.mkdir()
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in _WEIGHTS and path.name not in {*files, "config.json"}:
                (trial / path.name).symlink_to(path.resolve())
        for name, content in {**files, "config.json": config}.items():
            if content is not None:
                (trial / name).parent.mkdir(parents=True, exist_ok=True)
                (trial / name).write_bytes(content)
    except OSError as error:
        raise ValueError(
            f"cannot write {trial} to try the new tokens: {error.strerror}; make free space there"
        ) from None


def _naming(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that name the class of a tokenizer; others may be a stranger's 10^9, from which much is built."""
    names = {key: _naming(value) if isinstance(value, dict) else value for key, value in config.items()}
    return {key: value for key, value in names.items() if key in _NAMING or isinstance(value, dict)}


def _load(old: Path, new: Path, settings: Mapping[str, Any]) -> tuple[LoadedTokenizer, LoadedTokenizer, list[str]]:
    """The old and the new tokenizer, from transformers if it takes the old one; and a note where it does not."""
    try:
        if crowds := [key for key in _CROWDS if isinstance(settings.get(key), int) and settings[key] > CROWD]:
            raise ValueError(f"its {crowds[0]} is above {CROWD:,}")
        before = _transformers(old, "{}")
    except ValueError as error:
        note = f"new tokens were tried with tokenizer.json alone, not as transformers loads it ({plain(error)})"
        return _bare(old), _bare(new), [note]
    return before, _transformers(new, "transformers cannot load the tokenizer with the new tokens ({})"), []


def _transformers(folder: Path, refusal: str) -> LoadedTokenizer:
    loaded = guard(lambda: _LOADER.tokenizer(str(folder)), lambda reason: ValueError(refusal.format(reason)))
    return LoadedTokenizer(
        encode=lambda texts: loaded(texts, add_special_tokens=False, verbose=False)["input_ids"],
        decode=lambda batch: [loaded.decode(ids, skip_special_tokens=False) for ids in batch],
        ids=lambda names: list(map(loaded.get_vocab().get, names)),
    )


def _bare(folder: Path) -> LoadedTokenizer:
    tokenizer = build_tokenizer(json.loads((folder / "tokenizer.json").read_bytes()), folder)
    return LoadedTokenizer(
        encode=lambda texts: [encoding.ids for encoding in encode(tokenizer, texts)],
        decode=lambda batch: tokenizer.decode_batch(batch, skip_special_tokens=False),
        ids=lambda names: list(map(tokenizer.token_to_id, names)),
    )
