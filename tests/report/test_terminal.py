from typing import Any

from rich.console import Console

from decone.report import terminal
from decone.report.format import half, number
from decone.studies.table import Table, build

PUBLISHED = {
    "threshold": {"HR": [9.33, 5.14, 0.48, 0.5284, 0.8, 0.7, 0.9], "LR": [17.46, 9.5, 0.48, 0.3723, 0.8, 0.7, 0.9]}
}


def drawn(table: Table) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal.render(table))
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
    assert "2/3  [9\xa0%, 99\xa0%]" in text
    assert "1:\xa090%  2:\xa020%  3:\xa080%" in text
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
