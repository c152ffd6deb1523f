"""Strings of a scanned model, which come from strangers: cut, every sign visible, safe for page, plot and markdown."""

import html
import re
import unicodedata

from decone.report.format import token, visible

LIMIT = 60  # characters of a token that are shown
POINTS = 3  # foreign signs of a token whose code points are told
MARKS = "\u2581\u2047"  # what tokenizers write for a space and for what they do not know
LONG = 2000  # characters of a sentence or a sample
# Letters and marks that draw nothing; Unicode calls them default ignorable, and the braille blank is blank.
BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
COMMAND = re.compile(r"\bdecone [a-z]+(?: (?:--?[a-z][\w-]*|[A-Z][A-Z0-9_]*|[\w./+-]*[:=/][\w.,:=/+-]*\w))*")


def cut(text: str, limit: int = LONG) -> str:
    """A text of at most `limit` characters and an ellipsis that tells the full length.

    Example:
        >>> cut("a" * 1000, 3)
        'aaa… (1,000 characters)'
    """
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


def shown(text: str, limit: int = LIMIT) -> str:
    r"""A token with spaces, control signs and signs that draw nothing made visible, cut where it is long.

    Example:
        >>> print(shown(" the\u200b\u3164"), shown("\u0301"))
        ␣the\u200b\u3164 ◌́
    """
    head = text[:limit]
    if head and unicodedata.combining(head[0]):
        head = f"◌{head}"  # a mark alone would sit on the sign before it
    marked = "".join(_escaped(sign) if BLANK.match(sign) or _space(sign) else sign for sign in head)
    tail = f"… ({len(text):,} characters)" if len(text) > limit else ""
    return token(marked) + tail


def plain(text: object, limit: int = LONG) -> str:
    """A foreign sentence for a terminal: control signs visible, cut where it is long."""
    return visible(BLANK.sub(lambda blank: _escaped(blank.group()), cut(str(text), limit)))


def sentence(text: object, limit: int = LONG) -> str:
    """A foreign sentence for HTML.

    Example:
        >>> sentence("<b>")
        '&lt;b&gt;'
    """
    return html.escape(plain(text, limit))


def word(text: str, limit: int = LIMIT) -> str:
    """A token for HTML; isolated, so that one written from right to left leaves its neighbours in place."""
    return f'<bdi class="token">{html.escape(shown(text, limit))}</bdi>'


def named(text: str) -> str:
    """A token for HTML with the code points of its few foreign signs, for which a reader may have no font.

    Example:
        >>> named("##語")
        '<bdi class="token">##語</bdi> <small class="points">U+8A9E</small>'
    """
    foreign = [sign for sign in text[:LIMIT] if ord(sign) > 0x2AF and sign not in MARKS]
    known = f' <small class="points">{" ".join(f"U+{ord(sign):04X}" for sign in foreign)}</small>'
    return word(text) + (known if 0 < len(foreign) <= POINTS else "")


def drawn(text: str, limit: int = 40) -> str:
    """A token for a plot, whose texts plotly reads as a little HTML."""
    return html.escape(shown(text, limit), quote=False)


def escaped(text: object, limit: int = LONG) -> str:
    r"""A foreign sentence for markdown, where HTML, links, addresses and tables mean something.

    Example:
        >>> print(escaped("[a](b) | <i> http://c"))
        \[a\](b) \| \<i\> http\://c
    """
    marked = re.sub(r"([\\`*_\[\]<>|~#&$@])", r"\\\1", plain(text, limit))
    return re.sub(r"(?i)(:(?=//)|(?<=www)\.)", r"\\\1", marked)


def coded(text: object, limit: int = LONG) -> str:
    """A foreign string as markdown code, also inside a table.

    Example:
        >>> print(coded("a`b"))
        ``a`b``
    """
    inside = plain(text, limit).replace("|", "\\|") or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", inside)), default=0))
    pad = " " if inside.startswith(("`", " ")) or inside.endswith(("`", " ")) else ""
    return f"{fence}{pad}{inside}{pad}{fence}"


def parts(text: str) -> list[tuple[str, bool]]:
    """A sentence in pieces, and whether each is code: what stands in backticks, without any the decone commands.

    Example:
        >>> parts("run `decone scan MODEL`, or not")
        [('run ', False), ('decone scan MODEL', True), (', or not', False)]
        >>> parts("Run decone trim MODEL --text FILE.")
        [('Run ', False), ('decone trim MODEL --text FILE', True), ('.', False)]
    """
    if text.count("`") >= 2:
        pieces = text.split("`")
        if len(pieces) % 2 == 0:  # the last backtick has no partner
            pieces[-2:] = [f"{pieces[-2]}`{pieces[-1]}"]
        found = [(piece, place % 2 == 1) for place, piece in enumerate(pieces)]
    else:
        found, last = [], 0
        for match in COMMAND.finditer(text):
            found += [(text[last : match.start()], False), (match.group(), True)]
            last = match.end()
        found.append((text[last:], False))
    return [(piece, code) for piece, code in found if piece]


def _escaped(sign: str) -> str:
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08x}"


def _space(sign: str) -> bool:
    return sign != " " and unicodedata.category(sign) == "Zs"
