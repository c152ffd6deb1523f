"""Parts of byte-pair tokens: with them alone, a tokenizer cuts every text of kept tokens as the whole one does."""

import json
import random

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from decone.repair.vocabulary.tokenizer import merge_components, merge_pair, read_merges, trim_spec


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
