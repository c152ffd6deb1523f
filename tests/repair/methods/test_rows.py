"""New rows of chat tokens that were never trained, against plain loops, on folders as transformers writes them."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.repair.checkpoints import contents, llama
from tests.repair.vocabularies import build, loaded, logits, tokenizer
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from decone.models.find_tables import find_tables
from decone.models.tables import MemoryTable
from decone.repair.api import apply_delta, repair_rows, undo_delta
from decone.repair.row_renewal import compare_logits, pieces_without
from decone.vocab.reach import reach

CHAT = ("<|im_start|>", "<|im_end|>")
DELTA, PADDING = Path("d.safetensors"), 6
TINY = 1e-23  # as weight decay leaves rows of Llama 3


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def rewrite(folder: Path, values: dict[str, dict[int, float]]) -> None:
    """Fills rows, or numbers of a bias, of some tensors."""
    for path in sorted(folder.glob("*.safetensors")):
        content = load_file(path)
        for name in values.keys() & content.keys():
            for row, value in values[name].items():
                content[name].squeeze(0)[row] = value
        save_file(content, path, metadata={"format": "pt"})


def tables(folder: Path) -> list[str]:
    found = find_tables(str(folder))
    return [found.embedding.name] + ([] if found.head is None else [found.head.name])


def chat(kind: str, value: float = TINY, **settings: Any) -> tuple[Path, list[int]]:
    """A model with chat tokens behind its vocabulary, whose rows are as good as zero."""
    folder = build(kind, Path("m"), padding=PADDING, **settings)
    made = loaded(folder)
    made.add_special_tokens({"additional_special_tokens": list(CHAT)})
    made.save_pretrained(folder)
    ids: list[int] = made.convert_tokens_to_ids(list(CHAT))
    twins = [
        name for name, tensor in tensors(folder).items() if tensor.shape == tensors(folder)[tables(folder)[0]].shape
    ]
    rewrite(folder, {name: dict.fromkeys(ids, value) for name in twins})
    return folder, ids


def trained(folder: Path, *never: int) -> list[int]:
    """Rows that new ones are made from: of tokens that texts give, without special ones."""
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found, special = reach(made), {index for index, token in made.get_added_tokens_decoder().items() if token.special}
    return sorted({*made.get_vocab().values()} - {*found.unreachable} - special - {*never})


def by_loops(init: str, table: np.ndarray, ids: list[int], sources: list[int], pieces: list[int]) -> np.ndarray:
    def average(rows: list[int]) -> np.ndarray:
        total = np.zeros(table.shape[1])
        for row in rows:
            total += table[row]
        return total / len(rows)

    if init == "mean":
        return average(sources)
    if init.startswith("like="):
        return table[2]
    centre = average(pieces)
    if init == "pieces":
        return centre
    cosine = {row: table[row] @ centre / np.linalg.norm(table[row]) / np.linalg.norm(centre) for row in sources}
    return average(sorted(sources, key=lambda row: -cosine[row])[:3])


MODELS = [
    ("gpt2", {}),
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"shards": True, "dtype": torch.bfloat16}),
    ("bert", {"dtype": torch.float16}),
    ("bart", {"shards": True}),
    ("t5", {}),
]


@pytest.mark.parametrize("init", ["mean", "like=token", "pieces", "neighbours"])
@pytest.mark.parametrize(("kind", "settings"), MODELS)
def test_rows_by_loops_and_every_byte_back(kind: str, settings: dict[str, Any], init: str) -> None:
    folder, ids = chat(kind, **settings)
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["added_tokens"] = [entry for entry in spec["added_tokens"] if entry["content"] not in CHAT]
    old_tokenizer = Tokenizer.from_str(json.dumps(spec))
    init = init.replace("token", str(old_tokenizer.id_to_token(2)))
    before, old = contents(folder), tensors(folder)
    report = repair_rows(folder, init=init, neighbours=3, out=DELTA)
    assert contents(folder) == before
    apply_delta(folder, DELTA, "n")
    new, sources = tensors(Path("n")), trained(folder, *ids)
    unknown = old_tokenizer.token_to_id("<unk>" if kind not in ("bert", "gpt2") else "[UNK]")
    for name in tables(folder):
        table = old[name].double().numpy()
        for row, token in zip(ids, CHAT, strict=True):
            pieces = [piece for piece in old_tokenizer.encode(token, add_special_tokens=False).ids if piece != unknown]
            expected = by_loops(init, table, ids, sources, pieces or sources)
            got = new[name][row].double().numpy()
            np.testing.assert_allclose(got, expected, rtol=2e-2 if "dtype" in settings else 1e-5, atol=2e-3)
        others = [row for row in range(len(table)) if row not in ids]
        assert torch.equal(new[name][others], old[name][others])
    assert {table.changed for table in report.tables} == {2}
    undo_delta("n", DELTA, "b")
    assert contents(Path("b")) == before


@pytest.mark.parametrize(("kind", "count"), [("bert", 1), ("bart", 1)])
def test_an_output_bias_follows(kind: str, count: int) -> None:
    folder, ids = chat(kind)
    size = find_tables(str(folder)).output.shape[0]
    biases = [name for name, tensor in tensors(folder).items() if "bias" in name and tensor.numel() == size]
    assert len(biases) == count
    rewrite(folder, {name: dict.fromkeys(ids, -50.0) for name in biases})
    repair_rows(folder, out=DELTA)
    apply_delta(folder, DELTA, "n")
    old, new = tensors(folder), tensors(Path("n"))
    for name in biases:
        assert new[name].shape == old[name].shape
        expected = np.mean([float(old[name].reshape(-1)[row]) for row in trained(folder, *ids)])
        assert new[name].reshape(-1)[ids].tolist() == pytest.approx([expected] * 2, abs=1e-5)
    probe = torch.tensor([[5, 6, 7]])
    assert torch.equal(logits(Path("n"), probe)[..., :5], logits(folder, probe)[..., :5])
    assert not torch.equal(logits(Path("n"), probe)[..., ids], logits(folder, probe)[..., ids])


def test_a_table_is_judged_by_itself() -> None:
    folder, ids = chat("llama")
    first, _ = tables(folder)
    draw = dict.fromkeys(ids[:1], 0.75)
    rewrite(folder, {first: draw})  # the input row of the first was trained, its output row was not
    report = repair_rows(folder, out=DELTA)
    delta = load_file(DELTA)
    assert (delta["0.ids"].tolist(), delta["1.ids"].tolist()) == (ids[1:], ids)
    assert [(table.role, table.changed) for table in report.tables] == [("input", 1), ("output", 2)]
    rewrite(folder, {first: {ids[0]: 0.75, ids[1]: 0.5}})
    report = repair_rows(folder)
    assert [table.role for table in report.tables] == ["output"]
    assert f"all rows of {first} are trained, so it stays as it is" in report.notes


@pytest.mark.parametrize("init", ["mean", "pieces", "sample", "like=</s>"])
def test_a_mended_model_needs_nothing(init: str) -> None:
    folder, _ = chat("llama", dtype=torch.bfloat16)
    repair_rows(folder, init=init, out=DELTA)
    apply_delta(folder, DELTA, "n")
    with pytest.raises(ValueError, match="no token of n has an untrained row"):
        repair_rows("n")


def test_rows_like_the_padding_are_untrained_and_negative_ones_are_not() -> None:
    folder = build("gpt2", Path("m"), padding=30)
    made = loaded(folder)
    made.add_special_tokens({"additional_special_tokens": list(CHAT)})
    made.save_pretrained(folder)
    ids = made.convert_tokens_to_ids(list(CHAT))
    (name,) = tables(folder)
    path = folder / "model.safetensors"
    content = load_file(path)
    size = made.vocab_size + 2
    unused = [*reach(Tokenizer.from_file(str(folder / "tokenizer.json"))).unreachable, *range(size, size + 28)]
    content[name][unused] = 0.02 * torch.randn(len(unused), 16)  # as they began
    content[name][ids[0]] = 0.01 * torch.randn(16)
    content[name][ids[1]] = -torch.rand(16) - 0.5
    save_file(content, path, metadata={"format": "pt"})
    assert [change.id for change in repair_rows(folder).tables[0].tokens] == ids[:1]


def test_rows_by_name_also_where_they_are_trained() -> None:
    folder, ids = chat("gpt2")
    for rows, expected in (("<|im_end|>, 7-8", [7, 8, ids[1]]), (["<|im_end|>", 9], [9, ids[1]])):
        report = repair_rows(folder, rows)
        assert report.tables[0].changed == len(expected)
        assert sorted(change.id for change in report.tables[0].tokens) == expected


def test_the_padding_token_stays() -> None:
    folder, ids = chat("bert")
    rewrite(folder, {tables(folder)[0]: {0: 0.0}})
    report = repair_rows(folder)
    assert [change.id for change in report.tables[0].tokens] == ids
    assert "the padding token, id 0, is trained by nothing and stays as it is" in report.notes


def test_a_sample_is_as_wide_as_the_trained_rows() -> None:
    folder, _ = chat("gpt2")
    results = repair_rows(folder, init="sample", seed=3).results["input"]
    assert results["length_after"] == pytest.approx(results["length_of_trained"], rel=0.5)
    assert repair_rows(folder, init="sample", seed=3).results == repair_rows(folder, init="sample", seed=3).results


def test_equal_rows_are_said() -> None:
    folder, _ = chat("gpt2")
    assert any("the 2 new rows are equal" in note for note in repair_rows(folder).notes)
    assert not any("are equal" in note for note in repair_rows(folder, init="pieces").notes)


def test_a_row_that_would_always_win_is_warned_of() -> None:
    folder, ids = chat("llama")
    output = tables(folder)[1]
    content = load_file(folder / "model.safetensors")
    content[output] = content[output] * 0.01 - 1.0  # a cone: every logit is about alike
    content[output][5] = -100.0
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
    report = repair_rows(folder, [*ids], init="sample", seed=1, table="output")
    assert report.results["output"]["first_after"] <= 1
    assert repair_rows(folder, [*ids], table="output").results["output"]["first_after"] == 0


@pytest.mark.parametrize(
    ("ids", "init", "message"),
    [
        ("<|im_start|>", "like=<|im_end|>", "row 321 of transformer.wte.weight was never trained itself"),
        ("<|im_start|>", "like=<|im_start|>", "is one of the rows to be made anew"),
        ("<|im_start|>", "like=<|im|>", "the model has no such token"),
        ("<|im|>", "mean", "no file <|im|>; --ids takes untrained, rare"),
        ("5,<|im|>", "mean", "'<|im|>' is no id and no token of the model"),
        ("9999", "mean", "id 9999 is beyond the table's 326 rows"),
        ("all", "mean", "no row of transformer.wte.weight was trained"),
        (
            "untrained",
            "median",
            "--init 'median' is not known; take one of pieces, mean, sample, neighbours",
        ),
    ],
)
def test_mistakes(ids: str, init: str, message: str) -> None:
    folder, _ = chat("gpt2")
    with pytest.raises(ValueError) as error:
        repair_rows(folder, ids, init=init, out=DELTA)
    assert message in str(error.value)
    assert not DELTA.exists()


def test_without_a_tokenizer() -> None:
    table = torch.randn(40, 8)
    table[[3, 4]] = 0
    folder = llama(Path("m"), table=table)
    report = repair_rows(folder, init="like=7", out=DELTA)
    assert load_file(DELTA)["0.ids"].tolist() == [3, 4]
    assert torch.equal(load_file(DELTA)["0.new"], table[[7, 7]])
    assert report.results["input"]["rows"] == 2
    with pytest.raises(ValueError, match="--init pieces cuts tokens into pieces, and m has no tokenizer; take mean"):
        repair_rows(folder, init="pieces")


def naive_pieces(made: Tokenizer, token: str) -> list[str]:
    """Byte-pair merges one by one, without those that build the token."""
    merges = [tuple(pair) for pair in json.loads(made.to_str())["model"]["merges"]]
    symbols = list(token)
    while True:
        ranked = [
            (merges.index(pair), index)
            for index, pair in enumerate(pairwise(symbols))
            if pair in merges and "".join(pair) != token
        ]
        if not ranked:
            return symbols
        _, index = min(ranked)
        symbols[index : index + 2] = ["".join(symbols[index : index + 2])]


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_pieces_of_a_token_that_merges_build(ignore_merges: bool) -> None:
    made = tokenizer("gpt2")[0]
    spec = json.loads(made.to_str())
    spec["model"]["ignore_merges"] = ignore_merges
    made = Tokenizer.from_str(json.dumps(spec))
    tokens = ["Ġcat", "Ġthe", "at"]
    for token in tokens:
        (pieces,) = pieces_without(made, [made.token_to_id(token)])
        assert [made.id_to_token(piece) for piece in pieces] == naive_pieces(made, token)


def test_pieces_of_tokens_of_other_tokenizers() -> None:
    for kind, token, spelt in (("bert", "cat", "cat"), ("t5", "▁the", "▁the"), ("llama", "▁the", "▁the")):
        made = tokenizer(kind)[0]
        (pieces,) = pieces_without(made, [made.token_to_id(token)])
        texts = [made.id_to_token(piece) for piece in pieces]
        assert len(texts) > 1
        assert "".join(text.removeprefix("##") for text in texts) == spelt


def test_an_added_token_keeps_the_ids_of_the_others() -> None:
    made = tokenizer("gpt2")[0]
    made.add_tokens([AddedToken("<a>"), AddedToken("<a><b>"), AddedToken("<b>")])
    first, both, last = (made.token_to_id(token) for token in ("<a>", "<a><b>", "<b>"))
    assert pieces_without(made, [both]) == [[first, last]]
    assert both not in pieces_without(made, [first])[0]


def test_ranks_of_logits_by_loops() -> None:
    table = torch.randn(30, 6)
    ids, rows = torch.tensor([4, 9]), torch.randn(2, 6)
    mask = torch.ones(30, dtype=torch.bool)
    mask[ids] = False
    results = compare_logits(MemoryTable("w", table), ids, rows, mask)
    for moment, own in (("before", table[ids]), ("after", rows)):
        wins, ranks = 0, []
        for state in table[mask]:
            others = sorted(float(state @ row) for row in table[mask])
            values = [float(state @ row) for row in own]
            wins += max(values) > others[-1]
            ranks += [1 + sum(other > value for other in others) for value in values]
        assert results[f"first_{moment}"] == pytest.approx(wins / 28)
        assert math.isclose(results[f"median_rank_{moment}"], sorted(ranks)[(len(ranks) - 1) // 2])


def test_zero_rows_of_a_cone_win_before_and_not_after() -> None:
    folder, _ = chat("llama")
    output = tables(folder)[1]
    content = load_file(folder / "model.safetensors")
    ordinary = content[output][:300]
    content[output][:300] = torch.where(torch.arange(300)[:, None] % 2 == 0, ordinary.abs() + 1, -ordinary.abs() - 1)
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
    results = repair_rows(folder).results["output"]
    assert results["median_rank_before"] > 1
    assert results["first_after"] == 0
