"""Planted rows are found, and healthy ones are not."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from tests.diagnosis.real_tables import minilm, trained
from tokenizers import Tokenizer, models, pre_tokenizers

from decone.diagnosis.rows import RowKinds, find_rows
from decone.diagnosis.suspects import find_suspects
from decone.frequencies import Frequencies, frequencies
from decone.models.tables import MemoryTable, ModelTables
from decone.vocab.reach import Reach, reach

KINDS = ("noise", "zeros", "copies", "mixed")
COUNT, FIRST = 20, 30


def model_tables(weight: torch.Tensor, head: torch.Tensor | None = None, **fields: Any) -> ModelTables:
    table = None if head is None else MemoryTable("head", head)
    return ModelTables("m", "bert", "masked", MemoryTable("w", weight), table, tied=head is None, **fields)


def healthy(rows: int = 2000, width: int = 32, leading: int = 8) -> torch.Tensor:
    """Rows that lie near a few directions, as those of a trained table do."""
    return torch.randn(rows, leading) @ torch.randn(leading, width) + 0.3 * torch.randn(rows, width)


@pytest.fixture(autouse=True)
def tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder's tokenizer is tried once, not in every test."""
    monkeypatch.setattr("decone.diagnosis.rows.reach", lambda tokenizer: tried(tokenizer.to_str()))


@cache
def tried(tokenizer: str) -> Reach:
    return reach(Tokenizer.from_str(tokenizer))


def frequencies_of(model: ModelTables, rows: RowKinds) -> Frequencies:
    return frequencies(model, nonfinite=rows.of("non-finite"), unreachable=rows.of("unreachable"))


def suspects(model: ModelTables, known: Frequencies | None = None) -> dict[int, float]:
    rows = find_rows(model)
    return {found.id: found.score for found in find_suspects(model, rows, known or frequencies_of(model, rows))[0]}


def planted(weight: torch.Tensor, ordinary: torch.Tensor, kind: str, seed: int) -> tuple[torch.Tensor, set[int]]:
    """A table with 20 rows replaced by noise of its mean norm, zeros, or copies of other rows, and which they are."""
    random = torch.Generator().manual_seed(seed)
    chosen = ordinary[torch.randperm(len(ordinary), generator=random)[: 2 * COUNT]].tolist()
    ill = weight.clone()
    for place, row in enumerate(chosen[:COUNT]):
        what = KINDS[place % 3] if kind == "mixed" else kind
        noise = torch.randn(weight.shape[1], generator=random)
        values = {
            "noise": noise / noise.norm() * weight.norm(dim=1).mean(),
            "zeros": torch.zeros(weight.shape[1]),
            "copies": weight[chosen[COUNT + place]],
        }
        ill[row] = values[what]
    return ill, set(chosen[:COUNT])


def first(model: ModelTables, weight: torch.Tensor) -> list[int]:
    ill = replace(model, embedding=MemoryTable("w", weight))
    rows = find_rows(ill)
    found = find_suspects(ill, rows, frequencies_of(ill, rows))[0]
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(one.reasons for one in found)
    return [one.id for one in found[:FIRST]]


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[:3]), "mixed"])
def test_planted_rows_of_a_pretrained_encoder(kind: str) -> None:
    model = minilm()
    explained = find_rows(model).of("unreachable", "reserved")
    ordinary = torch.tensor([row for row in range(model.embedding.shape[0]) if row not in explained])
    weight, ill = planted(model.embedding.read(), ordinary, kind, seed=1)
    assert ill <= set(first(model, weight))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_planted_rows_of_a_small_trained_model(kind: str, seed: int) -> None:
    model = trained()
    assert model.embedding.shape == (128, 128)
    weight, ill = planted(model.embedding.read(), torch.arange(128), kind, seed)
    assert ill <= set(first(model, weight))


def test_few_tokens_of_healthy_models_are_unusual() -> None:
    real = [score for score in suspects(minilm()).values() if score > 3.5]
    assert len(real) < 0.01 * 30_522
    assert max(real) < 6
    assert sum(score > 3.5 for score in suspects(trained()).values()) <= 6


def test_what_a_pretrained_encoder_hardly_saw_comes_first() -> None:
    model = minilm()
    rows = find_rows(model)
    tokens = {found.token for found in find_suspects(model, rows, frequencies_of(model, rows))[0][:40]}
    assert {"lucivar", "sparhawk", "##₂", "m²", "h₂o"} <= tokens  # names of one novel, signs of formulas
    assert not any(token.startswith(("[unused", "[PAD")) for token in tokens)


def test_all_negative_rows_are_no_suspects() -> None:
    weight = healthy()
    weight[:300] = -weight[:300].abs() - 0.1
    found = suspects(model_tables(weight))
    assert sum(row < 300 and score > 3.5 for row, score in found.items()) <= 3


def test_rows_that_are_rare_alone_are_no_suspects() -> None:
    weight = healthy()
    weight *= torch.linspace(1.5, 0.3, 2000)[:, None]  # all of the rare ones are shorter
    assert sum(score > 3.5 for score in suspects(model_tables(weight)).values()) <= 20
    weight[500] *= 0.02
    assert 500 in list(suspects(model_tables(weight)))[:1]


def test_an_untrained_table_has_no_outliers() -> None:
    assert sum(score > 3.5 for score in suspects(model_tables(torch.randn(1000, 64))).values()) <= 10


def test_rows_without_numbers_come_first_and_do_not_disturb() -> None:
    weight = healthy()
    weight[10], weight[11, 3], weight[12, 5] = 0, torch.nan, torch.inf
    found = suspects(model_tables(weight))
    assert list(found)[:3] == [10, 11, 12]
    assert sum(score > 3.5 for score in found.values()) <= 20


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_sizes_beyond_single_precision(size: float) -> None:
    weight = healthy().double()
    weight[9] *= size
    assert suspects(model_tables(weight))[9] == 10.0


def test_each_table_of_an_untied_model_is_judged() -> None:
    weight, head = healthy(), healthy()
    weight[5] = torch.randn(32) * 2
    head[7] = 0
    model = model_tables(weight, head)
    rows = find_rows(model)
    found = {one.id: one for one in find_suspects(model, rows, frequencies_of(model, rows))[0]}
    assert found[7].reasons == ["all zeros (output row)"]
    assert found[7].norm == 0
    assert found[5].reasons[0].endswith("(input row)")


def test_near_copies_are_copies() -> None:
    weight = healthy()
    weight[1900] = weight[20] + 1e-3 * torch.randn(32)
    weight[[100, 200, 300]] = weight[[400, 400, 400]]
    found = suspects(model_tables(weight))
    assert set(list(found)[:6]) == {20, 1900, 100, 200, 300, 400}


def test_a_row_equal_to_an_unused_one_was_never_trained() -> None:
    tokens = {"[UNK]": 0} | {f"w{i}": i for i in range(1, 1900)} | {f"a b{i}": i for i in range(1900, 2000)}
    made = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    weight = healthy()
    weight[1900:] = 0.2
    weight[33] = 0.2
    weight[44] = 0.2 + 1e-4 * torch.randn(32)
    model = model_tables(weight, tokenizer=made)
    rows = find_rows(model)
    found = find_suspects(model, rows, frequencies_of(model, rows))[0]
    assert {one.id for one in found[:2]} == {33, 44}
    assert found[0].reasons[0] == "equals a row that is never used"
    assert not {one.id for one in found} & set(range(1900, 2000))


def test_tiny_tables_end_without_a_score() -> None:
    assert suspects(model_tables(torch.randn(3, 4))) == {}
    assert suspects(model_tables(torch.zeros(3, 4))) == {0: 10.0, 1: 10.0, 2: 10.0}
    assert suspects(model_tables(torch.full((30, 4), 2.0)))  # one cluster of all rows


def test_the_limit_and_long_tokens() -> None:
    made = Tokenizer(models.WordLevel({"x" * 999 + str(i): i for i in range(20)}, unk_token="x"))
    model = model_tables(torch.zeros(20, 4), tokenizer=made)
    rows = find_rows(model)
    found = find_suspects(model, rows, frequencies_of(model, rows), limit=4)[0]
    assert [len(one.token) for one in found] == [200] * 4
