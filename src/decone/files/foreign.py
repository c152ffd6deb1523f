r"""Strings that come from strangers: cut, every character visible, safe for a sentence, a terminal and markdown.

HTML is escaped where pages are made, and nowhere else.
"""

import re
import unicodedata
from collections.abc import Sequence

VALUE = 80  # characters of a value that a sentence echoes
LONG = 2000  # characters of a sentence or a sample
LABEL = 60  # characters of a token that are shown
CODE_POINTS = 3  # foreign characters of a token whose code points are spelt out
SPACE_MARKS = "\u2581\u2047"  # what tokenizers write for a space and for an unknown character
# Letters and marks that draw nothing; Unicode calls them default ignorable, and the braille blank is blank.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_COMMAND = re.compile(r"\bdecone [a-z]+(?: (?:--?[a-z][\w-]*|[A-Z][A-Z0-9_]*|[\w./+-]*[:=/][\w.,:=/+-]*\w))*")
_CONTROL_MARKS = {"\n": "↵", "\t": "⇥"}
_INVISIBLE = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}  # categories that draw nothing, or turn text around


def plain(text: object, limit: int = 200) -> str:
    r"""A foreign string as it may stand in a sentence: one line, nothing that moves a cursor, not too long.

    Example:
        >>> plain("red \x1b[31m")
        'red \\x1b[31m'
    """
    line = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)[:limit]
    )
    return line[: limit - 1] + "…" if len(line) > limit or len(str(text)) > limit else line


def quoted(value: object, limit: int = VALUE) -> str:
    r"""A user's or a stranger's value as a sentence echoes it: strings in quotes, on one line, not too long.

    Example:
        >>> quoted("red \x1b[31m"), quoted(0.5), quoted("x" * 1000, 4)
        ("'red \\x1b[31m'", '0.5', "'xxx…'")
    """
    if isinstance(value, str):
        return repr(value if len(value) <= limit else f"{value[: limit - 1]}…")
    try:
        return plain(repr(value), limit)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        return f"a {type(value).__name__}"


def join_names(names: Sequence[str], limit: int = 5) -> str:
    """The first names of a list for a sentence.

    Example:
        >>> join_names(["a", "b", "c"], 2)
        'a, b, …'
    """
    return ", ".join(plain(name) for name in names[:limit]) + (", …" if len(names) > limit else "")


def visible(text: str) -> str:
    r"""Makes control, format and unassigned characters visible.

    Example:
        >>> print(visible("a\nb\x00\u202e"))
        a↵b\x00\u202e
    """
    return "".join(_CONTROL_MARKS.get(character) or _visible(character) for character in text)


def visible_token(text: str) -> str:
    """A token's string with its spaces visible too; an empty one as ∅.

    Example:
        >>> visible_token(" the")
        '␣the'
    """
    return visible(text).replace(" ", "␣") or "∅"


def shorten(text: str, limit: int = LONG) -> str:
    """A text of at most `limit` characters and an ellipsis with the full length.

    Example:
        >>> shorten("a" * 1000, 3)
        'aaa… (1,000 characters)'
    """
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


def token_label(text: str, limit: int = LABEL) -> str:
    r"""A token with spaces, control characters and characters that draw nothing made visible, cut where it is long.

    Example:
        >>> print(token_label(" the\u200b\u3164"), token_label("\u0301"))
        ␣the\u200b\u3164 ◌́
    """
    head = text[:limit]
    if head and unicodedata.combining(head[0]):
        head = f"◌{head}"  # a mark alone would sit on the character before it
    marked = "".join(_escape(sign) if _BLANK.match(sign) or _foreign_space(sign) else sign for sign in head)
    tail = f"… ({len(text):,} characters)" if len(text) > limit else ""
    return visible_token(marked) + tail


def code_points(text: str) -> list[str]:
    """Code points of a token's few foreign characters, for which a reader may have no font; empty if there are many.

    Example:
        >>> code_points("##語"), code_points("the"), code_points("日本語学")
        (['U+8A9E'], [], [])
    """
    foreign = [sign for sign in text[:LABEL] if ord(sign) > 0x2AF and sign not in SPACE_MARKS]
    return [f"U+{ord(sign):04X}" for sign in foreign] if len(foreign) <= CODE_POINTS else []


def terminal_text(text: object, limit: int = LONG) -> str:
    """A foreign sentence for a terminal: control characters visible, cut where it is long."""
    return visible(_BLANK.sub(lambda blank: _escape(blank.group()), shorten(str(text), limit)))


def markdown_text(text: object, limit: int = LONG) -> str:
    r"""A foreign sentence for markdown, where HTML, links, addresses and tables mean something.

    Example:
        >>> print(markdown_text("[a](b) | <i> http://c"))
        \[a\](b) \| \<i\> http\://c
    """
    marked = re.sub(r"([\\`*_\[\]<>|~#&$@])", r"\\\1", terminal_text(text, limit))
    return re.sub(r"(?i)(:(?=//)|(?<=www)\.)", r"\\\1", marked)


def markdown_code(text: object, limit: int = LONG) -> str:
    """A foreign string as markdown code, also inside a table.

    Example:
        >>> print(markdown_code("a`b"))
        ``a`b``
    """
    content = terminal_text(text, limit).replace("|", "\\|") or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", content)), default=0))
    pad = " " if content.startswith(("`", " ")) or content.endswith(("`", " ")) else ""
    return f"{fence}{pad}{content}{pad}{fence}"


def code_spans(text: str) -> list[tuple[str, bool]]:
    """Cuts a sentence into text and code: what stands in backticks, without any the decone commands.

    Returns:
        Spans in order; the second item says whether a span is code.

    Example:
        >>> code_spans("run `decone scan MODEL`, or not")
        [('run ', False), ('decone scan MODEL', True), (', or not', False)]
        >>> code_spans("Run decone trim MODEL --text FILE.")
        [('Run ', False), ('decone trim MODEL --text FILE', True), ('.', False)]
    """
    if text.count("`") >= 2:
        pieces = text.split("`")
        if len(pieces) % 2 == 0:  # the last backtick has no partner
            pieces[-2:] = [f"{pieces[-2]}`{pieces[-1]}"]
        spans = [(piece, index % 2 == 1) for index, piece in enumerate(pieces)]
    else:
        spans, last = [], 0
        for match in _COMMAND.finditer(text):
            spans += [(text[last : match.start()], False), (match.group(), True)]
            last = match.end()
        spans.append((text[last:], False))
    return [(span, code) for span, code in spans if span]


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _INVISIBLE:
        return character
    point = ord(character)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _foreign_space(character: str) -> bool:
    return character != " " and unicodedata.category(character) == "Zs"
