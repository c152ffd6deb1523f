import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token as MarkdownToken
from rich.cells import cell_len
from rich.console import Console
from tests.document.reading import INVISIBLE, Reader, strings

from decone.diagnosis.result import ScanResult
from decone.diagnosis.view import scan_document
from decone.document import figures, html, markdown, terminal
from decone.metrics.table_survey import TableSample

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECTIONS = ["findings", "numbers", "tables", "suspects", "rows", "behaviour", "blame", "words", "against", "made"]


@pytest.fixture
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "library", lambda: "var Plotly = {};")


def page(result: ScanResult, drawings: list[TableSample]) -> Reader:
    return Reader(html.page(scan_document(result, drawings)))


def lines(result: ScanResult, width: int = 80, colour: bool = False) -> str:
    stream = io.StringIO()
    console = Console(width=width, file=stream, force_terminal=colour, color_system="standard" if colour else None)
    console.print(terminal.render(scan_document(result)))
    return stream.getvalue()


def card(result: ScanResult) -> str:
    return markdown.render(scan_document(result))


def parsed(text: str) -> list[MarkdownToken]:
    """Every token, as a GitHub-flavoured parser sees them."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    return [inner for token in tokens for inner in (token, *(token.children or []))]


def test_the_page_has_every_section_and_figure(
    full_scan: ScanResult, drawings: list[TableSample], small_library: None
) -> None:
    reader = page(full_scan, drawings)
    assert reader.ids("section") == SECTIONS
    # two planes, cosines and norms, one spectrum; three of behaviour, two of gradients, one of words
    assert len(reader.figures) == 7 + 3 + 2 + 1
    assert all(figure["data"] for figure in reader.figures.values())
    assert [name for name in reader.ids("div") if name.startswith("plot-")] == list(reader.figures)
    links = [attrs["href"] for tag, attrs in reader.tags if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS]


def test_the_page_begins_with_the_worst(
    full_scan: ScanResult, drawings: list[TableSample], small_library: None
) -> None:
    reader = page(full_scan, drawings)
    assert ("h1", {"class": "serious"}) in reader.tags
    assert "Claim serious." in reader.text
    assert "1 serious finding, 1 warning, 1 note, 1 good. 2 of 3 checks failed." in reader.text
    positions = [reader.text.index(f"Title {severity}") for severity in ("serious", "warning", "note", "good")]
    assert positions == sorted(positions)
    assert "decone trim serious --text FILE" in reader.text
    assert "value0.451" in reader.text
    assert "Threshold:" in reader.text


@pytest.mark.parametrize(
    "text",
    [
        "Groups of the embedding", "Groups of the output table", "0.450 output", "0.020 embedding", "31.5",
        "ids 1–3, 90–98", "0.24\xa0%", "of 300", "41.3 [38.0, 44.0]", "differ in width", "+0.250",
        "norms0 to 2.00", "own cosine", "to special", "By script", "Rep-3", "U+0301",
        "could not be determined", "undertrained passed: 60, limit 500",
    ],
)  # fmt: skip
def test_the_page_has_the_numbers(
    text: str, full_scan: ScanResult, drawings: list[TableSample], small_library: None
) -> None:
    words = full_scan.words[0]
    words.plain = 41.26
    full_scan.suspects[0].token = "\u0301"
    reader = page(full_scan, drawings)
    assert text in reader.text.replace("norms ", "norms")


def test_foreign_text_stays_text(full_scan: ScanResult, drawings: list[TableSample], small_library: None) -> None:
    content = html.page(scan_document(full_scan, drawings))
    reader = Reader(content)
    assert content.lower().count("</script") == content.lower().count("<script") == len(reader.scripts) == 4
    for tag, attrs in reader.tags:
        assert tag not in {"img", "b-", "iframe", "link", "object", "embed", "base"}
        assert not any(name.startswith("on") or name == "src" for name in attrs)
    for sign in INVISIBLE:
        assert sign not in content
    for text in ("<script>alert(1)</script>", "\\x1b[31mred", "\\u202eevil\\u200b\\ufeff", "%{x}{{7*7}}&lt;b&gt;<b>"):
        assert reader.text.count(text) > 5, text
    assert "x" * 2001 not in content
    assert "… (100,000 characters)" in reader.text
    texts = "".join(strings(reader.figures))
    assert "<script" not in texts
    assert "<img" not in texts
    assert "&lt;script&gt;" in texts


def test_the_page_loads_nothing(full_scan: ScanResult, drawings: list[TableSample]) -> None:
    reader = page(full_scan, drawings)
    assert reader.policy.startswith("default-src 'none';")
    assert "http" not in reader.policy
    assert "unsafe-eval" not in reader.policy
    scripts = reader.scripts[2:]
    assert len(scripts) == 2
    assert len(scripts[0]) > 1_000_000
    assert all(f"'sha256-{html.digest(script)}'" in reader.policy for script in scripts)


def test_the_least_scan_has_a_page(least_scan: ScanResult, small_library: None) -> None:
    reader = page(least_scan, [])
    assert reader.ids("section") == ["findings", "numbers", "tables", "suspects", "rows", "made"]
    for text in ("no verdicts", "None: no token", "None: every row"):
        assert text in reader.text
    assert "nan" not in reader.text.lower()
    assert "None," not in reader.text
    least_scan.tables.clear()
    assert not page(least_scan, []).figures


def test_numbers_that_are_not_finite_are_dashes(
    full_scan: ScanResult, drawings: list[TableSample], small_library: None
) -> None:
    for facts in full_scan.tables.values():
        facts.spectrum.effective_rank = facts.mean_direction = facts.spectrum.energy_first = float("nan")
        facts.isotropy["all"] = {"raw": float("nan"), "plus_minus": float("inf")}
    full_scan.suspects[0].score, full_scan.suspects[1].norm = float("inf"), float("nan")
    assert full_scan.behaviour is not None
    full_scan.behaviour.perplexity = full_scan.behaviour.groups["all"].perplexity = float("inf")
    reader = page(full_scan, drawings)
    assert "nan" not in reader.text
    assert "∞" in reader.text
    assert "nan" not in lines(full_scan)


def test_a_notebook_gets_a_fragment(full_scan: ScanResult, drawings: list[TableSample]) -> None:
    reader = Reader(html.fragment(scan_document(full_scan, drawings)))
    assert not reader.scripts
    assert not reader.ids("div")
    assert "Claim serious." in reader.text
    assert "token24" in reader.text
    assert "token25" not in reader.text
    assert "and 35 more" in reader.text


def test_the_terminal_stays_within_80_columns(full_scan: ScanResult) -> None:
    text = lines(full_scan)
    assert max(map(cell_len, text.splitlines())) <= 80
    positions = [text.index(f"Title {severity}") for severity in ("serious", "warning", "note", "good")]
    assert positions == sorted(positions)
    assert positions[-1] < text.index("Groups of the embedding")


@pytest.mark.parametrize(
    "text",
    [
        "✗ serious: Title serious", "! warning: Title warning", "i note: Title note", "✓ Title good",
        "→ run decone trim serious --text FILE", "own cosine", "+0.450", "Groups of the output table", "and 50 more",
        "non-finite", "undertrained passed: 60, limit 500", "could not be determined", "1 serious finding",
        "Effective rank", "IsoScore 0.300", "mean direction 0.200", "bits per byte 0.957", "290 of 300",
    ],
)  # fmt: skip
def test_the_terminal_has(text: str, full_scan: ScanResult) -> None:
    flat = " ".join(lines(full_scan).split())
    assert text in flat or "".join(text.split()) in "".join(flat.split())


def test_the_terminal_shows_pull_over_push(full_scan: ScanResult) -> None:
    text = lines(full_scan)
    rows = [line.split() for line in text[text.index("Pull over push") :].splitlines()[:4]]
    assert rows[1:] == [["all", "2.50", "2.00"], ["rare", "0.030", "—"], ["special", "—", "—"]]


def test_nothing_foreign_reaches_the_terminal(full_scan: ScanResult) -> None:
    text = lines(full_scan)
    for sign in f"{INVISIBLE}\x9b":
        assert sign not in text
    flat = "".join(text.split())
    for foreign in ("\\x1b[31mred", "[bold]markup[/bold]", "[link=http://x]y[/link]", "(100,000characters)"):
        assert foreign in flat
    assert "x" * 200 not in flat


def test_colour_comes_from_decone_alone(full_scan: ScanResult, least_scan: ScanResult) -> None:
    text = lines(full_scan, colour=True)
    assert "\x1b[1;31m✗ serious: Title serious" in text
    assert "\x1b]" not in text
    assert lines(least_scan, colour=True)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_width_of_a_terminal_loses_anything(width: int, full_scan: ScanResult) -> None:
    flat = "".join(lines(full_scan, width).split())
    for text in ("decone", "Titleserious", "and50more", "unreachable"):
        assert text in flat


def test_the_least_scan_in_a_terminal(least_scan: ScanResult) -> None:
    text = lines(least_scan)
    assert "no verdicts" in text
    for absent in ("Suspects  ", "None", "nan"):
        assert absent not in text.replace("Suspects         0", "")
    least_scan.tables.clear()
    assert lines(least_scan)


@pytest.mark.parametrize(
    "text",
    [
        "`decone trim serious --text FILE`",
        "| Mean cosine | +0.020 (embedding) / +0.450 (output) |",
        "| Bits per byte | 0.957 |",
        "| unreachable | 12 | 0.24\xa0% | no text is ever split into this token (1–3, 90–98) |",
        "IsoScore **0.300**",
        "undertrained **passed**: 60, limit 500",
        "Scanned with decone in 7 seconds: ",
        "torch 2.13",
    ],
)
def test_the_card_has(text: str, full_scan: ScanResult) -> None:
    assert text in card(full_scan)


def test_the_card_begins_with_the_worst(full_scan: ScanResult) -> None:
    text = card(full_scan)
    assert text.startswith("## Embedding health\n\n**✗ Claim serious.** 1 serious finding, 1 warning, 1 note, 1 good.")
    assert text.index("Title serious") < text.index("Title warning") < text.index("Title good")
    assert "`decone trim good" not in text
    assert text.endswith(".\n")


def test_a_reader_of_the_card_obeys_nothing_foreign(full_scan: ScanResult) -> None:
    text = card(full_scan)
    tokens = parsed(text)
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "fence", "code_block", "hr"}
    assert sum(token.type == "heading_open" for token in tokens) == 1
    content = "".join(token.content for token in tokens if token.type in {"text", "code_inline", "text_special"})
    for foreign in ("<script>alert(1)</script>", "[c](http://d)", "[bold]markup[/bold]"):
        assert foreign in content
    assert "http://" not in text.replace("`", "").replace("\\://", "") or "http\\://" in text
    for sign in INVISIBLE:
        assert sign not in text


def test_rows_of_a_table_have_equally_many_cells(full_scan: ScanResult) -> None:
    tables: list[list[int]] = []
    for token in parsed(card(full_scan)):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append(0)
        elif token.type in {"th_open", "td_open"}:
            tables[-1][-1] += 1
    assert len(tables) == 2
    assert all(len(set(table)) == 1 for table in tables)
    assert len(tables[1]) == 1 + 8


def test_the_least_scan_has_a_card(least_scan: ScanResult) -> None:
    text = card(least_scan)
    assert "no verdicts" in text
    assert "`m`" in text
    assert "frequencies not known" in text
    assert "None" not in text
    assert "nan" not in text


# What a reader does on the page, and what it then holds; run inside a copy of the page whose policy allows it.
VISIT = """
addEventListener("load", () => setTimeout(() => {
  const box = document.querySelector("#suspects .searchable"), input = box.querySelector("input");
  const rows = () => [...box.querySelectorAll("tbody tr")], report = {};
  const ids = () => rows().slice(0, 3).map((row) => row.cells[1].textContent);
  report.page = rows().length;
  report.status = box.querySelector(".status").textContent;
  box.querySelector(".on").click();
  report.second = ids();
  const heads = [...box.querySelectorAll("thead th")];
  heads[1].querySelector("button").click();
  report.falling = [heads[1].getAttribute("aria-sort"), ...ids()];
  heads[1].querySelector("button").click();
  report.rising = [heads[1].getAttribute("aria-sort"), heads[0].getAttribute("aria-sort"), ...ids()];
  heads[5].querySelector("button").click();
  report.counts = rows().map((row) => row.cells[5].textContent);
  box.querySelector(".on").click();
  input.value = "token";
  input.dispatchEvent(new Event("input"));
  report.first = box.querySelector(".status").textContent;
  input.value = "TOKEN5";
  input.dispatchEvent(new Event("input"));
  report.found = rows().map((row) => row.cells[0].textContent);
  input.value = "nowhere";
  input.dispatchEvent(new Event("input"));
  report.nothing = [rows().length, box.querySelector(".status").textContent];
  report.plots = document.querySelectorAll(".canvas svg.main-svg").length > 0;
  report.drawn = [...document.querySelectorAll(".canvas")].every((canvas) => canvas.querySelector(".main-svg"));
  report.copies = document.querySelectorAll("button.copy").length;
  report.wide = document.documentElement.scrollWidth <= document.documentElement.clientWidth;
  report.title = document.title;
  const out = document.createElement("output");
  out.id = "visit";
  out.textContent = JSON.stringify(report);
  document.body.append(out);
}, 4000));
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_draws_the_page_and_obeys_no_stranger(
    tmp_path: Path, full_scan: ScanResult, drawings: list[TableSample]
) -> None:
    content = html.page(scan_document(full_scan, drawings))
    path = tmp_path / "visited.html"
    allowed = content.replace("script-src ", f"script-src 'sha256-{html.digest(VISIT)}' ", 1)
    path.write_text(allowed.replace("</body>", f"<script>{VISIT}</script></body>"), encoding="utf-8", newline="\n")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,900", "--virtual-time-budget=9000",
        "--enable-logging=stderr", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    assert "CONSOLE" not in run.stderr, [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    report = json.loads(run.stdout.split('<output id="visit">')[1].split("</output>")[0].replace("&amp;", "&"))
    assert report["title"].endswith(": decone scan")
    assert "owned" not in report["title"].split("document")[0]
    assert report["drawn"]
    assert report["plots"]
    assert report["wide"]
    assert report["copies"] == 4
    assert report["page"] == 25
    assert report["status"] == "1–25 of 60"
    assert report["second"] == ["125", "126", "127"]
    assert report["falling"] == ["descending", "159", "158", "157"]
    assert report["rising"] == ["ascending", "none", "100", "101", "102"]
    assert report["counts"][0] == "10"
    assert report["counts"] == sorted(report["counts"], key=int, reverse=True)
    assert report["first"] == "1–25 of 48 found, 60 in all"
    assert sorted(report["found"]) == [f"token5{digit}" for digit in range(10)]
    assert report["nothing"] == [0, "nothing found"]
    assert "<img" not in run.stdout
    assert "alert(1)&lt;" in run.stdout


def test_a_result_is_a_document_by_itself(full_scan: ScanResult) -> None:
    assert full_scan.to_document().title == scan_document(full_scan).title
    assert "Claim serious." in full_scan._repr_html_()
    full_scan.seconds = float("inf")
    assert full_scan.to_dict()["seconds"] is None
    assert full_scan.to_dict()["schema"] == "decone.scan/1"
