"""Counts, ranks and groups from each source, and the token of each row."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.diagnosis.real_tables import minilm, trained
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from decone.diagnosis.rows import find_rows
from decone.frequencies import (
    PIECE,
    Frequencies,
    _pieces,
    frequencies,
    known_counts,
    special_ids,
    token_rows,
    token_texts,
)
from decone.models.tables import MemoryTable, ModelTables


def words(*tokens: str) -> Tokenizer:
    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=tokens[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([tokens[0]])
    return made


def model_tables(weight: torch.Tensor, tokenizer: Tokenizer | None) -> ModelTables:
    return ModelTables("m", "gpt2", "causal", MemoryTable("w", weight), tied=True, tokenizer=tokenizer)


def broken(model: ModelTables) -> dict[str, set[int]]:
    rows = find_rows(model)
    return {"nonfinite": rows.of("non-finite"), "unreachable": rows.of("unreachable")}


MODEL = model_tables(torch.ones(7, 2), words("?", "a", "b", "c", "d"))


def consistent(found: Frequencies, size: int) -> None:
    assert sorted(found.rank.tolist()) == list(range(1, size + 1))
    assert list(found.groups) == ["frequent", "medium", "rare", "special"]
    assert found.facts.sizes == {name: len(ids) for name, ids in found.groups.items()}
    ids = torch.cat(list(found.groups.values())).tolist()
    assert len(ids) == len(set(ids))


def test_counts_of_a_text() -> None:
    found = frequencies(MODEL, text="b b a b\na c x")
    consistent(found, 7)
    assert found.counts is not None
    assert found.counts.tolist() == [1, 2, 3, 1, 0, 0, 0]
    assert found.rank.tolist() == [3, 2, 1, 4, 5, 6, 7]
    assert {name: ids.tolist() for name, ids in found.groups.items()} == {
        "frequent": [2],
        "medium": [1, 3],
        "rare": [4],
        "special": [0],
    }
    assert (found.facts.source, found.facts.tokens, found.facts.types) == ("text", 7, 4)


def test_a_truncating_tokenizer_counts_the_whole_text() -> None:
    tokenizer = words("?", "a")
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    found = frequencies(model_tables(torch.ones(2, 2), tokenizer), text="a " * 5000)
    assert found.counts is not None
    assert found.counts.tolist() == [0, 5000]


@given(st.text("ab \n", max_size=200), st.integers(1, 30))
def test_pieces_are_the_text(text: str, length: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("decone.frequencies.PIECE", length)
        pieces = list(_pieces(text))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= length for piece in pieces)
    assert PIECE > 1000


def test_padded_and_non_finite_rows_come_last() -> None:
    weight = torch.randn(7, 2)
    weight[2, 0] = torch.nan
    model = model_tables(weight, MODEL.tokenizer)
    found = frequencies(model, text="b b b a", **broken(model))
    consistent(found, 7)
    assert sorted(found.rank[[2, 5, 6]].tolist()) == [5, 6, 7]
    assert 2 not in torch.cat(list(found.groups.values()))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.tsv", "b\t30\na\t20\n\n?\t1\n"),
        ("c.tsv", "2\t30\r\n1\t20\r\n0\t1"),
        ("c.json", json.dumps({"b": 30, "a": 20, "?": 1})),
        ("c.txt", json.dumps({"2": 30, "1": 20, "0": 1})),
    ],
)
def test_files_of_counts(name: str, content: str) -> None:
    Path(name).write_text(content)
    found = frequencies(MODEL, text="d d d d", counts=Path(name))
    consistent(found, 7)
    assert found.counts is not None
    assert found.counts.tolist() == [1, 20, 30, 0, 0, 0, 0]
    assert found.facts.source == "counts"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a 3\n", "line 1: 'a 3' is not"),
        ("a\tmany\n", "'many' is no count"),
        ("a\t-1\n", "'-1' is no count"),
        ("a\t1.5\n", "'1.5' is no count"),
        ("a\t1\nzzz\t2\n", "line 2: 'zzz' is no token"),
        ("1\t1\n7\t2\n", "line 2: '7' is beyond the 7 rows"),
        ("a\t1\na\t2\n", "line 2: 'a' is counted twice"),
        ("a\t0\n", "counts nothing"),
        ('{"a": true}', "'True' is no count"),
        ('{"a": [1]}', "is no count"),
        ("", "is empty"),
        ("\0a\t1", "is a binary file"),
    ],
)
def test_files_that_will_not_do(content: str, message: str) -> None:
    Path("counts.tsv").write_text(content)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        frequencies(MODEL, counts=Path("counts.tsv"))


@pytest.mark.parametrize("content", ["[1, 2]", "{", "[" * 100_000])
def test_json_that_will_not_do(content: str) -> None:
    Path("counts.json").write_text(content)
    with pytest.raises(ValueError, match=r"counts\.json is (not JSON|no JSON object)"):
        frequencies(MODEL, counts=Path("counts.json"))


def test_sums_beyond_all_bounds_are_refused() -> None:
    Path("c.tsv").write_text("".join(f"{row}\t{10**18 - 1}\n" for row in range(7)))
    with pytest.raises(ValueError, match="add up to more than"):
        frequencies(MODEL, counts=Path("c.tsv"))


def test_no_file() -> None:
    with pytest.raises(ValueError, match="no file nowhere"):
        frequencies(MODEL, counts=Path("nowhere"))


def test_tokens_without_a_tokenizer() -> None:
    model = model_tables(torch.ones(3, 2), None)
    Path("c.tsv").write_text("a\t3\n")
    with pytest.raises(ValueError, match="give ids instead"):
        frequencies(model, counts=Path("c.tsv"))
    with pytest.raises(ValueError, match="has no tokenizer"):
        frequencies(model, text="a")


def test_the_order_of_merges() -> None:
    made = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "lost": 3}, [("a", "b")]))
    made.decoder = decoders.Fuse()
    model = model_tables(torch.randn(6, 2), made)
    found = frequencies(model, **broken(model))
    consistent(found, 6)
    assert found.counts is None
    assert found.rank.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.facts.source == "merges"
    assert found.facts.warning is not None
    assert "BPE" in found.facts.warning
    # What no text gives is rarer than anything, wherever its id stands.
    swapped = model_tables(torch.randn(4, 2), Tokenizer(models.BPE({"lost": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")])))
    assert frequencies(swapped, **broken(swapped)).rank.tolist() == [4, 1, 2, 3]


@pytest.mark.parametrize("tokenizer", [None, words("?", "a", "b")])
def test_ids_that_say_nothing(tokenizer: Tokenizer | None) -> None:
    found = frequencies(model_tables(torch.ones(3, 2), tokenizer))
    consistent(found, 3)
    assert found.facts.source == "none"
    assert found.facts.warning is not None
    assert "--text FILE" in found.facts.warning


def test_the_training_text_of_a_run() -> None:
    model = trained()
    found = frequencies(model)
    assert found.facts.source == "training"
    assert found.facts.warning is None
    assert found.counts is not None
    text = (Path(model.name).parent / "text.txt").read_text()
    truth = Counter(text[: int(len(text) * 0.9)])
    assert model.tokenizer is not None
    for index in range(64):
        count = truth[model.tokenizer.id_to_token(index)]
        assert int(found.counts[index]) == count - round(count * 0.3)
        assert int(found.counts[64 + index]) == round(count * 0.3)


def test_a_run_whose_text_is_gone(tmp_path: Path) -> None:
    model = trained()
    found = frequencies(without_training_text(model, tmp_path))
    assert found.facts.source == "none"
    assert found.facts.warning is not None
    assert "gone.txt it was trained on is not here" in found.facts.warning


def without_training_text(model: ModelTables, folder: Path) -> ModelTables:
    config = (Path(model.name) / "config.toml").read_text()
    (folder / "run").mkdir()
    (folder / "run" / "config.toml").write_text(config.replace("text.txt", "gone.txt"))
    return replace(model, name=str(folder / "run"))


def test_the_counts_that_a_run_keeps_need_no_text(tmp_path: Path) -> None:
    model = trained()
    moved = without_training_text(model, tmp_path)
    Path(moved.name, "counts.tsv").write_bytes(Path(model.name, "counts.tsv").read_bytes())
    kept = frequencies(moved)
    assert kept.facts.source == "training"
    assert kept.counts is not None
    assert torch.equal(kept.counts, known_counts(model)[0])  # type: ignore[arg-type]


def test_a_run_goes_by_its_training_and_not_by_the_text_that_is_measured() -> None:
    model = trained()
    assert torch.equal(frequencies(model, text="e").rank, frequencies(model).rank)


def test_a_text_for_a_run_counts_for_both_languages(tmp_path: Path) -> None:
    model = without_training_text(trained(), tmp_path)
    found = frequencies(model, text="e" * 1000)
    assert found.facts.source == "text"
    assert found.facts.warning is not None
    assert "of this text itself" in found.facts.warning
    assert model.tokenizer is not None
    assert found.counts is not None
    index = model.tokenizer.token_to_id("e")
    assert found.counts[[index, 64 + index]].tolist() == [700, 300]
    with pytest.raises(ValueError, match="remove characters"):
        frequencies(model, text="☃")


def test_a_text_is_counted_as_it_would_be_in_one_piece() -> None:
    model = minilm()
    assert model.tokenizer is not None
    text = "The cat sat on the mat; the naïve Straße.\n" * 300
    found = frequencies(model, text=text)
    whole = Tokenizer.from_str(model.tokenizer.to_str())
    whole.no_truncation()
    whole.no_padding()
    truth = Counter(whole.encode(text, add_special_tokens=False).ids)
    assert found.counts is not None
    assert {i: int(found.counts[i]) for i in found.counts.nonzero().flatten().tolist()} == dict(truth)


def of_size(rows: int, tokenizer: Tokenizer | None, **fields: object) -> ModelTables:
    table = MemoryTable("w", torch.zeros(rows, 2))
    return ModelTables("m", "gpt2", "causal", table, tied=True, tokenizer=tokenizer, **fields)  # type: ignore[arg-type]


def unmarked(*tokens: str) -> Tokenizer:
    """A tokenizer without special tokens."""
    return Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=tokens[0]))


def test_padding_and_gaps() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "c": 2}, unk_token="a"))
    assert token_texts(of_size(5, tokenizer)) == ["a", "<padding 1>", "c", "<padding 3>", "<padding 4>"]


def test_without_a_tokenizer() -> None:
    assert token_texts(of_size(2, None)) == ["<row 0>", "<row 1>"]


def test_more_tokens_than_rows() -> None:
    assert token_texts(of_size(2, unmarked("a", "b", "c"))) == ["a", "b"]
    assert token_rows(of_size(2, unmarked("a", "b", "c")), [0, 2]) == [0]


def test_a_second_copy_of_the_vocabulary() -> None:
    model = of_size(4, unmarked("a", "b"), copies=2)
    assert token_texts(model) == ["a", "b", "a (LR)", "b (LR)"]
    assert token_rows(model, [1]) == [1, 3]


def test_hostile_strings_stay_as_they_are() -> None:
    hostile = ["<script>", "\x1b[31m", "\u202e", "", "\x00", "x" * 1_000_000]
    assert token_texts(of_size(6, unmarked(*hostile))) == hostile


def test_special_tokens_of_model_and_tokenizer() -> None:
    tokenizer = unmarked("a", "b")
    tokenizer.add_special_tokens(["<pad>"])
    tokenizer.add_tokens(["<plain>"])
    assert special_ids(of_size(4, tokenizer, special=frozenset({1}))) == {1, 2}
    assert special_ids(of_size(4, None, special=frozenset({3}))) == {3}
