"""The tokenizer beside a model's weights, and the ids it treats as special; broken files leave a note."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from decone.files.folder import JSON_LIMIT, inside, read_object, read_text
from decone.files.foreign import plain

SIZE_LIMIT = 512 << 20  # bytes of a tokenizer.json; large published ones take about 35 MB
MAKE = "make a tokenizer.json with transformers' AutoTokenizer.from_pretrained(MODEL).save_pretrained(MODEL)"
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_NAMES = (*(f"{role}_token" for role in _ROLES), "additional_special_tokens", "extra_special_tokens")


def read_tokenizer(folder: Path) -> tuple[Tokenizer | None, frozenset[int], list[str]]:
    """Reads the tokenizer of a model.

    Args:
        folder: with a tokenizer.json, or vocab.txt of word pieces, or vocab.json and merges.txt of byte-level BPE.

    Returns:
        The tokenizer, or None with a note why there is none; ids it treats as special; notes.
    """
    notes: list[str] = []
    settings: list[dict[str, Any]] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            settings.append(read_object(folder, name) or {})
        except ValueError as error:
            notes.append(str(error))
    contents = [content for setting in settings for name in _NAMES for content in _contents(setting.get(name))]
    tokenizer = _guarded(folder, contents, settings, notes)
    if tokenizer is None:
        return None, frozenset(), notes
    tokenizer.no_truncation()  # some come with a length to cut and fill texts to
    tokenizer.no_padding()
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    ids = (tokenizer.token_to_id(content) for content in [*contents, *_declared(settings)])
    return tokenizer, frozenset(special | {index for index in ids if index is not None}), notes


def declared_tokens(folder: Path) -> list[str]:
    """Tokens that the files beside a tokenizer.json name; transformers adds those that it lacks when it loads it.

    Raises:
        ValueError: such a file is damaged.
    """
    names = ("tokenizer_config.json", "special_tokens_map.json")
    settings = [read_object(folder, name) or {} for name in names]
    tokens = [content for setting in settings for name in _NAMES for content in _contents(setting.get(name))]
    added = [setting.get("added_tokens_decoder") for setting in settings]
    tokens += [
        content for tokens_by_id in added if isinstance(tokens_by_id, dict) for content in _contents(tokens_by_id)
    ]
    return list(dict.fromkeys([*tokens, *(read_object(folder, "added_tokens.json") or {})]))


def _guarded(folder: Path, contents: list[str], settings: list[dict[str, Any]], notes: list[str]) -> Tokenizer | None:
    """The tokenizer; whatever goes wrong becomes a note."""
    try:
        path = inside(folder, "tokenizer.json")
        if not path.is_file():
            tokenizer = _from_vocabulary(folder, contents, settings)
            if tokenizer is None:
                notes.append(f"no tokenizer could be read, so tokens have no names; {MAKE}")
            return tokenizer
        if path.stat().st_size > SIZE_LIMIT:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        return Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics beside it
        reason = plain(str(error).splitlines()[0] if str(error) else type(error).__name__)
        notes.append(f"the tokenizer cannot be read ({reason}), so tokens have no names; {MAKE}")
        return None


def _from_vocabulary(folder: Path, contents: list[str], settings: list[dict[str, Any]]) -> Tokenizer | None:
    """A tokenizer of the older files, None where they are of another sort."""
    text = read_text(folder, "vocab.txt", JSON_LIMIT)
    if text is not None:
        pieces = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        tokenizer = _word_pieces(pieces, settings)
    else:
        tokenizer = _byte_pairs(folder)
    if tokenizer is not None:
        for content, index in sorted(
            (read_object(folder, "added_tokens.json") or {}).items(), key=lambda pair: pair[1]
        ):
            if index == tokenizer.get_vocab_size():  # the library numbers them itself, in this order
                tokenizer.add_tokens([content])
        marks = [content for content in contents if tokenizer.token_to_id(content) is not None]
        tokenizer.add_special_tokens([AddedToken(content, special=True, normalized=False) for content in marks])
    return tokenizer


def _word_pieces(pieces: list[str], settings: list[dict[str, Any]]) -> Tokenizer | None:
    if "[UNK]" not in pieces or not any(piece.startswith("##") for piece in pieces):
        return None
    lower = all(setting.get("do_lower_case", True) is not False for setting in settings)
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    marks = [piece for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if piece in pieces]
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in marks])
    return tokenizer


def _byte_pairs(folder: Path) -> Tokenizer | None:
    vocabulary, merges = read_object(folder, "vocab.json"), read_text(folder, "merges.txt", JSON_LIMIT)
    if vocabulary is None or merges is None:
        return None
    letters = set(pre_tokenizers.ByteLevel.alphabet())
    if len(letters & vocabulary.keys()) < len(letters):
        return None  # of another sort than byte-level
    lines = [line for line in merges.replace("\r\n", "\n").split("\n") if line and not line.startswith("#version")]
    pairs = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


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
