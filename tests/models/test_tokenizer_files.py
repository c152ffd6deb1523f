"""Tokenizers beside a model: read where they can be, a note where they cannot."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from decone.models.tokenizer_files import read_tokenizer

TEXT = ["the cat sat on the mat", "the dog sat on the log", "cats and dogs"]


def byte_pairs() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    return made


def test_a_tokenizer_json_is_read_without_its_length_limits(tmp_path: Path) -> None:
    made = byte_pairs()
    made.add_special_tokens([AddedToken("<end>", special=True)])
    made.add_tokens(["plain"])
    made.enable_truncation(3)
    made.enable_padding(length=3)
    made.save(str(tmp_path / "tokenizer.json"))
    found, special, notes = read_tokenizer(tmp_path)
    assert found is not None
    assert notes == []
    assert special == {made.token_to_id("<end>")}
    assert len(found.encode("the cat sat on the mat").ids) > 3
    assert len(found.encode("cat").ids) < 3


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("special_tokens_map.json", {"eos_token": "the"}),
        ("special_tokens_map.json", {"eos_token": {"content": "the", "lstrip": False}}),
        ("special_tokens_map.json", {"additional_special_tokens": [{"content": "the"}, 3, None]}),
        ("tokenizer_config.json", {"pad_token": "the", "bos_token": None, "unk_token": 7}),
        ("tokenizer_config.json", {"extra_special_tokens": {"image_token": "the"}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": {"content": "the", "special": True}, "6": 1}}),
    ],
)
def test_special_tokens_are_found_in_all_files(file: str, content: dict[str, Any], tmp_path: Path) -> None:
    made = byte_pairs()
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / file).write_text(json.dumps(content))
    assert made.token_to_id("the") is not None
    assert read_tokenizer(tmp_path)[1] == {made.token_to_id("the")}


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"model": {"type": "BPE"}}'])
def test_a_broken_tokenizer_leaves_a_note(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    found, special, notes = read_tokenizer(tmp_path)
    assert found is None
    assert special == frozenset()
    assert len(notes) == 1
    assert "the tokenizer cannot be read" in notes[0]
    assert notes[0].isprintable()


def test_broken_settings_leave_a_note_and_the_tokenizer(tmp_path: Path) -> None:
    byte_pairs().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text("{")
    (tmp_path / "special_tokens_map.json").write_text("[]")
    found, _, notes = read_tokenizer(tmp_path)
    assert found is not None
    assert len(notes) == 2


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    byte_pairs().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").symlink_to("../tokenizer.json")
    found, _, notes = read_tokenizer(tmp_path / "model")
    assert found is None
    assert "lies outside it" in notes[0]


def test_a_token_of_ten_megabytes(tmp_path: Path) -> None:
    long = "x" * 10_000_000
    Tokenizer(models.WordLevel({"a": 0, long: 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    found, _, notes = read_tokenizer(tmp_path)
    assert found is not None
    assert found.id_to_token(1) == long
    assert notes == []


def test_a_huge_tokenizer_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    found, _, notes = read_tokenizer(tmp_path)
    assert found is None
    assert "1,099,511,627,776 bytes" in notes[0]


def test_hostile_tokens_pass_as_they_are(tmp_path: Path) -> None:
    words = ["<script>alert(1)</script>", '"onload=', "\x1b[2J", "\u202e", "\n", "\0"]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    made.save(str(tmp_path / "tokenizer.json"))
    found, _, _ = read_tokenizer(tmp_path)
    assert found is not None
    assert [found.id_to_token(index) for index in range(len(words))] == words


def test_word_pieces_are_made_of_vocab_txt(tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "\u2028"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    found, special, notes = read_tokenizer(tmp_path)
    assert found is not None
    assert notes == []
    assert found.encode("The cats [MASK]").tokens == ["the", "cat", "##s", "[MASK]"]
    assert found.get_vocab_size() == len(pieces)
    assert special == {0, 1, 2, 3, 4}
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = read_tokenizer(tmp_path)[0]
    assert cased is not None
    assert cased.encode("The cats").tokens == ["[UNK]", "cat", "##s"]


def test_byte_pairs_are_made_of_vocab_json_and_merges(tmp_path: Path) -> None:
    made = byte_pairs()
    made.model.save(str(tmp_path))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<end>": made.get_vocab_size()}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<end>"}))
    found, special, notes = read_tokenizer(tmp_path)
    assert found is not None
    assert notes == []
    assert special == {made.get_vocab_size()}
    for text in (*TEXT, "naïve 字 <end>"):
        expected = made.encode(text.removesuffix("<end>")).ids
        assert found.encode(text).ids == expected + [made.get_vocab_size()] * text.endswith("<end>")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer.model": "x"},
        {"vocab.txt": "a\nb\n"},
        {"vocab.json": '{"a": 0}', "merges.txt": ""},
        {"vocab.json": "{}"},
    ],
)
def test_other_files_leave_a_note(files: dict[str, str], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    found, _, notes = read_tokenizer(tmp_path)
    assert found is None
    assert "make a tokenizer.json" in notes[0]


@pytest.mark.parametrize("merges", ["nospace", "the cat dog", "zz yy", "\0 \0"])
def test_broken_merges_leave_a_note(merges: str, tmp_path: Path) -> None:
    byte_pairs().model.save(str(tmp_path))
    (tmp_path / "merges.txt").write_text(merges)
    found, _, notes = read_tokenizer(tmp_path)
    assert found is None
    assert "cannot be read" in notes[0]


def test_numbers_that_are_none_leave_a_note(tmp_path: Path) -> None:
    byte_pairs().model.save(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    for wrong in ("a", -1, 1 << 40, None):
        (tmp_path / "vocab.json").write_text(json.dumps({**vocabulary, "the": wrong}))
        found, _, notes = read_tokenizer(tmp_path)
        assert found is None
        assert "cannot be read" in notes[0]
