"""A document with every block there is, each string of it hostile."""

import pytest
from tests.document.reading import ALL, HOSTILE

from decone.document import figures
from decone.document.blocks import (
    Card,
    Chips,
    Code,
    Document,
    Facts,
    Figure,
    Folded,
    Grid,
    GridCell,
    GridColumn,
    KeyNumber,
    KeyNumbers,
    Media,
    Note,
    Passage,
    Samples,
    Section,
    Styled,
    Swatch,
    Title,
    Token,
    Verdict,
    Words,
)


def plot() -> figures.Plot:
    """Bars whose categories are hostile."""
    values = {text: 0.5 for text in HOSTILE[:3]}
    return figures.bars(list(values), {"model": values}, {"model": figures.LIGHT[1]}, "category", percent=True)


@pytest.fixture
def hostile_document() -> Document:
    """Every block, inline element and option, filled with what a medium could obey."""
    inline = (ALL, Code(ALL), Token(ALL, code_points=True), Swatch(ALL, figures.LIGHT[1], hollow=True, mono=True))
    styled = tuple(Styled(ALL, emphasis) for emphasis in ("strong", "dim", "mono", "mark", "good", "bad"))
    cells = [GridCell(ALL, below=(ALL, *styled[:1])), GridCell(0.25, bar=0.25), 30522]
    columns = [GridColumn(Swatch(ALL, "#123456")), ALL, GridColumn(ALL, "left", tooltip=ALL, wrap=True)]
    texts = tuple(Note(text) for text in HOSTILE)
    pairs = tuple((text, (text, Styled(text, "mono"))) for text in HOSTILE)
    blocks = [
        *texts,
        Note((*inline, *styled)),
        Note(ALL, "hint"),
        Note(ALL, "notice"),
        Verdict("serious", ALL, ALL, f"run `{ALL.replace('`', '')}`", pairs, ALL),
        Verdict("good", ALL, ALL),
        Chips([(ALL, "good"), (ALL, "bad"), (ALL, "")], ALL),
        Facts(pairs),
        Facts(pairs, inline=True),
        KeyNumbers([KeyNumber(ALL, [(ALL, ALL), ("", ALL)], ALL)]),
        Grid(columns, [cells] * 3, ALL),
        Grid(columns, [[Token(text), None, text] for text in HOSTILE * 5], ALL, search=ALL, brief=2),
        Figure((ALL, styled[0]), ALL, plot, wide=True),
        Passage(ALL, ALL, "\n".join(HOSTILE)),
        Samples([(text, text) for text in HOSTILE]),
        Words(HOSTILE, more=True),
        Folded(ALL, [Note(ALL)], opened=True),
        Card((ALL, styled[1]), [Note(ALL), Folded(ALL, [Note(ALL)])]),
        Card(ALL, [Note(ALL)], narrow=True),
    ]
    switches = (("method-0", Swatch(ALL, figures.LIGHT[0])),)
    title = Title(ALL, ALL, ALL, (ALL,), "serious", ALL)
    sections = [
        Section("blocks", ALL, blocks, ALL, switches),
        Section("screen", "Screen", [Note("on a screen", media=Media.SCREEN)], media=Media.SCREEN),
    ]
    return Document(title, sections, ALL)
