"""Which token stands in which row."""

import torch
from tokenizers import Tokenizer, models

from decone.models.tables import MemoryTable, ModelTables
from decone.token_texts import special_ids, token_rows, token_texts


def model_tables(rows: int, tokenizer: Tokenizer | None, **fields: object) -> ModelTables:
    table = MemoryTable("w", torch.zeros(rows, 2))
    return ModelTables("m", "gpt2", "causal", table, tied=True, tokenizer=tokenizer, **fields)  # type: ignore[arg-type]


def words(*tokens: str) -> Tokenizer:
    return Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=tokens[0]))


def test_padding_and_gaps() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "c": 2}, unk_token="a"))
    assert token_texts(model_tables(5, tokenizer)) == ["a", "<padding 1>", "c", "<padding 3>", "<padding 4>"]


def test_without_a_tokenizer() -> None:
    assert token_texts(model_tables(2, None)) == ["<row 0>", "<row 1>"]


def test_more_tokens_than_rows() -> None:
    assert token_texts(model_tables(2, words("a", "b", "c"))) == ["a", "b"]
    assert token_rows(model_tables(2, words("a", "b", "c")), [0, 2]) == [0]


def test_a_second_copy_of_the_vocabulary() -> None:
    model = model_tables(4, words("a", "b"), copies=2)
    assert token_texts(model) == ["a", "b", "a (LR)", "b (LR)"]
    assert token_rows(model, [1]) == [1, 3]


def test_hostile_strings_stay_as_they_are() -> None:
    hostile = ["<script>", "\x1b[31m", "\u202e", "", "\x00", "x" * 1_000_000]
    assert token_texts(model_tables(6, words(*hostile))) == hostile


def test_special_tokens_of_model_and_tokenizer() -> None:
    tokenizer = words("a", "b")
    tokenizer.add_special_tokens(["<pad>"])
    tokenizer.add_tokens(["<plain>"])
    assert special_ids(model_tables(4, tokenizer, special=frozenset({1}))) == {1, 2}
    assert special_ids(model_tables(4, None, special=frozenset({3}))) == {3}
