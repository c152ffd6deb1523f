"""New tokens in the files of a tokenizer."""

import json
from pathlib import Path

import pytest
from tests.repair.vocabularies import KINDS, build
from tokenizers import Tokenizer, models, pre_tokenizers

from decone.repair.vocabulary.addition import add_tokens
from decone.repair.vocabulary.spelling import Spelling, select_new


@pytest.mark.parametrize("kind", KINDS)
def test_texts_without_new_tokens_are_cut_as_before(kind: str) -> None:
    source = build(kind, Path("m"))
    parts = json.loads((source / "tokenizer.json").read_text())
    old = Tokenizer.from_file("m/tokenizer.json")
    spellings = select_new(["covid", "3rd-rate", "O'Hara"], parts, old, set()).spellings
    addition = add_tokens(source, parts, old, spellings)
    retained = addition.respell(parts)
    new = Tokenizer.from_str(json.dumps(retained))
    # A word is no part of a longer one, but in Unigram, where a longer one may begin with it as with any other piece.
    text = "the cat, don't recovid" + ("" if kind == "t5" else " covidx 3rd-rated")
    assert old.encode(text).ids == new.encode(text).ids
    assert set(addition.ids) <= set(new.encode("covid O'Hara 3rd-rate").ids)
    assert addition.ids == list(range(old.get_vocab_size(), old.get_vocab_size() + 3))
    if kind == "t5":  # the pieces of before with their scores, and the new ones
        added = [piece for piece, _ in retained["model"]["vocab"][len(parts["model"]["vocab"]) :]]
        retained["model"] = parts["model"] | {"vocab": retained["model"]["vocab"][: len(parts["model"]["vocab"])]}
        assert added == ["<extra_id_0>", "<extra_id_1>", "▁covid", "▁3rd-rate", "▁O'Hara"]
    else:
        retained["added_tokens"] = retained["added_tokens"][:-3]
    assert retained == parts  # nothing else was touched


def test_gaps_in_the_ids() -> None:
    inner = Tokenizer(models.WordLevel({"a": 0, "b": 3, "?": 1}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(ValueError, match="have gaps"):
        add_tokens(Path(), json.loads(inner.to_str()), inner, [Spelling("new", "new", "word")])
