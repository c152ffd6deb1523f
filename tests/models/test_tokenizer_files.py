"""Tokenizers beside a model: read where they can be, a note where they cannot."""

import json
import tracemalloc
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
    read = read_tokenizer(tmp_path)
    found, special, notes = read.tokenizer, read.special, read.notes
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
    assert read_tokenizer(tmp_path).special == {made.token_to_id("the")}


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"model": {"type": "BPE"}}'])
def test_a_broken_tokenizer_leaves_a_note(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    read = read_tokenizer(tmp_path)
    found, special, notes = read.tokenizer, read.special, read.notes
    assert found is None
    assert special == frozenset()
    assert len(notes) == 1
    assert "the tokenizer cannot be read" in notes[0]
    assert notes[0].isprintable()


def test_broken_settings_leave_a_note_and_the_tokenizer(tmp_path: Path) -> None:
    byte_pairs().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text("{")
    (tmp_path / "special_tokens_map.json").write_text("[]")
    read = read_tokenizer(tmp_path)
    found, notes = read.tokenizer, read.notes
    assert found is not None
    assert len(notes) == 2


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    byte_pairs().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").symlink_to("../tokenizer.json")
    read = read_tokenizer(tmp_path / "model")
    found, notes = read.tokenizer, read.notes
    assert found is None
    assert "lies outside it" in notes[0]


def test_a_token_of_ten_megabytes(tmp_path: Path) -> None:
    long = "x" * 10_000_000
    Tokenizer(models.WordLevel({"a": 0, long: 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    read = read_tokenizer(tmp_path)
    found, notes = read.tokenizer, read.notes
    assert found is not None
    assert found.id_to_token(1) == long
    assert notes == []


def test_a_huge_tokenizer_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    read = read_tokenizer(tmp_path)
    found, notes = read.tokenizer, read.notes
    assert found is None
    assert "1,099,511,627,776 bytes" in notes[0]


def test_hostile_tokens_pass_as_they_are(tmp_path: Path) -> None:
    words = ["<script>alert(1)</script>", '"onload=', "\x1b[2J", "\u202e", "\n", "\0"]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    made.save(str(tmp_path / "tokenizer.json"))
    found = read_tokenizer(tmp_path).tokenizer
    assert found is not None
    assert [found.id_to_token(index) for index in range(len(words))] == words


def test_word_pieces_are_made_of_vocab_txt(tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "\u2028"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    read = read_tokenizer(tmp_path, {"model_type": "bert"})
    assert read.tokenizer is not None
    assert read.notes == []
    assert read.tokenizer.encode("The cats [MASK]", add_special_tokens=False).tokens == ["the", "cat", "##s", "[MASK]"]
    assert read.tokenizer.get_vocab_size() == len(pieces)
    assert read.special == {0, 1, 2, 3, 4}
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = read_tokenizer(tmp_path, {"model_type": "bert"}).tokenizer
    assert cased is not None
    assert cased.encode("The cats", add_special_tokens=False).tokens == ["[UNK]", "cat", "##s"]


def test_byte_pairs_are_made_of_vocab_json_and_merges(tmp_path: Path) -> None:
    made = byte_pairs()
    made.model.save(str(tmp_path))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<end>": made.get_vocab_size()}))
    settings = dict.fromkeys(("eos_token", "bos_token", "unk_token"), "<end>")
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(settings))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **settings}))
    read = read_tokenizer(tmp_path)
    assert read.tokenizer is not None
    assert read.notes == []
    assert read.special == {made.get_vocab_size()}
    for text in (*TEXT, "naïve 字 <end>"):
        expected = made.encode(text.removesuffix("<end>")).ids
        assert read.tokenizer.encode(text).ids == expected + [made.get_vocab_size()] * text.endswith("<end>")


MARKS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
WORDS = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "b": 3, "b</w>": 4, "ab</w>": 5}
WORD_FILES = {"vocab.json": json.dumps(WORDS), "merges.txt": "#version: 0.2\na b</w>\n"}


@pytest.mark.parametrize("family", ["gpt2", "roberta", "bart", "qwen2", "deberta", "clip"])
def test_older_files_cut_texts_as_the_class_of_the_family_does(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    if family == "clip":
        files = WORD_FILES
    else:
        made = byte_pairs()
        vocabulary = made.get_vocab() | {mark: made.get_vocab_size() + index for index, mark in enumerate(MARKS)}
        made.model.save(str(tmp_path))
        files = {"vocab.json": json.dumps(vocabulary)}
    for name, content in {**files, "config.json": json.dumps({"model_type": family})}.items():
        (tmp_path / name).write_text(content)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    read = read_tokenizer(tmp_path, {"model_type": family})
    assert read.notes == []
    assert read.tokenizer is not None
    assert dict(read.vocabulary or {}) == oracle.get_vocab()
    for text in (*TEXT, "ab a b", "it's 1,234\n\n\tdef x():", "AB"):
        assert read.tokenizer.encode(text).ids == oracle(text)["input_ids"]


@pytest.mark.parametrize(
    ("family", "kind", "files"),
    [
        ("bert", "BertJapaneseTokenizer", {"vocab.txt": "[UNK]\n東京\n##京\n"}),
        ("t5", "ByT5Tokenizer", {}),
        ("ctrl", None, WORD_FILES),
        ("blenderbot-small", None, WORD_FILES),
        ("xlm", None, WORD_FILES),
        ("marian", None, {"vocab.json": json.dumps(WORDS), "source.spm": "x", "target.spm": "x"}),
        ("fsmt", None, {"vocab-src.json": "{}", "vocab-tgt.json": json.dumps(WORDS), "merges.txt": ""}),
        ("gpt_neox_japanese", None, {"vocab.txt": "東京\n京\n", "emoji.json": '{"emoji": {}, "emoji_inv": {}}'}),
        ("esm", None, {"vocab.txt": "<cls>\nA\nL\n"}),
        ("m2m_100", None, {"vocab.json": json.dumps(WORDS), "sentencepiece.bpe.model": "x"}),
        ("new", "NewTokenizer", {"vocab.txt": "[UNK]\nthe\n##s\n"}),
    ],
)
def test_what_cuts_texts_with_python_gives_names_and_no_verdict(
    family: str, kind: str | None, files: dict[str, str], tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} if kind else {}))
    read = read_tokenizer(tmp_path, {"model_type": family})
    assert read.tokenizer is None
    assert len(read.notes) == 1
    assert "no verdict on which tokens a text reaches" in read.notes[0]
    expected = {"東京": 0, "京": 1} if family == "gpt_neox_japanese" else {"東京": 1} if family == "bert" else {}
    if not expected and "vocab.json" in files:
        expected = WORDS
    assert expected.items() <= dict(read.vocabulary or {}).items()
    assert read.vocabulary


def test_a_tokenizer_json_of_a_class_that_does_not_read_it_is_not_judged(tmp_path: Path) -> None:
    byte_pairs().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PhobertTokenizer"}')
    read = read_tokenizer(tmp_path)
    assert read.tokenizer is None
    assert read.vocabulary == byte_pairs().get_vocab()
    assert "PhobertTokenizer" in read.notes[0]


def test_settings_open_no_other_file_and_run_no_code(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("[UNK]\n##secret\n")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    settings = {
        "tokenizer_class": "Evil",
        "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
        "vocab_file": str(secret),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "trust_remote_code": True}))
    assert read_tokenizer(folder, {"model_type": "bert", "auto_map": {"AutoConfig": "evil.Evil"}}).vocabulary is None
    assert not (tmp_path / "ran").exists()
    (folder / "vocab.txt").symlink_to(secret)
    assert "lies outside it" in read_tokenizer(folder, {"model_type": "bert"}).notes[0]


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens.json": '{"<big>": 1000000000}'},
        {"vocab.json": '{"a": 4000000000}'},
        {"tokenizer_config.json": '{"added_tokens_decoder": {"999999999": {"content": "<big>"}}}'},
        {"tokenizer_config.json": '{"tokenizer_class": "ByT5Tokenizer", "extra_ids": 1000000000}'},
    ],
)
def test_high_ids_size_nothing(files: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "vocab.json").write_text(json.dumps(WORDS))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    tracemalloc.start()
    try:
        read = read_tokenizer(tmp_path, {"model_type": "gpt2"})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read.notes
    assert peak < 100 << 20


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer.model": "x"},
        {"vocab.json": '{"a": 0}', "merges.txt": ""},
        {"vocab.json": "{}"},
    ],
)
def test_other_files_leave_a_note(files: dict[str, str], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    read = read_tokenizer(tmp_path, {"model_type": "llama"})
    assert read.tokenizer is None
    assert "make a tokenizer.json" in read.notes[0]


@pytest.mark.parametrize("merges", ["nospace", "the cat dog", "zz yy", "\0 \0"])
def test_broken_merges_leave_a_note(merges: str, tmp_path: Path) -> None:
    byte_pairs().model.save(str(tmp_path))
    (tmp_path / "merges.txt").write_text(merges)
    read = read_tokenizer(tmp_path, {"model_type": "gpt2"})
    assert read.tokenizer is None
    assert "cannot be built" in read.notes[0]


def test_numbers_that_are_none_leave_a_note(tmp_path: Path) -> None:
    byte_pairs().model.save(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    for wrong in ("a", -1, 1 << 40, None):
        (tmp_path / "vocab.json").write_text(json.dumps({**vocabulary, "the": wrong}))
        read = read_tokenizer(tmp_path, {"model_type": "gpt2"})
        assert read.tokenizer is None
        assert "cannot be built" in read.notes[0]
