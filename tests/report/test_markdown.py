from typing import Any

from markdown_it import MarkdownIt

from decone.report import markdown
from decone.studies.table import build


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
    published = {"mle": {"HR": [9.0] * 7, "LR": [11.5] * 7}}
    high, low, shares, seeds = tables(markdown.render(build("T", three, "best", published)))
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
    text = markdown.render(build("T | T", {"mle": three["mle"], label: three["threshold"]}, "best", notes=["<b>|"]))
    for table in tables(text):
        assert len({len(line) for line in table}) == 1
    assert tables(text)[0][2 if len(tables(text)[0]) > 3 else 1][0] == label.replace("\n", "↵")
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<img" not in html
    assert "<a " not in html
    assert "<em>" not in html
    assert "<b>" not in html


def test_one_seed_and_one_language(result: Any) -> None:
    text = markdown.render(build("T", {"mle": {1: result(1, 9.0, 0.4, None)}}, "best"))
    assert "9.00 |" in text
    assert "nan" not in text
    assert "lignment" not in text


def test_nothing_run_yet() -> None:
    text = markdown.render(build("T", {"mle": {}}, "best"))
    assert "not run" in text
    assert "Every seed" not in text
    assert "nan" not in text
