"""A comparison on a page, in a terminal and in markdown: every number, nothing foreign obeyed."""

import base64
import hashlib
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from decone.document import figures as look
from decone.document import html, markdown, terminal
from decone.document.numbers import half, number
from decone.studies import figures
from decone.studies.exhibits import ModelExhibit
from decone.studies.table import MEASURES, StudyTable, build
from decone.studies.view import comparison_document, table_document

KEYS = [measure.key for measure in MEASURES]
PUBLISHED = {
    "threshold": {
        "HR": dict(zip(KEYS, [9.33, 5.14, 0.48, 0.5284, 0.8, 0.7, 0.9], strict=True)),
        "LR": dict(zip(KEYS, [17.46, 9.5, 0.48, 0.3723, 0.8, 0.7, 0.9], strict=True)),
    }
}
HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\x00"


class Reader(HTMLParser):
    """Tags with their attributes, text and the content of every script, as a browser reads them."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    @property
    def figures(self) -> dict[str, Any]:
        return dict(json.loads(self.scripts[0]))


@pytest.fixture(autouse=True)
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library is 5 MB; one test below inlines it."""
    monkeypatch.setattr(look, "library", lambda: "var Plotly = {};")


def written(folder: Path, results: Any, exhibits: list[ModelExhibit] | None = None, **named: Any) -> tuple[str, Reader]:
    table = build("Title", results, named.pop("select", "best"), named.pop("published", None))
    document = comparison_document(table, results, exhibits or [], {"commit": None}, **named)
    path = html.save(folder / "report.html", document)
    content = path.read_text(encoding="utf-8")
    return content, Reader(content)


def test_one_canvas_per_plot(tmp_path: Path, three: dict[str, Any], exhibit: Any) -> None:
    shown = [exhibit(label, "abAB.,") for label in ("mle", "threshold")]
    _, reader = written(tmp_path, three, shown)
    ids = [attrs["id"] for tag, attrs in reader.tags if tag == "div" and "canvas" in (attrs.get("class") or "")]
    # two measures in two languages; loss, alignment, two temperatures; cosine and plane of two runs; decay
    assert len(ids) == 4 + 4 + 4 + 1
    assert set(ids) == set(reader.figures)
    assert all(figure["data"] for figure in reader.figures.values())


def test_nothing_is_loaded(
    tmp_path: Path, three: dict[str, Any], exhibit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    _, reader = written(tmp_path, three, [exhibit("mle", "abAB")])
    for tag, attrs in reader.tags:
        assert tag not in {"link", "iframe", "object", "embed", "img", "base"}, tag
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith("#")
    policy = next(attrs["content"] for _, attrs in reader.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy
    code = reader.scripts[2:]
    assert len(code) == 2
    assert len(code[0]) > 1_000_000
    for script in code:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    styles = html.read("page.css")
    assert "url(" not in styles
    assert "@import" not in styles


def test_foreign_text_stays_text(tmp_path: Path, three: dict[str, Any], exhibit: Any) -> None:
    hostile = three["threshold"]
    for result in hostile.values():
        result["corpus"]["name"] = result["config"]["note"] = result["machine"]["processor"] = HOSTILE
    results = {HOSTILE: three["mle"], "b": hostile}
    shown = [exhibit(HOSTILE, [HOSTILE, "A", "a"], sample=f"x\n{HOSTILE}")]
    table = build(HOSTILE, results, "best", notes=[HOSTILE])
    path = html.save(tmp_path / "p.html", comparison_document(table, results, shown, {HOSTILE: HOSTILE}))
    content = path.read_text(encoding="utf-8")
    reader = Reader(content)
    assert not any(tag == "img" or any(name.startswith("on") for name in attrs) for tag, attrs in reader.tags)
    assert content.lower().count("</script") == content.lower().count("<script") == len(reader.scripts) == 4
    assert "\u202e" not in content
    assert "\x00" not in content
    assert reader.text.count("<img src=x onerror=alert(1)>\\u202e\\x00") > 10
    assert "<img" not in "".join(read_strings(reader.figures)), "plotly reads text as a little HTML"
    assert "&lt;img" in "".join(read_strings(reader.figures))


def read_strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in read_strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in read_strings(part)]
    return [value] if isinstance(value, str) else []


def test_the_summary_claims_only_what_is_clear(tmp_path: Path, three: dict[str, Any]) -> None:
    _, reader = written(tmp_path, three)
    assert "LR best perplexity: better" in reader.text
    assert "LR accuracy: not clear with 3 seeds" in reader.text
    assert "9.10 → 6.90 better" in reader.text
    assert "Not run yet: later." in reader.text
    assert "2 of 3 runs" in reader.text


def test_published_numbers_stand_beside_ours(tmp_path: Path, three: dict[str, Any]) -> None:
    _, reader = written(
        tmp_path, three, published={"mle": {"LR": dict(zip(KEYS, [1.0, 5.55, 1.0, 0.5, 0.5, 0.5, 0.5], strict=True))}}
    )
    assert "paper 5.55" in reader.text
    assert "published number" in reader.text


def test_how_it_was_made(tmp_path: Path, three: dict[str, Any]) -> None:
    three["threshold"][2]["config"]["optimizer"] = {"lr": 0.5}
    _, reader = written(tmp_path, three)
    facts = [
        "6 runs of 20 steps",
        "tiny",
        "900 tokens",
        "every 10 steps",
        "abacus, 2 cores",
        "torch 2.13",
        "2026-01-02",
    ]
    for fact in [*facts, "optimizer.lr", "Settings that differ"]:
        assert fact in reader.text, fact


def test_one_seed_of_one_language(tmp_path: Path, result: Any, exhibit: Any) -> None:
    results = {"mle": {7: result(7, 9.0, 0.4, None)}, "b": {7: result(7, 8.0, 0.5, None)}}
    _, reader = written(tmp_path, results, [exhibit("b", "abcAB", simulated=False)], select="last")
    assert "not clear with 1 seed" in reader.text
    assert "nan" not in reader.text.lower()
    assert "lignment" not in reader.text
    assert "translation" not in reader.text
    assert len(reader.figures) == 2 + 2 + 3


def test_nothing_run_yet(tmp_path: Path) -> None:
    _, reader = written(
        tmp_path,
        {"mle": {}, "b": {}},
        published={"mle": {"HR": dict.fromkeys(KEYS, 1.0), "LR": dict.fromkeys(KEYS, 2.0)}},
    )
    assert "Not run yet: b." in reader.text
    assert "none is finished" in reader.text
    assert "paper 2.00" in reader.text


def test_one_method_alone(tmp_path: Path, three: dict[str, Any]) -> None:
    _, reader = written(tmp_path, {"mle": three["mle"]})
    assert "nothing to compare it with" in reader.text


def test_a_part_of_a_large_vocabulary_is_said(
    tmp_path: Path, three: dict[str, Any], exhibit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "LARGE", 40)
    monkeypatch.setattr(figures, "PLOTTED", 20)
    _, reader = written(tmp_path, three, [exhibit("mle", [f"t{index}" for index in range(41)])])
    assert "the 20 most frequent of 41 tokens" in reader.text


def test_a_failure_leaves_the_old_page_and_nothing_else(
    tmp_path: Path, three: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ValueError, match=r"cannot write .* No space left"):
        written(tmp_path, three)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "old"


def test_a_missing_folder_is_said(tmp_path: Path, three: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot write"):
        written(tmp_path / "nowhere", three)


@pytest.mark.parametrize("module", ["plotly.graph_objects", "plotly.offline"])
def test_a_missing_plotly_is_said(
    tmp_path: Path, three: dict[str, Any], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=re.escape('the page needs plotly: pip install "decone[report]"')):
        written(tmp_path, three)
    assert list(tmp_path.iterdir()) == []


def drawn(table: StudyTable) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal.render(table_document(table)))
    return console.export_text()


def test_all_numbers_stand_within_100_columns(three: dict[str, Any]) -> None:
    table = build("T", three, "best", PUBLISHED)
    text = drawn(table)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for row in table.rows:
        for measure in table.measures:
            cell = row.cells[measure.key]
            assert number(cell.mean.mean, measure.digits) in text
            assert half(cell.mean, measure.digits) in text
            assert cell.published is None or number(cell.published, measure.digits) in text
    assert "−2.20*" in text
    assert "+0.0233 " in text
    assert "±0.1762" in text
    assert "2 of 3" in text
    assert "9\xa0% to 99\xa0%" in text
    assert "1:\xa090\xa0%, 2:\xa020\xa0%, 3:\xa080\xa0%" in text
    assert "not run" in text
    assert "—" in text


def test_one_seed_has_no_interval(three: dict[str, Any]) -> None:
    text = drawn(build("T", {"mle": {1: three["mle"][1]}}, "best"))
    blocks = text.split("n seeds;")[0]
    assert "9.10" in blocks
    assert "±" not in blocks
    assert "nan" not in text


def test_one_language_has_no_alignment(result: Any) -> None:
    text = drawn(build("T", {"mle": {1: result(1, 9.0, 0.4, None)}}, "best"))
    assert "Whole text" in text
    assert "lignment" not in text


def test_markup_and_long_labels_survive(three: dict[str, Any]) -> None:
    label = "[red]x[/red]" + "long" * 12
    text = drawn(build("[b]T[/b]", {"mle": three["mle"], label: three["threshold"]}, "best", notes=["[i]note[/i]"]))
    assert "[b]T[/b]" in text
    assert "[i]note[/i]" in text
    assert "[red]x[/red]" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert text.count("long") >= 12


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, as a GitHub-flavoured parser sees them."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level >= 3:
            assert token.children is not None
            found[-1][-1].append("".join(child.content for child in token.children))
    return found


def test_tables_hold_means_intervals_published_and_seeds(three: dict[str, Any]) -> None:
    published = {"mle": {"HR": dict.fromkeys(KEYS, 9.0), "LR": dict.fromkeys(KEYS, 11.5)}}
    high, low, shares, seeds = tables(markdown.render(table_document(build("T", three, "best", published))))
    assert high[0][:3] == ["Method", "Seeds", "PPL"]
    assert low[1][:4] == ["mle", "3", "13.80 ±0.37", "9.20 ±0.25"]
    assert low[2][:4] == ["paper", "", "11.50", "11.50"]
    change = next(line for line in low if line[0] == "change")
    assert change[3] == "−2.20 ±0.25 better"
    assert change[5] == "+0.0233 ±0.1762 not clear with 3 seeds"
    assert low[-1][:3] == ["later", "not run", "—"]
    assert shares[2] == ["threshold", "2 of 3", "9\xa0% to 99\xa0%", "1: 90\xa0%, 2: 20\xa0%, 3: 80\xa0%"]
    assert seeds[0] == ["Method", "Seed", "HR PPL best", "HR Accuracy", "LR PPL best", "LR Accuracy", "Alignment"]
    assert seeds[5] == ["threshold", "2", "7.10", "0.3600", "7.10", "0.3600", "20\xa0%"]
    assert len(seeds) == 1 + 6


def test_every_line_of_a_table_has_as_many_cells(three: dict[str, Any]) -> None:
    label = "a|b *c* <img src=x> `d` \\ [e](http://f)\ng"
    text = markdown.render(
        table_document(build("T | T", {"mle": three["mle"], label: three["threshold"]}, "best", notes=["<b>|"]))
    )
    for lines in tables(text):
        assert len({len(line) for line in lines}) == 1
    assert tables(text)[0][2 if len(tables(text)[0]) > 3 else 1][0] == label.replace("\n", "↵")
    page = MarkdownIt("commonmark").enable("table").render(text)
    assert "<img" not in page
    assert "<a " not in page
    assert "<em>" not in page
    assert "<b>" not in page


def test_one_seed_and_one_language_in_markdown(result: Any) -> None:
    text = markdown.render(table_document(build("T", {"mle": {1: result(1, 9.0, 0.4, None)}}, "best")))
    assert "9.00 |" in text
    assert "nan" not in text
    assert "lignment" not in text


def test_nothing_run_yet_in_markdown() -> None:
    text = markdown.render(table_document(build("T", {"mle": {}}, "best")))
    assert "not run" in text
    assert "Every seed" not in text
    assert "nan" not in text
