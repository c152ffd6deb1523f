import subprocess
import sys

import pytest

from decone.document.blocks import (
    Card,
    Document,
    DocumentModel,
    Facts,
    Figure,
    Grid,
    GridCell,
    GridColumn,
    Media,
    Note,
    Passage,
    Section,
    Title,
    Verdict,
    arranged,
)


@pytest.mark.parametrize(
    ("cell", "text", "value"),
    [
        (GridCell(30522), "30,522", 30522),
        (GridCell(0.25), "0.250", 0.25),
        (GridCell(0.25, format=lambda share: f"{share:.0%}"), "25%", 0.25),
        (GridCell("7", 7), "7", 7),
        (GridCell("text"), "text", None),
        (GridCell(None), "—", None),
    ],
)
def test_a_cell_is_text_and_a_number_to_sort_by(cell: GridCell, text: str, value: float | None) -> None:
    assert cell.phrase == text
    assert cell.number == value


def test_columns_are_aligned_by_their_position_unless_they_say_so() -> None:
    grid = Grid(["a", "b", GridColumn("c", "left"), GridColumn("d", media=Media.PAGE)], [["1", "2", "3", "4"]])
    columns = grid.visible_columns(Media.TERMINAL)
    assert [(index, column.align) for index, column in columns] == [(0, "left"), (1, "right"), (2, "left")]
    assert [len(cells) for cells in grid.visible_rows(Media.PAGE)] == [4]
    assert [len(cells) for cells in grid.visible_rows(Media.MARKDOWN)] == [3]


def test_neighbours_stand_side_by_side() -> None:
    figure = Figure("a", "b", lambda: None)
    blocks = [Note("n"), figure, Passage("a", "b", "c"), Verdict("serious", "a", "b"), Verdict("good", "a", "b"),
              Card("a", [], narrow=True), Card("a", [], narrow=True), Card("a", []), figure]  # fmt: skip
    kinds = [(kind, len(members)) for kind, members in arranged(blocks)]
    assert kinds == [("", 1), ("figures", 2), ("", 1), ("verdicts", 1), ("cards", 2), ("", 1), ("figures", 1)]


def test_texts_leave_out_sections_without_blocks_of_theirs() -> None:
    page = Section("page", "Page", [Figure("a", "b", lambda: None)])
    text = Section("text", "Text", [Note("x")], media=Media.TEXT)
    document = Document(Title("t"), [page, text, Section("empty", "Empty", [])])
    assert [section.name for section in document.visible_sections(Media.TERMINAL)] == ["text"]
    assert [section.name for section in document.visible_sections(Media.PAGE)] == ["page", "empty"]


class Greeting(DocumentModel):
    name: str
    score: float

    def to_document(self) -> Document:
        return Document(Title(self.name), [Section("facts", "", [Facts([("score", str(self.score))])])])


def test_a_result_is_data_and_a_document() -> None:
    greeting = Greeting(name="<b>", score=float("inf"))
    assert greeting.to_dict() == {"name": "<b>", "score": None}
    assert "&lt;b&gt;" in greeting._repr_html_()
    with pytest.raises(TypeError, match="to_document"):
        DocumentModel()  # type: ignore[abstract]


def test_documents_are_quick_to_import() -> None:
    check = "import sys, decone.document; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert not {"torch", "jinja2", "plotly", "rich", "numpy"} & set(run.stdout.split())
