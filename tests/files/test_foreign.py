"""Foreign strings: every character can be seen, long ones are cut, and markdown takes none for markup."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from decone.files.foreign import (
    code_spans,
    markdown_code,
    markdown_text,
    plain,
    terminal_text,
    token_label,
    visible,
    visible_token,
)


def test_a_foreign_string_is_shown_in_one_line() -> None:
    line = plain("a\x1b[2J\n\u202e" + "b" * 1000)
    assert line.isprintable()
    assert len(line) == 200
    assert line.startswith(r"a\x1b[2J\n\u202e")
    assert plain("\ud800") == r"\ud800"
    assert plain("ü字") == "ü字"


@given(st.text())
def test_visible_text_draws_every_character(text: str) -> None:
    assert all(
        character.isprintable() or character == "\N{NO-BREAK SPACE}" or character.isspace()
        for character in visible(text)
    )
    assert "\n" not in visible(text)
    assert "\u202e" not in visible(text)
    visible(text).encode()  # no lone surrogates


def test_tokens_are_never_blank() -> None:
    assert [visible_token(text) for text in ("", " ", "\n", "\t", "\ud800")] == ["∅", "␣", "↵", "⇥", "\\ud800"]


@given(st.text(max_size=80))
def test_what_is_shown_hides_nothing(text: str) -> None:
    for line in (token_label(text), terminal_text(text)):
        assert line == visible(line), "a control sign is left"
    assert token_label(text)
    assert " " not in token_label(text[:60])


SIGNS = st.one_of(st.sampled_from("``**__[]<>|~#&!()\\ $:/w.a1\n"), st.characters(exclude_categories=["Cs"]))


@given(st.text(alphabet=SIGNS, max_size=60))
@example("a `b` [c](d) ![e](f) <g> &amp; *h* _i_ http://j \\` | k")
def test_markdown_reads_it_as_it_was(text: str) -> None:
    inline = MarkdownIt("commonmark").enable("table").parseInline("a" + markdown_text(text) + "a")[0]
    assert inline.children is not None
    assert "".join(child.content for child in inline.children) == "a" + terminal_text(text) + "a"
    table = MarkdownIt("commonmark").enable("table").parse(f"| x | y |\n| -- | -- |\n| {markdown_code(text)} | b |")
    cells = [token for token in table if token.type == "inline"]
    assert len(cells) == 4
    assert cells[3].content == "b"


def test_long_strings_are_cut_before_anything_is_done_with_them() -> None:
    long = "\x1b" * 10_000_000
    begun = time.perf_counter()
    assert token_label(long).endswith("… (10,000,000 characters)")
    assert len(token_label(long)) < 400
    assert len(terminal_text(long)) < 20_000
    assert time.perf_counter() - begun < 30


@pytest.mark.parametrize("blank", ["\u00a0", "\u2003", "\u3164", "\ufe0f", "\u2800", "\U000e0101", "\u200d", "\ufeff"])
def test_blanks_can_be_seen(blank: str) -> None:
    assert f"{ord(blank):x}" in token_label(f"a{blank}b")
    assert blank not in token_label(f"a{blank}b")


@pytest.mark.parametrize(
    ("sentence", "commands"),
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
def test_commands_are_found_in_a_sentence(sentence: str, commands: list[str]) -> None:
    assert [piece for piece, code in code_spans(sentence) if code] == commands
    if sentence.count("`") != 2 * len(commands):
        assert "".join(piece for piece, _ in code_spans(sentence)).replace("`", "") == sentence.replace("`", "")
