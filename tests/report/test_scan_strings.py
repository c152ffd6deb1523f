import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from decone.report.format import visible
from decone.report.scan_strings import coded, drawn, escaped, named, parts, plain, sentence, shown, word


@given(st.text(max_size=80))
def test_what_is_shown_hides_nothing(text: str) -> None:
    for found in (shown(text), plain(text), sentence(text), word(text), drawn(text)):
        assert found == visible(found), "a control sign is left"
    assert not set("<>\"'") & set(sentence(text))
    assert "<" not in drawn(text)
    assert set(word(text).removeprefix('<bdi class="token">').removesuffix("</bdi>")).isdisjoint("<>\"'")
    assert shown(text)
    assert " " not in shown(text[:60])


SIGNS = st.one_of(st.sampled_from("``**__[]<>|~#&!()\\ $:/w.a1\n"), st.characters(exclude_categories=["Cs"]))


@given(st.text(alphabet=SIGNS, max_size=60))
@example("a `b` [c](d) ![e](f) <g> &amp; *h* _i_ http://j \\` | k")
def test_markdown_reads_it_as_it_was(text: str) -> None:
    inline = MarkdownIt("commonmark").enable("table").parseInline("a" + escaped(text) + "a")[0]
    assert inline.children is not None
    assert "".join(child.content for child in inline.children) == "a" + plain(text) + "a"
    table = MarkdownIt("commonmark").enable("table").parse(f"| x | y |\n| -- | -- |\n| {coded(text)} | b |")
    cells = [token for token in table if token.type == "inline"]
    assert len(cells) == 4
    assert cells[3].content == "b"


def test_long_strings_are_cut_before_anything_is_done_with_them() -> None:
    long = "\x1b" * 10_000_000
    begun = time.perf_counter()
    assert shown(long).endswith("… (10,000,000 characters)")
    assert len(shown(long)) < 400
    assert len(named(long)) < 400
    assert len(sentence(long)) < 20_000
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize("blank", ["\u00a0", "\u2003", "\u3164", "\ufe0f", "\u2800", "\U000e0101", "\u200d", "\ufeff"])
def test_blanks_can_be_seen(blank: str) -> None:
    assert f"{ord(blank):x}" in shown(f"a{blank}b")
    assert blank not in shown(f"a{blank}b")


@pytest.mark.parametrize(
    ("said", "commands"),
    [
        ("use `decone trim M` or `cosreg`.", ["decone trim M", "cosreg"]),
        ("a ` alone, decone scan MODEL --text FILE, end", ["decone scan MODEL --text FILE"]),
        ("one `a` and ` two", ["a"]),
        ("run decone train --set method=threshold:margin=1+row-adamw.", [
            "decone train --set method=threshold:margin=1+row-adamw"]),
        ("decone mends it", ["decone mends"]),
        ("", []),
    ],
)  # fmt: skip
def test_commands_are_found_in_a_sentence(said: str, commands: list[str]) -> None:
    assert [piece for piece, code in parts(said) if code] == commands
    if said.count("`") != 2 * len(commands):
        assert "".join(piece for piece, _ in parts(said)).replace("`", "") == said.replace("`", "")
