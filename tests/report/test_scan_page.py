import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from decone.diagnosis.drawing import Drawing
from decone.diagnosis.result import ScanResult
from decone.report import frame, scan_page, style

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "input", "br", "wbr", "hr"}


class Reader(HTMLParser):
    """A page as a browser reads it, which must close what it opens."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(content)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute stands twice in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data

    def ids(self, tag: str) -> list[str]:
        return [str(attrs["id"]) for found, attrs in self.tags if found == tag and "id" in attrs]

    @property
    def figures(self) -> dict[str, Any]:
        return dict(json.loads(self.scripts[0]))


@pytest.fixture
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "library", lambda: "var Plotly = {};")


def written(folder: Path, result: ScanResult, drawings: list[Drawing]) -> tuple[str, Reader]:
    content = scan_page.write(folder / "scan.html", result, drawings).read_text(encoding="utf-8")
    return content, Reader(content)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def test_everything_found_has_its_place(
    tmp_path: Path, full_scan: ScanResult, drawings: list[Drawing], small_library: None
) -> None:
    _, reader = written(tmp_path, full_scan, drawings)
    sections = ["findings", "numbers", "tables", "suspects", "rows", "behaviour", "blame", "words", "against", "made"]
    assert reader.ids("section") == sections
    # two planes, cosines and norms, one spectrum; three of behaviour, two of gradients, one of words
    assert len(reader.figures) == 7 + 3 + 2 + 1
    assert all(figure["data"] for figure in reader.figures.values())
    assert [name for name in reader.ids("div") if name.startswith("plot-")] == list(reader.figures)
    links = [attrs["href"] for tag, attrs in reader.tags if tag == "a"]
    assert links == [f"#{name}" for name in sections]


def test_the_worst_comes_first(
    tmp_path: Path, full_scan: ScanResult, drawings: list[Drawing], small_library: None
) -> None:
    content, reader = written(tmp_path, full_scan, drawings)
    assert '<h1 class="serious">' in content
    assert "Claim serious." in content
    assert "1 serious finding, 1 warning, 1 note, 1 good. 2 of 3 checks failed." in reader.text
    cards = [content.index(f"Title {severity}") for severity in ("serious", "warning", "note", "good")]
    assert cards == sorted(cards)
    assert "<span>decone</span> <span>trim</span> <span>serious</span> <span>--text</span>" in content
    assert "value0.451" in reader.text
    assert "Threshold:" in reader.text


def test_numbers_of_both_tables(
    tmp_path: Path, full_scan: ScanResult, drawings: list[Drawing], small_library: None
) -> None:
    _, reader = written(tmp_path, full_scan, drawings)
    for said in ("Groups of the embedding", "Groups of the output table", "0.450 output", "0.020 embedding", "31.5"):
        assert said in reader.text, said
    assert "ids 1–3, 90–98" in reader.text
    assert "0.24\xa0%" in reader.text
    assert "of 300" in reader.text
    assert "41.2 [38.0, 44.0]" in reader.text
    assert "differ in width" in reader.text
    assert "+0.250" in reader.text


def test_foreign_text_stays_text(
    tmp_path: Path, full_scan: ScanResult, drawings: list[Drawing], hostile: list[str], small_library: None
) -> None:
    content, reader = written(tmp_path, full_scan, drawings)
    assert content.lower().count("</script") == content.lower().count("<script") == len(reader.scripts) == 5
    for tag, attrs in reader.tags:
        assert tag not in {"img", "b-", "iframe", "link", "object", "embed", "base"}, tag
        assert not any(name.startswith("on") or name == "src" for name in attrs), attrs
    for sign in "\x1b\x07\u202e\u200b\ufeff\u3164":
        assert sign not in content
    for shown in ("<script>alert(1)</script>", "\\x1b[31mred", "\\u202eevil\\u200b\\ufeff", "%{x}{{7*7}}&lt;b&gt;<b>"):
        assert reader.text.count(shown) > 5, shown
    assert "x" * 2001 not in content
    assert "… (100,000 characters)" in reader.text
    said = "".join(strings(reader.figures))
    assert "<script" not in said
    assert "<img" not in said
    assert "&lt;script&gt;" in said


def test_nothing_is_loaded(tmp_path: Path, full_scan: ScanResult, drawings: list[Drawing]) -> None:
    _, reader = written(tmp_path, full_scan, drawings)
    policy = next(attrs["content"] for _, attrs in reader.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'sha256-" in policy
    code = reader.scripts[2:]
    assert len(code) == 3
    assert all(f"'sha256-{frame.digest(script)}'" in policy for script in code)
    styles = frame.read("page.css") + frame.read("scan.css")
    assert "url(" not in styles
    assert "@import" not in styles
    assert "innerHTML" not in frame.read("scan.js")


def test_the_least_there_can_be(tmp_path: Path, least_scan: ScanResult, small_library: None) -> None:
    _, reader = written(tmp_path, least_scan, [])
    assert reader.ids("section") == ["findings", "numbers", "tables", "suspects", "rows", "made"]
    assert "no verdicts" in reader.text
    assert "None: no token" in reader.text
    assert "None: every row" in reader.text
    assert "nan" not in reader.text.lower()
    assert "None," not in reader.text
    least_scan.tables.clear()
    _, reader = written(tmp_path, least_scan, [])
    assert not reader.figures


def test_numbers_that_are_none_of_it(
    tmp_path: Path, full_scan: ScanResult, drawings: list[Drawing], small_library: None
) -> None:
    for facts in full_scan.tables.values():
        facts.spectrum.effective_rank = facts.mean_direction = facts.spectrum.energy_first = float("nan")
        facts.isotropy["all"] = {"raw": float("nan"), "plus_minus": float("inf")}
    full_scan.suspects[0].score, full_scan.suspects[1].norm = float("inf"), float("nan")
    assert full_scan.behaviour is not None
    full_scan.behaviour.perplexity = full_scan.behaviour.groups["all"].perplexity = float("inf")
    _, reader = written(tmp_path, full_scan, drawings)
    assert "nan" not in reader.text
    assert "∞" in reader.text


def test_a_failure_is_said(tmp_path: Path, least_scan: ScanResult, small_library: None) -> None:
    with pytest.raises(ValueError, match=r"cannot write .* choose another place"):
        scan_page.write(tmp_path / "nowhere" / "scan.html", least_scan, [])


# What a reader does, and what is there afterwards; run inside a copy of the page whose policy allows it.
VISIT = """
addEventListener("load", () => setTimeout(() => {
  const box = document.querySelector("#suspects .searchable"), input = box.querySelector("input");
  const rows = () => [...box.querySelectorAll("tbody tr")], said = {};
  const ids = () => rows().slice(0, 3).map((row) => row.cells[1].textContent);
  said.page = rows().length;
  said.status = box.querySelector(".status").textContent;
  box.querySelector(".on").click();
  said.second = ids();
  const heads = [...box.querySelectorAll("thead th")];
  heads[1].querySelector("button").click();
  said.falling = [heads[1].getAttribute("aria-sort"), ...ids()];
  heads[1].querySelector("button").click();
  said.rising = [heads[1].getAttribute("aria-sort"), heads[0].getAttribute("aria-sort"), ...ids()];
  heads[5].querySelector("button").click();
  said.counts = rows().map((row) => row.cells[5].textContent);
  box.querySelector(".on").click();
  input.value = "token";
  input.dispatchEvent(new Event("input"));
  said.first = box.querySelector(".status").textContent;
  input.value = "TOKEN5";
  input.dispatchEvent(new Event("input"));
  said.found = rows().map((row) => row.cells[0].textContent);
  input.value = "nowhere";
  input.dispatchEvent(new Event("input"));
  said.nothing = [rows().length, box.querySelector(".status").textContent];
  said.plots = document.querySelectorAll(".canvas svg.main-svg").length > 0;
  said.drawn = [...document.querySelectorAll(".canvas")].every((canvas) => canvas.querySelector(".main-svg"));
  said.copies = document.querySelectorAll("button.copy").length;
  said.wide = document.documentElement.scrollWidth <= document.documentElement.clientWidth;
  said.title = document.title;
  const out = document.createElement("output");
  out.id = "visit";
  out.textContent = JSON.stringify(said);
  document.body.append(out);
}, 4000));
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_draws_it_and_obeys_nobody(
    tmp_path: Path, full_scan: ScanResult, drawings: list[Drawing], hostile: list[str]
) -> None:
    content, _ = written(tmp_path, full_scan, drawings)
    page = tmp_path / "visited.html"
    allowed = content.replace("script-src ", f"script-src 'sha256-{frame.digest(VISIT)}' ", 1)
    page.write_text(allowed.replace("</body>", f"<script>{VISIT}</script></body>"), encoding="utf-8", newline="\n")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,900", "--virtual-time-budget=9000",
        "--enable-logging=stderr", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    said = json.loads(done.stdout.split('<output id="visit">')[1].split("</output>")[0].replace("&amp;", "&"))
    assert said["title"].endswith(": decone scan")
    assert "owned" not in said["title"].split("document")[0]
    assert said["drawn"]
    assert said["plots"]
    assert said["wide"]
    assert said["copies"] == 4
    assert said["page"] == 25
    assert said["status"] == "1–25 of 60"
    assert said["second"] == ["125", "126", "127"]
    assert said["falling"] == ["descending", "159", "158", "157"]
    assert said["rising"] == ["ascending", "none", "100", "101", "102"]
    assert said["counts"][0] == "10"
    assert said["counts"] == sorted(said["counts"], key=int, reverse=True)
    assert said["first"] == "1–25 of 48 found, 60 in all"
    assert sorted(said["found"]) == [f"token5{digit}" for digit in range(10)]
    assert said["nothing"] == [0, "nothing found"]
    assert "<img" not in done.stdout
    assert "alert(1)&lt;" in done.stdout
