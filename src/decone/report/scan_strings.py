"""Foreign strings for HTML and for plots, which plotly reads as a little HTML."""

import html

from decone.files.foreign import LABEL, LONG, code_points, terminal_text, token_label


def sentence(text: object, limit: int = LONG) -> str:
    """A foreign sentence for HTML.

    Example:
        >>> sentence("<b>")
        '&lt;b&gt;'
    """
    return html.escape(terminal_text(text, limit))


def word(text: str, limit: int = LABEL) -> str:
    """A token for HTML; isolated, so that one written from right to left leaves its neighbours in place."""
    return f'<bdi class="token">{html.escape(token_label(text, limit))}</bdi>'


def named(text: str) -> str:
    """A token for HTML with the code points of its few foreign signs, for which a reader may have no font.

    Example:
        >>> named("##語")
        '<bdi class="token">##語</bdi> <small class="points">U+8A9E</small>'
    """
    points = code_points(text)
    return word(text) + (f' <small class="points">{" ".join(points)}</small>' if points else "")


def drawn(text: str, limit: int = 40) -> str:
    """A token for a plot, whose texts plotly reads as a little HTML."""
    return html.escape(token_label(text, limit), quote=False)
