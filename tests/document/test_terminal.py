import io

import pytest
from rich.console import Console
from tests.document.reading import INVISIBLE

from decone.document import terminal
from decone.document.blocks import (
    Chips,
    ContentBlock,
    Document,
    Facts,
    Grid,
    GridCell,
    GridColumn,
    Media,
    Note,
    Section,
    Swatch,
    Title,
    Token,
    Verdict,
)


def drawn(document: Document, width: int = 80, colour: bool = False) -> str:
    stream = io.StringIO()
    console = Console(width=width, file=stream, force_terminal=colour, color_system="standard" if colour else None)
    console.print(terminal.render(document))
    return stream.getvalue()


def blocks(*blocks: ContentBlock) -> list[str]:
    """Lines below the title."""
    lines = drawn(Document(Title("t"), [Section("one", "One", blocks)])).splitlines()[2:]
    return [line.rstrip() for line in lines]


def test_no_block_obeys_a_string(hostile_document: Document) -> None:
    text = drawn(hostile_document)
    for sign in f"{INVISIBLE}\x9b":
        assert sign not in text
    flat = "".join(text.split())
    for foreign in ("<script>alert(1)</script>", "\\x1b[31mred", "[bold]markup[/bold]", "[link=http://x]y[/link]"):
        assert flat.count(foreign) > 20, foreign
    assert "x" * 2001 not in flat
    assert "(100,000characters)" in flat


def test_colours_come_from_decone_alone(hostile_document: Document) -> None:
    text = drawn(hostile_document, colour=True)
    assert "\x1b]" not in text
    assert "\x1b[1;31m✗ serious: " in text


def test_a_caption_stands_over_the_first_column() -> None:
    rows = [[Swatch("rare", "#000000"), 30522, 0.25], ["all", None, GridCell(0.5, below=("paper 0.400",))]]
    assert blocks(Grid(["Group", "rows", "share"], rows, "Embedding")) == [
        "Embedding     rows        share",
        "rare        30,522        0.250",
        "all              —        0.500",
        "                    paper 0.400",
    ]


def test_long_tables_are_cut() -> None:
    grid = Grid(["Token", "Id"], [[Token(f"token{index}"), index] for index in range(12)], brief=10)
    lines = blocks(grid)
    assert lines[-2:] == ["token9       9", "and 2 more"]


def test_columns_and_blocks_of_other_media_are_left_out() -> None:
    grid = Grid(["a", GridColumn("b", media=Media.PAGE), "c"], [["x", "y", "z"]])
    assert blocks(grid, Note("page", media=Media.PAGE)) == ["a           c", "x           z"]


def test_a_line_about_a_block_follows_it() -> None:
    grid = Grid(["a"], [["x"]])
    assert blocks(grid, Facts([("IsoScore", "0.3"), ("rank", "2")], inline=True), Note("how", "hint"), grid) == [
        "a", "x", "IsoScore 0.3 · rank 2", "how", "", "a", "x",
    ]  # fmt: skip


def test_good_verdicts_are_short_and_others_complete() -> None:
    lines = blocks(
        Verdict("warning", "Cone", "It leans.", "decone trim MODEL --text FILE"),
        Verdict("good", "Width", "It is used."),
        Verdict("good", "Norms", "They are even."),
    )
    assert lines == [
        "! warning: Cone", "  It leans.", "  → decone trim MODEL --text FILE", "", "✓ Width. It is used.",
        "✓ Norms. They are even.",
    ]  # fmt: skip


def test_chips_are_told_apart_without_colour() -> None:
    assert blocks(Chips([("cone", "good"), ("rank", "bad"), ("norms", "")])) == ["✓ cone", "✗ rank", "norms"]


@pytest.mark.parametrize(
    ("title", "line"),
    [
        (Title("t", about="a"), "t  a"),
        (Title("worst", subject="model", about="gpt2", severity="note", tally="2 notes."), "model  gpt2"),
    ],
)
def test_the_first_line_names_the_subject(title: Title, line: str) -> None:
    lines = drawn(Document(title, [])).splitlines()
    assert lines[0].rstrip() == line
    assert lines[1:] == ([] if title.severity is None else ["i worst  2 notes."])
