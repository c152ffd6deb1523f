"""Kinds of rows, on tables made so that each row's kind is known, and on a real one."""

import time
from typing import Any

import torch
from tests.diagnosis.real_tables import minilm
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from decone.diagnosis.rows import find_rows
from decone.models.tables import MemoryTable, ModelTables


def tokenizer(size: int, unused: int = 0) -> Tokenizer:
    vocabulary = {"[UNK]": 0} | {f"word{i}": i for i in range(1, size - unused)}
    vocabulary |= {f"[unused{i}]": size - unused + i for i in range(unused)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[UNK]"])
    return made


def model_tables(weight: torch.Tensor, head: torch.Tensor | None = None, **fields: Any) -> ModelTables:
    table = None if head is None else MemoryTable("head", head)
    return ModelTables("m", "bert", "masked", MemoryTable("w", weight), table, tied=head is None, **fields)


def kinds(model: ModelTables) -> dict[str, list[int]]:
    found = find_rows(model)
    assert {finding.kind for finding in found.findings} == set(found.ids)
    for finding in found.findings:
        assert finding.count == len(found.ids[finding.kind])
        assert finding.note
    return {kind: ids.tolist() for kind, ids in found.ids.items()}


def test_every_kind_at_once() -> None:
    weight = torch.randn(50, 16)
    weight[1] = 0
    weight[2, 3] = torch.nan
    weight[3, 3] = torch.inf
    weight[5] = weight[4]
    weight[30:] = 0.3 + 0.01 * torch.randn(20, 16)
    weight[6] = 0.3 + 0.005 * torch.randn(16)
    assert kinds(model_tables(weight, tokenizer=tokenizer(45, unused=15))) == {
        "padded": [45, 46, 47, 48, 49],
        "reserved": [0],
        "unreachable": list(range(30, 45)),
        "zero": [1],
        "non-finite": [2, 3],
        "identical": [4, 5],
        "untrained": [6],
    }


def test_all_negative_rows_are_not_zero() -> None:
    weight = -torch.rand(20, 8) - 0.1
    assert kinds(model_tables(weight)) == {}


def test_without_a_tokenizer_nothing_is_padded() -> None:
    assert kinds(model_tables(torch.cat((torch.randn(5, 4), torch.zeros(2, 4))))) == {"zero": [5, 6]}


def test_both_tables_count_when_they_are_two() -> None:
    weight, head = torch.randn(20, 8), torch.randn(20, 8)
    weight[1], head[2], head[4] = 0, 0, head[3]
    found = find_rows(model_tables(weight, head))
    assert found.ids["zero"].tolist() == [1, 2]
    assert found.ids["identical"].tolist() == [3, 4]
    notes = {finding.kind: finding.note for finding in found.findings}
    assert notes["zero"].endswith("(embedding 1, head 1)")
    assert notes["identical"].endswith("(embedding 0, head 2)")


def test_tables_of_different_length() -> None:
    found = find_rows(model_tables(torch.zeros(30, 8), torch.randn(20, 8), tokenizer=tokenizer(20)))
    assert found.ids["zero"].tolist() == list(range(20))


def test_unused_rows_anywhere_make_nothing_untrained() -> None:
    assert "untrained" not in kinds(model_tables(torch.randn(60, 16), tokenizer=tokenizer(60, unused=20)))


def test_hostile_tokens_are_cut() -> None:
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "\x1b" * 5_000_000: 1}, unk_token="[UNK]"))
    (finding,) = find_rows(model_tables(torch.zeros(2, 4), tokenizer=made)).findings[-1:]
    assert [len(token) for token in finding.tokens] == [5, 200]


def test_a_real_table() -> None:
    model = minilm()
    begun = time.perf_counter()
    found = find_rows(model)
    assert time.perf_counter() - begun < 60
    tokens = {finding.kind: finding.tokens for finding in found.findings}
    assert len(found.ids["unreachable"]) == 1331
    assert set(found.ids) == {"reserved", "unreachable", "untrained"}
    # Rows that look like [unused] ones are those of signs that hardly any English text has, and of one novel's heroine.
    assert 50 < len(found.ids["untrained"]) < 300
    assert [token for token in tokens["untrained"] if token.isascii()] == ["endelle"]
