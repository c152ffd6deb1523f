"""README.md and docs/*.md tell the truth: their Python runs, their commands and options exist, so do what they link to.

Every fenced `python` block runs in a namespace and a folder of its own; the comment `<!-- no-test: reason -->` right
above a block leaves it out. Commands are not run: each `decone` line of a `console`, `bash` or `sh` block must name a
command that exists, and only options that its help knows.
"""

import doctest
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.is_file()]

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w+-]*)[^\n`]*$")
NO_TEST = re.compile(r"<!--\s*no-test:\s*(?P<reason>.+?)\s*-->")
LINK = re.compile(r"\]\((?!\w+:|#)(?P<path>[^)#\s]+)(?:#[^)\s]*)?\)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
END_OF_COMMAND = {"|", "||", "&", "&&", ";", ">", ">>", "2>", "<"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the number of its first line, its language and text, and why it is not tested."""

    page: Path
    line: int
    language: str
    text: str
    no_test: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines, number, above = text.splitlines(), 0, ""
    while number < len(lines):
        opening = FENCE.match(lines[number])
        number += 1
        if opening is None:
            above = lines[number - 1].strip() or above
            continue
        first, body = number + 1, []
        while number < len(lines) and not lines[number].strip().startswith(opening["ticks"]):
            body.append(lines[number].removeprefix(opening["indent"]))
            number += 1
        number += 1
        reason = NO_TEST.search(above)
        yield Block(page, first, opening["language"], "\n".join(body) + "\n", reason and reason["reason"])
        above = ""


def commands(text: str, program: str) -> Iterator[list[str]]:
    """Words after `program` in the lines of a shell block that call it, continued lines joined.

    Where a block has prompts, the lines without one are output.
    """
    lines = text.replace("\\\n", " ").splitlines()
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in prompted or lines:
        if line.split()[:1] != [program]:
            continue
        words = shlex.split(line, comments=True)
        end = next((place for place, word in enumerate(words) if word in END_OF_COMMAND), len(words))
        yield words[1:end]


BLOCKS = [block for page in PAGES for block in blocks(page, page.read_text(encoding="utf-8"))]
SHELL = [block for block in BLOCKS if block.language in {"bash", "console", "sh", "shell"}]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in {"python", "pycon"}], ids=str)
def test_python_runs(block: Block) -> None:
    if block.no_test:
        pytest.skip(block.no_test)
    namespace = {"__name__": "__main__"}
    if ">>> " in block.text:
        example = doctest.DocTestParser().get_doctest(
            block.text, namespace, str(block), str(block.page), block.line - 1
        )
        said: list[str] = []
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        result = doctest.DocTestRunner(optionflags=flags).run(example, out=said.append)
        assert not result.failed, "".join(said)
    else:
        # Blank lines in front make tracebacks point at the line of the page.
        exec(compile("\n" * (block.line - 1) + block.text, str(block.page), "exec"), namespace)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        pytest.param(str(block), words, id=f"{block}-{words[0] if words else 'alone'}")
        for block in SHELL
        for words in commands(block.text, "decone")
    ],
)
def test_commands_exist(
    where: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from decone.cli.main import main

    command = [word for word in words[:1] if not word.startswith("-")]
    monkeypatch.setattr(sys, "argv", ["decone", *command, "--help"])
    for name, value in {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    try:
        status = main()
    except SystemExit as stop:
        status = stop.code
    told = capsys.readouterr()
    assert not status, f"{where}: `decone {' '.join(command)} --help` exits with {status}: {told.err}"
    known = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", COLOUR.sub("", told.out)))
    used = {word.partition("=")[0] for word in words if re.match(r"--\w", word)}
    assert used <= known, f"{where}: `decone {' '.join(command)}` has no {', '.join(sorted(used - known))}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for block in SHELL:
        for words in commands(block.text, "make"):
            goals = {word for word in words if "=" not in word and not word.startswith("-")}
            assert goals <= targets, f"{block}: the Makefile has no {', '.join(sorted(goals - targets))}"


def test_installs_are_pinned() -> None:
    """Without the constraints file pip may fetch gigabytes of another torch."""
    for block in SHELL:
        for words in commands(block.text, "pip"):
            if words[:1] == ["install"]:
                assert "constraints.txt" in words, f"{block}: add -c constraints.txt to pip {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = page.read_text(encoding="utf-8")
    for block in blocks(page, prose):
        prose = prose.replace(block.text, "")
    dead = [link["path"] for link in LINK.finditer(prose) if not (page.parent / link["path"]).exists()]
    assert not dead, f"{page.name} links to what is not there: {', '.join(dead)}"


def test_blocks_and_commands_are_found() -> None:
    text = "x\n\n<!-- no-test: needs a hub -->\n```python\n1 / 0\n```\n\n"
    text += "```console\n$ decone a --b=1 \\\n  --c | cat\ndecone isn't\n```\n"
    first, second = blocks(ROOT / "README.md", text)
    assert (first.line, first.language, first.text, first.no_test) == (5, "python", "1 / 0\n", "needs a hub")
    assert (second.line, second.no_test) == (9, None)
    assert list(commands(second.text, "decone")) == [["a", "--b=1", "--c"]]
