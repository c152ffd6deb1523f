from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token as MarkdownToken
from tests.document.reading import INVISIBLE

from decone.document import markdown
from decone.document.blocks import (
    Card,
    Chips,
    ContentBlock,
    Document,
    Facts,
    Grid,
    GridCell,
    GridColumn,
    KeyNumber,
    KeyNumbers,
    Media,
    Note,
    Section,
    Styled,
    Title,
    Verdict,
)

# What no string may become; a cell with lines below it has line breaks of our own.
OBEYED = {"html_block", "link_open", "image", "fence", "code_block", "hr"}


def parsed(text: str) -> list[MarkdownToken]:
    """Every token, as a GitHub-flavoured parser sees them."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    return [inner for token in tokens for inner in (token, *(token.children or []))]


def rendered(blocks: Sequence[ContentBlock]) -> str:
    text = markdown.render(Document(Title("t"), [Section("one", "", blocks)]))
    return text.removeprefix("## t\n\n").rstrip("\n")


def test_no_block_obeys_a_string(hostile_document: Document) -> None:
    text = markdown.render(hostile_document)
    tokens = parsed(text)
    assert not {token.type for token in tokens} & OBEYED
    assert {token.content for token in tokens if token.type == "html_inline"} == {"<br>"}
    assert sum(token.type == "heading_open" for token in tokens) == 2
    for sign in INVISIBLE:
        assert sign not in text
    content = "".join(token.content for token in tokens if token.type in {"text", "code_inline", "text_special"})
    for foreign in ("<script>alert(1)</script>", "[c](http://d)", "[bold]markup[/bold]"):
        assert content.count(foreign) > 20, foreign


def test_rows_of_a_table_have_equally_many_cells(hostile_document: Document) -> None:
    tables: list[list[int]] = []
    for token in parsed(markdown.render(hostile_document)):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append(0)
        elif token.type in {"th_open", "td_open"}:
            tables[-1][-1] += 1
    assert len(tables) == 3
    assert all(len(set(table)) == 1 for table in tables)


def test_a_grid_is_a_table_with_its_caption() -> None:
    columns = ["Group", "Rows", GridColumn("Why", "left"), GridColumn("page", media=Media.PAGE)]
    rows = [["rare", 30522, "a | b", "x"], ["all", GridCell(Styled("0.5", "good"), below=("paper 0.4",)), None, "x"]]
    assert rendered([Grid(columns, [*rows, *rows], "Groups", brief=2)]).splitlines() == [
        "**Groups**", "", "| Group | Rows | Why |", "| :-- | --: | :-- |", "| rare | 30,522 | a \\| b |",
        "| all | **0.5**<br>paper 0.4 | — |", "", "and 2 more",
    ]  # fmt: skip


def test_verdicts_are_one_list() -> None:
    verdicts = [
        Verdict("serious", "Cone", "It leans", "run `decone trim MODEL`"),
        Verdict("good", "Width", "It is used", "nothing"),
    ]
    assert rendered(verdicts).splitlines() == [
        "- ✗ **serious** Cone: It leans *What to do:* run `decone trim MODEL`",
        "- ✓ **good** Width: It is used",
    ]


def test_small_blocks() -> None:
    assert rendered([Note("n", "notice"), Chips([("a", "good")]), Facts([("b", "c")])]) == "> n\n\n- a\n\n- b: c"
    assert rendered([Facts([("b", "c"), ("d", "e")], inline=True)]) == "b **c** · d **e**"
    assert rendered([Card((Styled("3", "strong"), " rows"), [Note("x")])]) == "**3** rows\n\nx"
    numbers = KeyNumbers([KeyNumber("Rank", [("embedding", "3"), ("output", "4")], "of 8")])
    assert rendered([numbers]).splitlines()[-1] == "| Rank | 3 (embedding) / 4 (output) | of 8 |"


def test_headings_of_a_card() -> None:
    section = Section("one", "One", [Note("x")])
    title = Title("worst", "kicker", "model", "gpt2", "serious", "1 serious.", card="Embedding health")
    text = markdown.render(Document(title, [section]))
    assert text == "## Embedding health\n\n**✗ worst** 1 serious.\n\n### One\n\nx\n"
    text = markdown.render(Document(Title("Grown", subject="m", about="a b"), [section]))
    assert text.startswith("## Grown\n\n`m` a b\n")
