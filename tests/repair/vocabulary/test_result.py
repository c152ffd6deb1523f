"""Reports of growing and trimming as documents: foreign strings are harmless in every medium."""

from pathlib import Path

from tests.repair.vocabularies import build

from decone.document import markdown
from decone.repair.vocabulary.grow import grow
from decone.repair.vocabulary.trim import trim


def test_grow() -> None:
    build("gpt2", Path("m"), padding=1)
    Path("t.txt").write_text("the cat sat on the mat, by the sea. " * 5)
    report = grow("m", "<b>covid,blog,the", Path("n"), text=Path("t.txt"))
    card = markdown.render(report.to_document())
    assert "2 new tokens, 1 of them in rows that were free" in card
    assert "left out: 1 known already (the)" in card
    assert "logits of old tokens bit for bit the same" in card
    page = report._repr_html_()
    assert "<b>covid" not in page
    assert "&lt;b&gt;covid" in page
    assert report.to_dict()["schema"] == "decone.grow/1"


def test_trim() -> None:
    build("gpt2", Path("m"))
    Path("t.txt").write_text("the cat sat")
    report = trim("m", text=Path("t.txt"))
    card = markdown.render(report.to_document())
    assert "a dry run: nothing was written" in card
    assert "tokens of text are cut as before" in card
    assert "go, among others" in card
    assert report.to_dict()["kept"] == report.retained
