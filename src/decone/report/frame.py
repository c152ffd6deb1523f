"""What every page shares: one HTML file that needs nothing else, no server, no network, no fonts."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from decone.files.atomic import write_text
from decone.report import style

# What could end a script or be read as markup inside it, as JSON escapes.
UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class Plot:
    """A figure with its heading (HTML) and one sentence on how to read it."""

    heading: str
    how: str
    figure: style.Figure
    wide: bool = False  # over both columns


@dataclass(frozen=True)
class Section:
    """A part of a page: its anchor, its heading and lede (HTML), its content (HTML), and what stands before it."""

    name: str
    heading: str
    lede: str
    content: str
    before: str = ""


@dataclass
class Canvases:
    """Collects the figures of a page, and gives each its place."""

    drawn: dict[str, style.Figure] = field(default_factory=dict)

    def grid(self, plots: Sequence[Plot]) -> str:
        """Places for figures side by side, one above the other where the page is narrow."""
        return f'<div class="grid">{"".join(self._place(plot) for plot in plots)}</div>'

    def _place(self, plot: Plot) -> str:
        name = f"plot-{len(self.drawn)}"
        self.drawn[name] = plot.figure
        height = int(plot.figure.layout.height)
        shape = " square" if plot.figure.layout.yaxis.scaleanchor else ""
        return (
            f"<figure{' class=wide' if plot.wide else ''}>"
            f'<figcaption><h3>{plot.heading}</h3><p class="how">{plot.how}</p></figcaption>'
            f'<div class="canvas{shape}" id="{name}" style="height:{height}px"></div></figure>'
        )


def document(
    title: str,
    top: str,
    sections: Sequence[Section],
    canvases: Canvases,
    colours: Mapping[str, str],
    styles: str = "",
    also: Sequence[str] = (),
) -> str:
    """A page as text.

    Args:
        title: of the window (HTML).
        top: what stands above the links (HTML).
        sections: in order.
        canvases: the figures that the sections have places for.
        colours: for each light colour of the figures the one on a dark ground.
        styles: rules behind those of page.css.
        also: names of scripts of this package to run after page.js.

    Raises:
        ValueError: plotly is missing.
    """
    links = "".join(f'<a href="#{section.name}">{section.heading}</a>' for section in sections)
    body = "".join(
        f'{section.before}<section id="{section.name}"><h2>{section.heading}</h2>'
        f"{f'<p class=lede>{section.lede}</p>' if section.lede else ''}{section.content}</section>"
        for section in sections
    )
    scripts = [inline(style.library()), *(inline(read(name)) for name in ("page.js", *also))]
    hashes = " ".join(f"'sha256-{digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {hashes}"
    pieces = ",".join(f"{json.dumps(name)}:{figure.to_json()}" for name, figure in canvases.drawn.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{read("page.css")}{styles}</style>
</head>
<body>
<header class="top"><div>{top}<nav>{links}</nav></div></header>
<main>{body}</main>
<footer><div>Drawn by decone. The file holds everything it shows and loads nothing.</div></footer>
<noscript><p class="how">The plots need JavaScript; the tables do not.</p></noscript>
<script type="application/json" id="figures">{f"{{{pieces}}}".translate(UNSAFE)}</script>
<script type="application/json" id="colours">{json.dumps(dict(colours)).translate(UNSAFE)}</script>
{"".join(f"<script>{script}</script>" for script in scripts)}
</body>
</html>
"""


def save(path: Path, content: str) -> Path:
    """Writes a page atomically.

    Raises:
        ValueError: the file cannot be written.
    """
    write_text(path, content)
    return path


def read(name: str) -> str:
    """The text of a style sheet or script of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def inline(script: str) -> str:
    r"""A script that no browser changes on reading and that cannot end early.

    Example:
        >>> print(inline("a = '</SCRIPT>';"))
        a = '<\/SCRIPT>';
    """
    return re.sub(r"</(?=script)", r"<\\/", script.replace("\r\n", "\n").replace("\r", "\n"), flags=re.IGNORECASE)


def digest(script: str) -> str:
    """What a content security policy calls a script by."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
