"""Strings that a page, a plot, a terminal or markdown could obey, and readers of what was drawn."""

import json
from html.parser import HTMLParser
from typing import Any

HOSTILE = [
    "<script>alert(1)</script>",
    '"onload=alert(2) x="',
    "'><img src=x onerror=alert(3)>",
    "</script></style></title>",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "\u202eevil\u200b\ufeff",
    "[bold]markup[/bold] [link=http://x]y[/link]",
    "x" * 100_000,
    "%{x}{{7*7}}&lt;b&gt;<b>",
    "\u0301\u3164\ud7b0",
    "| a `b` [c](http://d) | <!-- \n# head",
    "document.title='owned'",
]
ALL = " ".join(text for text in HOSTILE if len(text) < 100)  # every short one of them, in any sentence
INVISIBLE = "\x1b\x07\u202e\u200b\ufeff\u3164"
VOID = {"meta", "input", "br", "wbr", "hr"}


class Reader(HTMLParser):
    """A page as a browser reads it, which must close what it opens."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(content)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute stands twice in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data

    def ids(self, tag: str) -> list[str]:
        return [str(attrs["id"]) for name, attrs in self.tags if name == tag and "id" in attrs]

    def classes(self) -> set[str]:
        return {name for _, attrs in self.tags for name in (attrs.get("class") or "").split()}

    @property
    def figures(self) -> dict[str, Any]:
        return dict(json.loads(self.scripts[0]))

    @property
    def policy(self) -> str:
        contents = [attrs["content"] for _, attrs in self.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
        return str(contents[0])


def strings(value: Any) -> list[str]:
    """All strings in nested values."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []
