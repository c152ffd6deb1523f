import time

from hypothesis import given
from hypothesis import strategies as st

from decone.files.foreign import visible
from decone.report.scan_strings import drawn, named, sentence, word


@given(st.text(max_size=80))
def test_what_is_shown_hides_nothing(text: str) -> None:
    for markup in (sentence(text), word(text), drawn(text)):
        assert markup == visible(markup), "a control sign is left"
    assert not set("<>\"'") & set(sentence(text))
    assert "<" not in drawn(text)
    assert set(word(text).removeprefix('<bdi class="token">').removesuffix("</bdi>")).isdisjoint("<>\"'")


def test_long_strings_are_cut_before_anything_is_done_with_them() -> None:
    long = "\x1b" * 10_000_000
    begun = time.perf_counter()
    assert len(named(long)) < 400
    assert len(sentence(long)) < 20_000
    assert time.perf_counter() - begun < 1
