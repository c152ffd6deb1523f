"""What tokens stand for, in each kind of vocabulary."""

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from decone.repair.alignment.align import spell_number
from decone.repair.alignment.surfaces import surfaces


def vocabulary(*tokens: str) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


def read(tokenizer: Tokenizer, **more: Any) -> dict[str, tuple[str, str, bool, bool]]:
    return {found.token: tuple(found)[1:] for found in surfaces(tokenizer, **more)}  # type: ignore[misc]


def test_word_pieces() -> None:
    tokens = ("[UNK]", "[unused7]", "cone", "##s", "##", "42", "##42", "-", "a", "é", "łódź", "3rd", "co₂")
    tokenizer = Tokenizer(models.WordPiece(vocabulary(*tokens), unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken("[UNK]", special=True), AddedToken("[MASK]", special=True)])
    found = read(tokenizer, rows=15)
    kinds = [found[token][1] for token in (*tokens, "[MASK]", "")]
    assert kinds == [
        *("special", "unused", "word", "piece", "punctuation", "number", "piece", "punctuation", "character"),
        *("character", "letters", "other", "other", "special", "padding"),
    ]
    assert found["##s"] == ("s", "piece", False, True)
    assert found["cone"] == ("cone", "word", False, False)
    assert len(surfaces(tokenizer, rows=3)) == 3  # a table that is shorter than the vocabulary
    assert surfaces(tokenizer, special=[2])[2].kind == "special"


def test_byte_level() -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = (*letters, "cone", "Ġcone", "ĠcafÃ©", "Ã©", "Ġ42", "ĠĠ", "Ċ", "<|reserved_special_token_5|>")
    tokenizer = Tokenizer(models.BPE(vocabulary(*dict.fromkeys(tokens)), []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer.add_tokens(["Ġliteral"])
    found = read(tokenizer)
    assert found["cone"] == ("cone", "word", False, True)
    assert found["Ġcone"] == ("cone", "word", True, False)
    assert found["ĠcafÃ©"] == ("café", "letters", True, False)
    assert found["Ġ42"][:3] == ("42", "number", True)
    assert found["Ã"] == ("", "byte", False, False)
    assert found["Ã©"][:2] == ("é", "character")
    assert found["Ċ"][1] == found["ĠĠ"][1] == "punctuation"
    assert found["<|reserved_special_token_5|>"][1] == "unused"
    assert found["Ġliteral"][0] == "Ġliteral"  # an added token stands for itself


def test_sentence_pieces() -> None:
    tokens = ("<unk>", "<0x0A>", "▁cone", "cone", "▁", "<extra_id_0>", "s")
    tokenizer = Tokenizer(models.BPE(vocabulary(*tokens), [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found = read(tokenizer)
    assert [found[token][1] for token in tokens] == [
        *("other", "byte", "word", "word", "punctuation", "unused", "character"),
    ]
    assert found["▁cone"] == ("cone", "word", True, False)
    assert found["cone"] == ("cone", "word", False, True)


def test_marks_at_the_end_of_words() -> None:
    tokenizer = Tokenizer(models.BPE(vocabulary("cone</w>", "con", "a</w>"), [], end_of_word_suffix="</w>"))
    assert read(tokenizer) == {
        "cone</w>": ("cone", "word", False, False),
        "con": ("con", "word", False, True),
        "a</w>": ("a", "character", False, False),
    }


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("0", "zero"),
        ("13", "thirteen"),
        ("100", "one hundred"),
        ("342", "three hundred forty-two"),
        ("1000017", "one million seventeen"),
        (
            "999999999999",
            "nine hundred ninety-nine billion nine hundred ninety-nine million nine hundred "
            "ninety-nine thousand nine hundred ninety-nine",
        ),
        ("00", "zero zero"),
        ("1234567890123", "one two three four five six seven eight nine zero one two three"),
        ("٣٠", "thirty"),
    ],
)
def test_numbers_in_words(digits: str, words: str) -> None:
    assert spell_number(digits) == words


def test_what_is_no_number() -> None:
    for text in ("", "-1", "1e3", "²"):
        with pytest.raises(ValueError, match="is not a number in digits"):
            spell_number(text)
