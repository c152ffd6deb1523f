"""Tables of a page, as HTML."""

from collections.abc import Iterable, Sequence


def grid(headings: Sequence[str], lines: Iterable[Sequence[str]], caption: str = "", kind: str = "") -> str:
    """A table that scrolls sideways; headings and cells are HTML, the first cell of a line heads it."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in lines
    )
    named = f"<caption>{caption}</caption>" if caption else ""
    # tabindex: what scrolls must be reachable by keyboard
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}">{named}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
