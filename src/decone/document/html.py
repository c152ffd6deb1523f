"""A document as HTML: one file that needs nothing else, no server, no network, no fonts; or a fragment for a notebook.

Every string that a template prints goes through `foreign.terminal_text`, which makes control characters visible and
cuts what is long, and is then escaped; only `Markup` made here is exempt.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from decone.document import figures
from decone.document.blocks import (
    SYMBOLS,
    ContentBlock,
    Document,
    Figure,
    Grid,
    GridCell,
    Inline,
    Media,
    Phrase,
    Section,
    arranged,
    commands,
    spans,
    visible_blocks,
)
from decone.files.atomic import write_text
from decone.files.foreign import code_points, shorten, terminal_text, token_label

# What could end a script or be read as markup inside it, as JSON escapes.
UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class Canvas:
    """The element that a figure is markup into."""

    name: str
    height: int  # pixels
    square: bool


def page(document: Document) -> str:
    """The document as one self-contained file, whose policy lets only its own scripts run.

    Raises:
        ValueError: it holds figures, and plotly is missing.
    """
    writer = _HtmlWriter(with_figures=True)
    sections = writer.sections(document)
    scripts = [inline_script(read("page.js"))]
    if writer.plots:
        scripts.insert(0, inline_script(figures.library()))
    plots = ",".join(f"{json.dumps(name)}:{plot.to_json()}" for name, plot in writer.plots.items())
    return (
        templates()
        .get_template("page.html.jinja")
        .render(
            document=document,
            sections=sections,
            draw=writer.macros,
            policy=Markup(" ".join(f"'sha256-{digest(script)}'" for script in scripts)),
            styles=Markup(read("page.css")),
            figures=Markup(f"{{{plots}}}".translate(UNSAFE)),
            colours=Markup(json.dumps(figures.dark_colours()).translate(UNSAFE)),
            scripts=[Markup(script) for script in scripts],
        )
    )


def fragment(document: Document) -> str:
    """The document as an element for a notebook: no figures, no scripts, long tables cut to their first page.

    Example:
        >>> from decone.document.blocks import Note, Section, Title
        >>> html = fragment(Document(Title("<script>"), (Section("notes", "", (Note("a & b"),)),)))
        >>> "<script>" in html, "&lt;script&gt;" in html, "a &amp; b" in html
        (False, True, True)
    """
    writer = _HtmlWriter(with_figures=False)
    return (
        templates()
        .get_template("fragment.html.jinja")
        .render(
            document=document,
            sections=writer.sections(document),
            draw=writer.macros,
            styles=Markup(read("fragment.css")),
        )
    )


def save(path: Path, document: Document) -> Path:
    """Writes a page; a kill leaves the old file or the new one.

    Raises:
        ValueError: the file cannot be written, or plotly is missing.
    """
    write_text(path, page(document))
    return path


def read(name: str) -> str:
    """The text of a style sheet or script of this package."""
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def inline_script(script: str) -> str:
    r"""A script that no browser changes on reading and that cannot end early.

    Example:
        >>> print(inline_script("a = '</SCRIPT>';"))
        a = '<\/SCRIPT>';
    """
    return re.sub(r"</(?=script)", r"<\\/", script.replace("\r\n", "\n").replace("\r", "\n"), flags=re.IGNORECASE)


def digest(script: str) -> str:
    """The name of a script in a content security policy."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def templates() -> Environment:
    """The templates of this package; what they print is made visible, then escaped."""
    return Environment(
        loader=PackageLoader("decone.document", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else terminal_text(value),
        trim_blocks=True,
        keep_trailing_newline=True,
    )


class _HtmlWriter:
    """Draws blocks by the macros of a template, and collects the figures of a page."""

    def __init__(self, with_figures: bool) -> None:
        self.with_figures = with_figures
        self.plots: dict[str, figures.Plot] = {}
        dark = figures.dark_colours()
        names = {
            "bar_width": _bar_width,
            "blocks": self.blocks,
            "breakable": _breakable,
            "canvas": self.canvas,
            "code_points": code_points,
            "commands": commands,
            "counterpart": lambda colour: dark.get(colour, colour),
            "inline": self.inline,
            "media": Media.PAGE,
            "remaining_rows": self.remaining_rows,
            "split_lines": lambda text: text.split("\n"),
            "split_words": lambda text: shorten(text, 400).split(" "),
            "symbols": SYMBOLS,
            "token_label": token_label,
            "visible_rows": self.rows,
        }
        self.macros = templates().get_template("blocks.html.jinja").make_module(names)

    def sections(self, document: Document) -> list[tuple[Section, Markup]]:
        """Sections, each with its content; a fragment leaves out those that hold figures alone."""
        sections = [(section, self.blocks(section.blocks)) for section in document.visible_sections(Media.PAGE)]
        return [(section, content) for section, content in sections if content or self.with_figures]

    def blocks(self, blocks: Sequence[ContentBlock]) -> Markup:
        """Blocks in order, those that stand side by side in an element of their own."""
        visible = [
            block for block in visible_blocks(blocks, Media.PAGE) if self.with_figures or not isinstance(block, Figure)
        ]
        content = Markup()
        for arrangement, members in arranged(visible):
            markup = Markup().join(self._macro(block) for block in members)
            content += Markup('<div class="{}">{}</div>').format(arrangement, markup) if arrangement else markup
        return content

    def inline(self, phrase: Phrase) -> Markup:
        """A phrase; strings in it are escaped."""
        return Markup().join(
            escape(terminal_text(span)) if isinstance(span, str) else self._macro(span) for span in spans(phrase)
        )

    def canvas(self, block: Figure) -> Canvas:
        """The element for a figure, which is markup now."""
        plot = block.draw()
        name = f"plot-{len(self.plots)}"
        self.plots[name] = plot
        return Canvas(name, int(plot.layout.height), bool(plot.layout.yaxis.scaleanchor))

    def rows(self, grid: Grid) -> list[list[GridCell]]:
        """Rows of a grid; a fragment, which cannot page, has the first page of a long one."""
        rows = list(grid.visible_rows(Media.PAGE))
        return rows if self.with_figures or not grid.search else rows[: grid.page]

    def remaining_rows(self, grid: Grid) -> str:
        """A note on the rows that a fragment leaves out."""
        remaining = len(grid.rows) - len(self.rows(grid))
        return f"and {remaining:,} more" if remaining else ""

    def _macro(self, element: ContentBlock | Inline) -> Markup:
        macro = getattr(self.macros, type(element).__name__.lower())
        markup: Markup = macro(element)
        return markup


def _bar_width(share: float | int) -> str:
    """Width of a bar in percent of its cell."""
    return f"{100 * min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0:.1f}"


def _breakable(text: str) -> Markup:
    """A label that may be broken after its signs, not inside its words."""
    pieces = re.findall(r"[^:+,]*[:+,]|[^:+,]+", terminal_text(text))
    return Markup("<wbr>").join(escape(piece) for piece in pieces)
