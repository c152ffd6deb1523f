import base64
import hashlib
import os
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from tests.document.conftest import plot
from tests.document.reading import INVISIBLE, Reader, strings

from decone.document import figures, html
from decone.document.blocks import (
    Document,
    Figure,
    Grid,
    GridCell,
    GridColumn,
    Media,
    Note,
    Section,
    Styled,
    Swatch,
    Title,
    Token,
    Verdict,
)

RENDERERS = [html.page, html.fragment]


@pytest.fixture
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library is 5 MB."""
    monkeypatch.setattr(figures, "library", lambda: "var Plotly = {};")


def document(*blocks: object, **title: str) -> Document:
    return Document(Title("Title", **title), [Section("one", "One", blocks)])


@pytest.mark.parametrize("render", RENDERERS)
def test_no_block_obeys_a_string(
    render: Callable[[Document], str], hostile_document: Document, small_library: None
) -> None:
    content = render(hostile_document)
    reader = Reader(content)
    assert content.lower().count("</script") == content.lower().count("<script") == len(reader.scripts)
    for tag, attrs in reader.tags:
        assert tag not in {"img", "iframe", "link", "object", "embed", "base", "a-"}
        assert not any(name.startswith("on") or name == "src" for name in attrs)
        assert (attrs.get("href") or "#").startswith("#")
    for sign in INVISIBLE:
        assert sign not in content
    for text in ("<script>alert(1)</script>", "\\x1b[31mred", "\\u202eevil\\u200b\\ufeff", "%{x}{{7*7}}&lt;b&gt;<b>"):
        assert reader.text.count(text) > 20, text
    assert "x" * 2001 not in content
    assert "… (100,000 characters)" in reader.text


def test_a_template_cannot_forget_to_escape() -> None:
    template = html.templates().from_string('<p title="{{ text }}">{{ text }}</p>{{ own }}')
    content = template.render(text='"<b>\u202e', own=Markup("<i>"))
    assert content == '<p title="&#34;&lt;b&gt;\\u202e">&#34;&lt;b&gt;\\u202e</p><i>'
    with pytest.raises(UndefinedError):
        html.templates().from_string("{{ absent }}").render()


def test_plots_read_their_texts_as_text(hostile_document: Document, small_library: None) -> None:
    texts = "".join(strings(Reader(html.page(hostile_document)).figures))
    assert "<script" not in texts
    assert "<img" not in texts
    assert "&lt;script&gt;" in texts


def test_the_policy_lets_only_the_page_s_own_scripts_run() -> None:
    reader = Reader(html.page(document(Figure("Plot", "how", plot))))
    assert reader.policy.startswith(
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src 'sha"
    )
    assert "http" not in reader.policy
    code = reader.scripts[2:]
    assert len(code) == 2
    assert len(code[0]) > 1_000_000
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in code}
    assert set(re.findall(r"'sha256-([^']+)'", reader.policy)) == hashes


@pytest.mark.parametrize("name", ["page.css", "fragment.css", "page.js"])
def test_styles_and_scripts_load_nothing_and_make_no_markup(name: str) -> None:
    content = html.read(name)
    for word in ("url(", "@import", "http", "innerHTML", "eval(", "<"):
        assert word not in content.replace(" < ", " ").replace("left < right", "")


def test_templates_are_shipped_with_the_package() -> None:
    names = {file.name for file in files("decone.document").joinpath("templates").iterdir()}
    assert names >= {"blocks.html.jinja", "page.html.jinja", "fragment.html.jinja", "page.css", "page.js"}


def test_a_page_without_figures_needs_no_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    reader = Reader(html.page(document(Note("text"))))
    assert len(reader.scripts) == 3
    assert not reader.figures


@pytest.mark.parametrize("module", ["plotly.graph_objects", "plotly.offline"])
def test_a_missing_plotly_is_an_error_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=re.escape('the page needs plotly: pip install "decone[report]"')):
        html.save(tmp_path / "page.html", document(Figure("Plot", "how", plot)))
    assert list(tmp_path.iterdir()) == []


def test_a_fragment_holds_no_figure_no_script_and_styles_only_itself() -> None:
    rows = [[Token(str(index)), index] for index in range(30)]
    content = html.fragment(
        document(Figure("Plot", "how", plot), Grid(["Token", "Id"], rows, search="a token", page=20))
    )
    reader = Reader(content)
    assert not reader.scripts
    assert "canvas" not in reader.classes()
    assert "19" in reader.text
    assert "and 10 more" in reader.text
    rules = [rule for rule in re.findall(r"([^{}@;]+)\{", html.read("fragment.css")) if "media" not in rule]
    selectors = [part.strip() for rule in rules for part in rule.split(",") if "prefers" not in part]
    assert all(selector.startswith(".decone") for selector in selectors)


def test_a_fragment_leaves_out_sections_of_figures_alone() -> None:
    sections = [Section("one", "Plots", [Figure("Plot", "how", plot)]), Section("two", "Notes", [Note("text")])]
    text = Reader(html.fragment(Document(Title("t"), sections))).text
    assert "Notes" in text
    assert "Plots" not in text


def test_data_cannot_end_its_script(small_library: None) -> None:
    def draw() -> figures.Plot:
        return figures.figure([figures.graph_objects().Scatter(text=["</script><!--"])])

    page = html.page(document(Figure("a", "b", draw)))
    assert page.lower().count("</script>") == page.lower().count("<script") == 4
    assert "<!--" not in page


def test_a_script_cannot_end_early() -> None:
    assert html.inline_script("a = '</SCRIPT>';\r\nb") == "a = '<\\/SCRIPT>';\nb"


def test_sections_are_linked_and_follow_their_switches() -> None:
    switches = [("method-0", Swatch("mle", figures.LIGHT[0]))]
    sections = [
        Section("one", "One", [Note("first")]),
        Section("two", "Two", [Note("second")], "lede", switches),
        Section("text", "Text", [Note("third")], media=Media.TEXT),
    ]
    content = html.page(Document(Title("t"), sections))
    assert content.index("first") < content.index('data-group="method-0"') < content.index("second")
    assert [attrs["href"] for tag, attrs in Reader(content).tags if tag == "a"] == ["#one", "#two"]
    assert '<p class="lede">lede</p>' in content
    assert "third" not in content


def test_figures_stand_in_order_and_are_drawn_once(small_library: None) -> None:
    calls: list[int] = []

    def draw() -> figures.Plot:
        calls.append(1)
        return figures.figure([], height=300 + len(calls), yaxis={"scaleanchor": "x"} if len(calls) == 2 else {})

    reader = Reader(html.page(document(Figure("a", "b", draw), Figure("c", "d", draw, wide=True), Note("e"))))
    assert list(reader.figures) == ["plot-0", "plot-1"]
    canvases = [attrs for _, attrs in reader.tags if "canvas" in (attrs.get("class") or "")]
    assert [attrs["style"] for attrs in canvases] == ["height:301px", "height:302px"]
    assert [attrs["class"] for attrs in canvases] == ["canvas", "canvas square"]
    assert ("figure", {"class": "wide"}) in reader.tags
    assert len(calls) == 2


def test_cells_carry_numbers_to_sort_by() -> None:
    grid = Grid(
        ["Token", "Id", "Score", GridColumn("Why", "left", wrap=True), GridColumn("hidden", media=Media.TEXT)],
        [["the", GridCell("7", 7), 0.125, "a reason", "x"], ["a", GridCell("8", 8), None, "", "x"]],
        search="a token",
    )
    reader = Reader(html.page(document(grid)))
    assert [attrs["data-value"] for _, attrs in reader.tags if "data-value" in attrs] == ["7", "0.125", "8"]
    assert [attrs["data-sort"] for _, attrs in reader.tags if "data-sort" in attrs] == [
        "text",
        "number",
        "number",
        "text",
    ]
    assert ("td", {"class": "left wrap"}) in reader.tags
    assert "0.125—" in "".join(reader.text.split()).replace("areasona8", "")
    assert "hidden" not in reader.text


@pytest.mark.parametrize(("share", "width"), [(0.25, "25.0"), (-1.0, "0.0"), (3.0, "100.0"), (float("nan"), "0.0")])
def test_bars_stay_within_their_cell(share: float, width: str) -> None:
    content = html.page(document(Grid(["a", "b"], [["x", GridCell(0.5, bar=share)]])))
    assert f'<span style="width:{width}%">' in content


def test_commands_can_be_copied_and_do_not_break_at_hyphens() -> None:
    content = html.page(document(Verdict("note", "Title", "meaning", "`decone trim M --text F`, or `cosreg`")))
    words = "<span>decone</span> <span>trim</span> <span>M</span> <span>--text</span> <span>F</span>"
    assert f'<code class="command">{words}</code>' in content
    assert '<code class="name"><span>cosreg</span></code>' in content


def test_colours_have_a_counterpart_on_a_dark_ground() -> None:
    content = html.page(document(Note((Swatch("a:b+c", figures.LIGHT[1], mono=True), Styled("better", "good")))))
    assert f"--light:{figures.LIGHT[1]};--dark:{figures.DARK[1]}" in content
    assert "a:<wbr>b+<wbr>c" in content
    assert '<span class="good-text">better</span>' in content
    assert "prefers-color-scheme: dark" in content


def test_a_saved_page_is_alone_in_its_folder(tmp_path: Path) -> None:
    path = html.save(tmp_path / "page.html", document(Note("é")))
    assert "é" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_failure_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.html").write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ValueError, match=r"cannot write .* No space left"):
        html.save(tmp_path / "page.html", document())
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot write"):
        html.save(tmp_path / "absent" / "page.html", document())
