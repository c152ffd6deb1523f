"""Ids inside a tokenizer.json, and components of byte-pair tokens.

With the components of its tokens alone, a tokenizer cuts every text of retained tokens as the complete one does.
"""

import json
import random
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from decone.repair.vocabulary.tokenizer import (
    mark_ids,
    merge_components,
    merge_pair,
    model_kind,
    read_merges,
    trim_spec,
)

VOCABULARY = {"a": 0, "b": 1, "c": 2, "[CLS]": 3, "[SEP]": 4, "[PAD]": 5, "[UNK]": 6}
NEW = {1: 0, 3: 1, 4: 2, 5: 3, 6: 4}  # without a and c


def made(processor: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[PAD]", "[UNK]"])
    tokenizer.post_processor = processor
    tokenizer.enable_padding(pad_id=5, pad_token="[PAD]", length=7)
    return tokenizer


@pytest.mark.parametrize(
    "processor",
    [
        processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 3), ("[SEP]", 4)]),
        processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3)),
        processors.RobertaProcessing(("[SEP]", 4), ("[CLS]", 3), add_prefix_space=False),
        processors.Sequence([processors.ByteLevel(), processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))]),
    ],
)
def test_marks_get_their_new_ids(processor: Any) -> None:
    old = made(processor)
    parts = json.loads(old.to_str())
    assert mark_ids(parts) == {3, 4, 5}
    new = Tokenizer.from_str(json.dumps(trim_spec(parts, NEW)))
    for said in (("b b",), ("b", "b")):
        before, after = old.encode(*said), new.encode(*said)
        assert [NEW[index] for index in before.ids] == after.ids
        assert before.tokens == after.tokens
    assert new.encode("a b").tokens[1] == "[UNK]"
    assert len(new.encode("b").ids) == 7
    assert json.loads(old.to_str()) == parts  # the old description is not touched


def test_pieces_and_the_unknown_id() -> None:
    pieces = [("a", -1.0), ("<unk>", 0.0), ("b", -2.0), ("ab", -1.5)]
    parts = json.loads(Tokenizer(models.Unigram(pieces, unk_id=1)).to_str())
    found = trim_spec(parts, {1: 0, 2: 1, 3: 2})["model"]
    assert found["unk_id"] == 0
    assert found["vocab"] == [["<unk>", 0.0], ["b", -2.0], ["ab", -1.5]]


def test_kinds() -> None:
    assert model_kind({"merges": [], "vocab": {}}) == "BPE"
    assert model_kind({"vocab": {}}) == "WordPiece"
    with pytest.raises(ValueError, match="is a Odd; WordPiece, BPE, Unigram and WordLevel"):
        model_kind({"type": "Odd"})


def trained(prefix: str, suffix: str, seed: int, ignore: bool = False) -> Tokenizer:
    draw = random.Random(seed)
    words = ["".join(draw.choice("abcd") for _ in range(draw.randint(1, 9))) for _ in range(300)]
    made = Tokenizer(models.BPE(unk_token="?", ignore_merges=ignore))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"continuing_subword_prefix": prefix, "end_of_word_suffix": suffix}
    settings = {name: mark for name, mark in marks.items() if mark}
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["?"], **settings)
    made.train_from_iterator([" ".join(words)], trainer)
    return made


@pytest.mark.parametrize(("prefix", "suffix"), [("", ""), ("##", ""), ("", "</w>")])
@pytest.mark.parametrize("ignore", [False, True])
def test_texts_of_kept_tokens(prefix: str, suffix: str, ignore: bool) -> None:
    fewer = 0
    for seed in range(6):
        old = trained(prefix, suffix, seed, ignore)
        draw = random.Random(seed + 100)
        words = ["".join(draw.choice("abcd") for _ in range(draw.randint(1, 12))) for _ in range(6)]
        before = old.encode(" ".join(words))
        parts, vocabulary = json.loads(old.to_str()), old.get_vocab()
        model = parts["model"]
        needed = merge_components(before.tokens, read_merges(model), prefix, suffix) | set(before.tokens) | {"?"}
        ids = sorted(vocabulary[token] for token in needed)
        new = Tokenizer.from_str(json.dumps(trim_spec(parts, {index: place for place, index in enumerate(ids)})))
        assert new.encode(" ".join(words)).tokens == before.tokens
        assert set(new.get_vocab()) == needed
        fewer += len(vocabulary) - len(needed)
    assert fewer > 100


def test_both_ways_of_writing_merges() -> None:
    assert read_merges({"merges": ["a b", ["b c", "d"]]}) == [("a", "b"), ("b c", "d")]
    assert read_merges({}) == []
    assert merge_pair(("a", "##b"), "##") == "ab"
    assert merge_pair(("##a", "##b"), "##") == "##ab"
    assert merge_components(["abc"], [("b", "c")]) == set()  # merges do not build it
