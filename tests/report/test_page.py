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

from decone.report import geometry, page, style
from decone.studies.exhibits import Exhibit
from decone.studies.table import build

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
    monkeypatch.setattr(style, "library", lambda: "var Plotly = {};")


def written(folder: Path, results: Any, exhibits: list[Exhibit] | None = None, **named: Any) -> tuple[str, Reader]:
    table = build("Title", results, named.pop("select", "best"), named.pop("published", None))
    path = page.write(folder / "report.html", table, results, exhibits or [], {"commit": None}, **named)
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
    styles = (Path(page.__file__).parent / "page.css").read_text(encoding="utf-8")
    assert "url(" not in styles
    assert "@import" not in styles


def test_foreign_text_stays_text(tmp_path: Path, three: dict[str, Any], exhibit: Any) -> None:
    hostile = three["threshold"]
    for result in hostile.values():
        result["corpus"]["name"] = result["config"]["note"] = result["machine"]["processor"] = HOSTILE
    results = {HOSTILE: three["mle"], "b": hostile}
    shown = [exhibit(HOSTILE, [HOSTILE, "A", "a"], sample=f"x\n{HOSTILE}")]
    table = build(HOSTILE, results, "best", notes=[HOSTILE])
    path = page.write(tmp_path / "p.html", table, results, shown, {HOSTILE: HOSTILE}, [HOSTILE])
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


def test_given_sentences_replace_the_derived_ones(tmp_path: Path, three: dict[str, Any]) -> None:
    _, reader = written(tmp_path, three, sentences=["A finding."])
    assert "A finding." in reader.text
    assert "interval −" not in reader.text
    assert "9.10 → 6.90 better" in reader.text


def test_published_numbers_stand_beside_ours(tmp_path: Path, three: dict[str, Any]) -> None:
    _, reader = written(tmp_path, three, published={"mle": {"LR": [1.0, 5.55, 1.0, 0.5, 0.5, 0.5, 0.5]}})
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
    _, reader = written(tmp_path, {"mle": {}, "b": {}}, published={"mle": {"HR": [1.0] * 7, "LR": [2.0] * 7}})
    assert "Not run yet: b." in reader.text
    assert "none is finished" in reader.text
    assert "paper 2.00" in reader.text


def test_one_method_alone(tmp_path: Path, three: dict[str, Any]) -> None:
    _, reader = written(tmp_path, {"mle": three["mle"]})
    assert "nothing to compare it with" in reader.text


def test_a_part_of_a_large_vocabulary_is_said(
    tmp_path: Path, three: dict[str, Any], exhibit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometry, "MANY", 40)
    monkeypatch.setattr(geometry, "DRAWN", 20)
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
