import io

from rich.cells import cell_len
from rich.console import Console

from decone.diagnosis.result import ScanResult
from decone.report import scan_terminal


def drawn(result: ScanResult, width: int = 80, colour: bool = False) -> str:
    stream = io.StringIO()
    console = Console(width=width, file=stream, force_terminal=colour, color_system="standard" if colour else None)
    console.print(scan_terminal.render(result))
    return stream.getvalue()


def test_everything_stands_within_80_columns(full_scan: ScanResult) -> None:
    text = drawn(full_scan)
    assert max(map(cell_len, text.splitlines())) <= 80
    for said in (
        "✗ serious: Title serious", "! warning: Title warning", "i note: Title note", "✓ Title good",
        "→ run decone trim serious --text FILE", "own cosine", "+0.450", "Output table", "and 50 more",
        "non-finite", "Pull over push: all 2.50, rare 0.030, special —", "check undertrained passed: 60, limit 500",
        "could not be determined", "1 serious finding",
    ):  # fmt: skip
        assert said in " ".join(text.split()) or said in text, said
    assert text.index("Title serious") < text.index("Title warning") < text.index("Title note")
    assert text.index("Title note") < text.index("Title good") < text.index("Embedding")


def test_nothing_foreign_reaches_the_terminal(full_scan: ScanResult) -> None:
    text = drawn(full_scan)
    for sign in "\x1b\x07\x9b\u202e\u200b\ufeff\u3164":
        assert sign not in text
    flat = "".join(text.split())
    assert "\\x1b[31mred" in flat
    assert "[bold]markup[/bold]" in flat
    assert "[link=http://x]y[/link]" in flat
    assert "x" * 200 not in flat
    assert "(100,000characters)" in flat


def test_colour_is_ours_alone(full_scan: ScanResult, least_scan: ScanResult) -> None:
    ours = drawn(full_scan, colour=True)
    assert "\x1b[1;31m" in ours
    assert "\x1b[1;31m✗ serious: Title serious" in ours
    assert "\x1b]" not in ours
    assert "\x1b]8;" not in ours  # no title, no link
    assert drawn(least_scan, colour=True)


def test_narrow_and_wide_lose_nothing(full_scan: ScanResult) -> None:
    for width in (60, 80, 200):
        flat = "".join(drawn(full_scan, width).split())
        assert "decone" in flat
        assert "Titleserious" in flat
        assert "and50more" in flat
        assert "unreachable" in flat


def test_the_least_there_can_be(least_scan: ScanResult) -> None:
    text = drawn(least_scan)
    assert "no verdicts" in text
    assert "Suspects" not in text
    assert "None" not in text
    assert "nan" not in text
    least_scan.tables.clear()
    assert drawn(least_scan)
