"""Surface of each token of a vocabulary: its text without the marks of its tokenizer, and its kind."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from string import ascii_letters
from typing import Any, Literal, NamedTuple, get_args

from tokenizers import Tokenizer, pre_tokenizers

SurfaceKind = Literal[
    "special", "unused", "padding", "byte", "piece", "number", "punctuation", "character", "word", "letters", "other"
]
KINDS: tuple[SurfaceKind, ...] = get_args(SurfaceKind)
DEFINABLE: frozenset[SurfaceKind] = frozenset({"number", "punctuation", "character", "word", "letters", "other"})

_UNUSED = re.compile(r"[\[<].{0,40}(unused|reserved|extra_id).{0,40}[\]>]|madeupword\d+", re.IGNORECASE)
_LATIN = frozenset(ascii_letters)


class Surface(NamedTuple):
    """Text that a token stands for.

    Attributes:
        token: as it stands in the vocabulary; empty for a row without a token.
        text: without the marks of its tokenizer; empty where no lexicon can have it.
        kind: "special" (beginning, mask and the like), "unused" (kept free by name), "padding" (a row without a token),
            "byte" (part of a character), "piece" (marked as the inside of a word), "number" (digits only),
            "punctuation" (no letter or digit), "character" (one alone), "word" (two letters a-z or more), "letters"
            (of other alphabets) or "other".
        spaced: marked as following a space.
        inner: can stand inside a word too.
    """

    token: str
    text: str
    kind: SurfaceKind
    spaced: bool = False
    inner: bool = False


def surfaces(tokenizer: Tokenizer, rows: int | None = None, special: Collection[int] = ()) -> list[Surface]:
    """Surface of every row of a table, by id.

    Args:
        tokenizer: of word pieces, byte-level or SentencePiece subwords, or whole words.
        rows: V; without it as many as the tokenizer has ids. Tokens beyond it are left out.
        special: ids to treat as special beside those that the tokenizer itself marks.

    Example:
        >>> from tokenizers import models
        >>> tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "cone": 1, "##s": 2, "42": 3}, unk_token="[UNK]"))
        >>> [(surface.text, surface.kind) for surface in surfaces(tokenizer, rows=5, special=[0])]
        [('', 'special'), ('cone', 'word'), ('s', 'piece'), ('42', 'number'), ('', 'padding')]
    """
    tokens: dict[int, str] = {}
    for name, index in tokenizer.get_vocab(with_added_tokens=True).items():
        tokens.setdefault(index, name)
    added = tokenizer.get_added_tokens_decoder()
    special_ids = {index for index, token in added.items() if token.special} | set(special)
    read = surface_reader(json.loads(tokenizer.to_str()))
    size = max(tokens, default=-1) + 1 if rows is None else rows
    result = []
    for index in range(size):
        token = tokens.get(index)
        if token is None:
            result.append(Surface("", "", "padding"))
        elif index in special_ids:
            result.append(Surface(token, "", "special"))
        elif _UNUSED.fullmatch(token):
            result.append(Surface(token, "", "unused"))
        elif index in added:  # literal text, without marks
            result.append(Surface(token, token.strip(), kind_of(token.strip()), token.startswith(" ")))
        else:
            result.append(read(token))
    return result


def kind_of(text: str) -> SurfaceKind:
    """The kind of a bare text, tried in the order digits, punctuation, character, word, letters, other.

    Example:
        >>> [kind_of(text) for text in ("1984", "--", "a", "cone", "łódź", "3rd")]
        ['number', 'punctuation', 'character', 'word', 'letters', 'other']
    """
    if text.isdecimal():
        return "number"
    if not re.search(r"\w", text):
        return "punctuation"
    if len(text) == 1:
        return "character"
    if _LATIN.issuperset(text):
        return "word"
    return "letters" if text.isalpha() else "other"


def surface_reader(described: Mapping[str, Any]) -> Callable[[str], Surface]:
    """The function that reads the tokens of a tokenizer."""
    model = described["model"]
    around = json.dumps([described.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False)
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    if '"ByteLevel"' in around:
        alphabet = _alphabet()
        return lambda token: _bytes(token, alphabet, suffix)
    if "▁" in around or '"Metaspace"' in around:
        fallback = bool(model.get("byte_fallback"))
        return lambda token: _spaced(token, fallback)
    return lambda token: _pieces(token, prefix, suffix)


def _pieces(token: str, prefix: str, suffix: str) -> Surface:
    """Marked inside a word (WordPiece), or at its end."""
    if prefix and token.startswith(prefix) and len(token) > len(prefix):
        return Surface(token, token.removeprefix(prefix).removesuffix(suffix), "piece", inner=True)
    text = token.removesuffix(suffix)
    return Surface(token, text, kind_of(text), inner=bool(suffix) and not token.endswith(suffix))


def _spaced(token: str, fallback: bool) -> Surface:
    """Marked at the beginning of a word (SentencePiece)."""
    if fallback and re.fullmatch(r"<0x[0-9A-F]{2}>", token):
        return Surface(token, "", "byte")
    return _begun(token, token.replace("▁", " "))


def _bytes(token: str, alphabet: dict[str, int], suffix: str) -> Surface:
    """Characters that stand for bytes (GPT-2)."""
    bare = token.removesuffix(suffix)
    try:
        text = bytes(alphabet[sign] for sign in bare).decode()
    except (KeyError, UnicodeDecodeError):
        return Surface(token, "", "byte")
    surface = _begun(token, text)
    return surface._replace(inner=surface.inner if not suffix else bare == token)


def _begun(token: str, text: str) -> Surface:
    spaced = text.startswith(" ")
    bare = text[1:] if spaced else text
    kind = kind_of(bare)
    return Surface(token, bare, kind, spaced, inner=not spaced and kind != "punctuation")


def _alphabet() -> dict[str, int]:
    """Byte of each character of byte-level vocabularies: printable ones stand for themselves."""
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    printable = {ord(sign) for sign in signs if ord(sign) < 256}
    remaining = iter(byte for byte in range(256) if byte not in printable)
    return {sign: ord(sign) if ord(sign) < 256 else next(remaining) for sign in signs}
