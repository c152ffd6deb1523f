"""Ids inside a tokenizer.json, wherever they stand."""

import json
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from decone.repair.vocabulary.tokenizer import mark_ids, model_kind, trim_spec

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
