from markdown_it import MarkdownIt
from markdown_it.token import Token

from decone.diagnosis.result import ScanResult
from decone.report import scan_markdown


def parsed(text: str) -> list[Token]:
    """Every token, as a GitHub-flavoured parser sees them."""
    found = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    return [part for token in found for part in (token, *(token.children or []))]


def test_verdicts_numbers_and_provenance(full_scan: ScanResult) -> None:
    text = scan_markdown.render(full_scan)
    assert text.startswith("## Embedding health\n\n**✗ Claim serious.** 1 serious finding, 1 warning, 1 note, 1 good.")
    assert text.index("Title serious") < text.index("Title warning") < text.index("Title good")
    assert "`decone trim serious --text FILE`" in text
    assert "`decone trim good" not in text
    assert "| Mean cosine | 0.020 (embedding) / 0.450 (output table) |" in text
    assert "| Bits per byte | 0.957 |" in text
    assert "| unreachable | 12 | 0.24\xa0% |" in text
    assert "| undertrained | 60 | 500 | passed |" in text
    assert "Scanned with decone in 7 seconds: " in text
    assert "torch 2.13" in text
    assert text.endswith(".\n")


def test_foreign_text_is_text_for_a_reader(full_scan: ScanResult) -> None:
    text = scan_markdown.render(full_scan)
    kinds = {token.type for token in parsed(text)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "fence", "code_block", "hr"}, kinds
    assert sum(token.type == "heading_open" for token in parsed(text)) == 1
    said = "".join(token.content for token in parsed(text) if token.type in {"text", "code_inline", "text_special"})
    assert "<script>alert(1)</script>" in said
    assert "[c](http://d)" in said
    assert "[bold]markup[/bold]" in said
    assert "http://" not in text.replace("`", "").replace("\\://", "") or "http\\://" in text
    for sign in "\x1b\x07\u202e\u200b\ufeff\u3164":
        assert sign not in text


def test_every_line_of_a_table_has_as_many_cells(full_scan: ScanResult) -> None:
    rows: list[int] = []
    tables: list[list[int]] = []
    for token in parsed(scan_markdown.render(full_scan)):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            rows.append(0)
        elif token.type in {"th_open", "td_open"}:
            rows[-1] += 1
        elif token.type == "tr_close":
            tables[-1].append(rows[-1])
    assert len(tables) == 3
    assert all(len(set(table)) == 1 for table in tables)
    assert len(tables[1]) == 1 + 8
    assert len(tables[2]) == 1 + 3


def test_the_least_there_can_be(least_scan: ScanResult) -> None:
    text = scan_markdown.render(least_scan)
    assert "no verdicts" in text
    assert "None" not in text
    assert "nan" not in text
    assert "`m`" in text
    assert "frequencies not known" in text
