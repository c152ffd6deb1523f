"""New tokens as users write them: a file or a list, in the letters of a text or in the spelling of a vocabulary.

A tokenizer writes a space before a word into the word's own token (Ġword, ▁word), or marks the inside of a word
(##word). A new token in that spelling stands where the mark says. One without a mark is a word, found alone and not
inside longer words, but for what no word ends at: letters, scripts without spaces, punctuation, marks such as
<|im_start|>.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import Any, Literal

import regex
from tokenizers import Tokenizer, pre_tokenizers

from decone.data import corpora
from decone.files.foreign import join_names, plain
from decone.repair.alignment.surfaces import Surface, surface_reader
from decone.repair.vocabulary.tokenizer import encode, model_kind
from decone.vocab.scripts import script

Match = Literal["word", "anywhere"]
Special = Literal["marks", "all", "none"]
Position = Literal["word", "start", "inside", "anywhere"]

# Written without spaces between words: there a token stands between letters of other words.
_UNSPACED = {"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Yi", "mixed"}
_LIKE_FILES = (".txt", ".tsv", ".csv", ".list", ".json")
_MARK = regex.compile(r"<\|.+\|>|<[^<>\s]+>|\[[^\[\]\s]+\]")
_LETTER = regex.compile(r"\p{L}\p{M}*")
_WORD_EDGES = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")  # what the library takes for a word
_BYTES = frozenset(pre_tokenizers.ByteLevel.alphabet())
_SPACE_MARKS = ("Ġ", "▁")
_LITERAL = "--literal takes every letter as it stands"
_WITH_SPACE = (
    "taken with the space before them, as Ġ does, for alone they would be decoded to other letters: {}; " + _LITERAL
)
_PHRASES = {"word": "as words", "start": "behind a space", "inside": "inside words", "anywhere": "anywhere"}


@dataclass(frozen=True)
class Spelling:
    """A new token.

    Attributes:
        request: as the user wrote it.
        text: as it stands in a text, without the space before it.
        position: "word": alone; "start": behind a space, and longer words may begin with it; "inside": behind the
            beginning of a word; "anywhere": all of these.
        special: True where decoding may leave it out, as <|im_end|>.
        piece: the token in the vocabulary of the tokenizer's model; None for one that is cut out of texts before.
    """

    request: str
    text: str
    position: Position
    special: bool = False
    piece: str | None = None

    @property
    def spaced(self) -> str:
        """The text with the space that belongs to it."""
        return f" {self.text}" if self.position == "start" else self.text

    @property
    def name(self) -> str:
        """The token as it stands in the vocabulary."""
        return self.spaced if self.piece is None else self.piece


@dataclass
class NewTokens:
    """Tokens to add.

    Attributes:
        spellings: those that are new, in the order of the request.
        skipped: all others, by the reason.
        literal: letters that look like marks of a vocabulary, but are none in this one.
    """

    spellings: list[Spelling]
    skipped: dict[str, list[str]] = field(default_factory=dict)
    literal: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Sentences on tokens that are skipped, and on those that are read in the spelling of the vocabulary."""
        reasons = [
            f"{len(names):,} {reason}" + (f" ({join_names(names)})" if any(names) else "")
            for reason, names in self.skipped.items()
        ]
        notes = [f"left out: {'; '.join(reasons)}"] if reasons else []
        requests: dict[str, list[str]] = {}
        for spelling in self.spellings:
            if spelling.request == spelling.text != spelling.spaced:
                requests.setdefault(_WITH_SPACE, []).append(spelling.request)
            elif spelling.request != spelling.spaced:
                phrase = f"read as the vocabulary spells them, {_PHRASES[spelling.position]}: {{}}; {_LITERAL}"
                requests.setdefault(phrase, []).append(spelling.request)
        notes += [phrase.format(join_names(names)) for phrase, names in requests.items()]
        if special := [spelling.request for spelling in self.spellings if spelling.special]:
            notes.append(f"special, so that decoding can leave them out: {join_names(special)}; see --special")
        if self.literal:
            notes.append(
                f"taken letter by letter, for this vocabulary marks a space otherwise: {join_names(self.literal)}"
            )
        return notes


def read_tokens(argument: str) -> list[str]:
    """Reads tokens as the command line names them, without white space around them.

    Args:
        argument: a UTF-8 file with one token per line, or the tokens themselves with commas between them.

    Raises:
        ValueError: there is no such file but perhaps another one is meant, or it holds no token.

    Example:
        >>> read_tokens("covid, blog")
        ['covid', 'blog']
    """
    path = Path(argument)
    try:
        is_file = path.is_file()
        similar = [] if is_file or "," in argument else sorted(path.parent.glob(f"{escape(path.name)}.*"))
    except (OSError, ValueError):  # a long list is no name of a file
        is_file, similar = False, []
    if is_file:
        text = corpora.read_text(path, mend="write one token per line")
        return [line.strip() for line in text.removesuffix("\n").split("\n")]
    if "," not in argument and (argument.endswith(_LIKE_FILES) or os.sep in argument):
        raise ValueError(f"no file {plain(argument)}; name a file with one token per line, or tokens: covid,blog")
    if similar:
        raise ValueError(
            f"no file {plain(argument)}, but there is {plain(similar[0])}; name that, or add a comma if the token "
            f"itself is meant: {plain(argument)},"
        )
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise ValueError("the tokens are not UTF-8; write them into a file, one per line") from None
    return [token.strip() for token in argument.removesuffix(",").split(",")]


def select_new(
    tokens: Iterable[str],
    spec: Mapping[str, Any],
    tokenizer: Tokenizer,
    unknown: set[int],
    match: Match = "word",
    special: Special = "marks",
    literal: bool = False,
) -> NewTokens:
    """Selects the tokens that a tokenizer does not have.

    Args:
        tokens: requested tokens.
        spec: the tokenizer.json.
        tokenizer: the old tokenizer, built from it.
        unknown: its ids for whatever it does not know.
        match: "word": a token is not found inside a longer word, where that can be; "anywhere": inside words too.
        special: tokens that decoding may leave out: those in marks such as <|…|>, <…> and […], all, or none.
        literal: True takes Ġ, ▁ and ## for letters of a text.

    Raises:
        ValueError: none is new.

    Example:
        >>> import json
        >>> from tokenizers import models
        >>> tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
        >>> selection = select_new(["a", "b", "b", ""], json.loads(tokenizer.to_str()), tokenizer, {0})
        >>> [spelling.text for spelling in selection.spellings], selection.notes()
        (['b'], ['left out: 1 known already (a); 1 given twice (b); 1 empty'])
    """
    read = surface_reader(spec)
    new: dict[str, Spelling] = {}
    skipped: dict[str, list[str]] = {
        "known already": [],
        "read as one token already": [],
        "given twice": [],
        "empty": [],
    }
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    for token in tokens:
        if not token.strip():
            skipped["empty"].append(token)
            continue
        spelling = _spell(token, read, match, special, literal)
        spelling = replace(spelling, piece=_model_piece(spelling, spec, tokenizer))
        if token in vocabulary or spelling.name in vocabulary:
            skipped["known already"].append(token)
        elif spelling.name in new:
            skipped["given twice"].append(token)
        else:
            new[spelling.name] = spelling
    added = tokenizer.get_added_tokens_decoder()
    encodings = encode(tokenizer, [spelling.spaced for spelling in new.values()])
    for spelling, encoding in zip(list(new.values()), encodings, strict=True):
        ids = encoding.ids
        if spelling.position != "inside" and len(ids) == 1 and ids[0] not in unknown and ids[0] not in added:
            skipped["read as one token already"].append(spelling.request)
            del new[spelling.name]
    selection = NewTokens(list(new.values()), {reason: names for reason, names in skipped.items() if names})
    if not new:
        reason = "; ".join(selection.notes()) or "none was given"
        raise ValueError(f"there is no new token ({reason}); give some that the tokenizer does not have")
    if not literal:
        spelled = [spelling.text for spelling in selection.spellings]
        selection.literal = [text for text in spelled if text.startswith(_SPACE_MARKS)]
    return selection


def is_mark(text: str) -> bool:
    """True for a token that programs write, not people: <|im_start|>, <image>, [SEP].

    Example:
        >>> is_mark("<|im_start|>"), is_mark("[SEP]"), is_mark("a<b")
        (True, True, False)
    """
    return _MARK.fullmatch(text) is not None


def _spell(token: str, read: Callable[[str], Surface], match: Match, special: Special, literal: bool) -> Spelling:
    """The text of a token and where it stands."""
    surface = Surface(token, token, "other") if literal else read(token)
    text, spaced = surface.text, surface.spaced
    if surface.kind == "byte" or not text.strip():  # no text in the spelling of the vocabulary
        text, spaced = token, False
        if surface.kind == "byte" and token.startswith("Ġ") and token != "Ġ" and not literal:
            text, spaced = token[1:], True
    if text.startswith(" "):
        text, spaced = text[1:], True
    is_special = special == "all" or (special == "marks" and not spaced and is_mark(text))
    if spaced:
        position: Position = "start"
    elif surface.kind == "piece":
        position = "inside"
    elif match == "anywhere" or is_special or not _is_word(text):
        position = "anywhere"
    elif surface.kind == "byte" and _BYTES.issuperset(text):
        position = "start"  # alone, the decoder would take its letters for bytes; a space is none of them
    else:
        position = "word"
    return Spelling(token, text, position, is_special)


def _model_piece(spelling: Spelling, spec: Mapping[str, Any], tokenizer: Tokenizer) -> str | None:
    """A new token as the model of a tokenizer can have it, or None."""
    model = spec["model"]
    kind, prefix = model_kind(model), model.get("continuing_subword_prefix") or ""
    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    if spelling.special:
        return None
    normal = spelling.text if normalizer is None else normalizer.normalize_str(spelling.text)
    if kind == "WordPiece" and spelling.position == "inside":
        return prefix + normal
    if kind == "BPE" and spelling.position == "anywhere" and not prefix and not model.get("end_of_word_suffix"):
        bare = normal.removeprefix("▁")
        return bare if len(bare) == 1 and '"ByteLevel"' not in json.dumps(spec.get("pre_tokenizer")) else None
    if kind != "Unigram":
        return None
    pieces = [normal] if splitter is None else [piece for piece, _ in splitter.pre_tokenize_str(normal)]
    if len(pieces) != 1:
        return None
    bare = pieces[0].removeprefix("▁")
    marked = "▁" in json.dumps([spec.get("normalizer"), spec.get("pre_tokenizer")], ensure_ascii=False)
    return f"▁{bare}" if marked and spelling.position != "anywhere" else bare or None


def _is_word(text: str) -> bool:
    """True where the ends of a token can be ends of a word, and more than one letter stands between them."""
    edges = _WORD_EDGES.match(text[0]) and _WORD_EDGES.match(text[-1])
    return bool(edges) and not _LETTER.fullmatch(text) and script(text) not in _UNSPACED
