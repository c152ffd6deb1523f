from pathlib import Path

import pytest

from decone.report import frame, style
from decone.report.frame import Canvases, Plot, Section


def test_a_script_cannot_end_early() -> None:
    assert frame.inline("a = '</SCRIPT>';\r\nb") == "a = '<\\/SCRIPT>';\nb"


def test_data_cannot_end_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "library", lambda: "")
    canvases = Canvases()
    canvases.grid([Plot("a", "b", style.figure([style.graph_objects().Scatter(text=["</script><!--"])]))])
    page = frame.document("t", "", [], canvases, {"</script>": "x"})
    assert page.lower().count("</script>") == page.lower().count("<script") == 4
    assert "<!--" not in page


def test_sections_are_linked_and_follow_what_stands_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "library", lambda: "")
    sections = [Section("one", "One", "", "first"), Section("two", "Two", "lede", "second", "<hr>")]
    page = frame.document("t", "<h1>t</h1>", sections, Canvases(), {})
    assert page.index("first") < page.index("<hr>") < page.index("second")
    assert '<a href="#two">Two</a>' in page
    assert "<p class=lede>lede</p>" in page


def test_a_saved_file_leaves_nothing_beside_it(tmp_path: Path) -> None:
    assert frame.save(tmp_path / "page.html", "é\n").read_bytes() == "é\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
