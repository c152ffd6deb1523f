"""`decone.count_text`: what it counts is what the tokenizer gives, and every reader of counts reads its file."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.diagnosis.real_tables import trained
from tokenizers import Tokenizer, models, pre_tokenizers

import decone
from decone.diagnosis import text_counts
from decone.frequencies import count_texts, read_counts
from decone.models.find_tables import find_tables

WORDS = ["<unk>", "ice", "sea", "cone", "{", "snow\n", "7", "8"]


@pytest.fixture
def model() -> Path:
    folder = Path("model")
    folder.mkdir()
    cutter = Tokenizer(models.WordLevel({word: id for id, word in enumerate(WORDS)}, unk_token="<unk>"))
    cutter.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    cutter.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    save_file({"wte.weight": torch.randn(len(WORDS) + 2, 4)}, folder / "model.safetensors")
    return folder


def counted(text: str, model: Path, name: str = "counts.tsv") -> list[int]:
    Path("text.txt").write_text(text)
    decone.count_text("text.txt", model, name)
    return read_counts(Path(name), find_tables(str(model))).tolist()


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("sea ice sea", "tokens"),
        ("{ ice {", "tokens"),
        ("7 8 7", "ids"),
        ("ice snow\n", "ids"),
        ("7 ice", "tokens"),
    ],
)
def test_the_file_is_read_as_it_was_counted(text: str, keys: str, model: Path) -> None:
    expected = Counter(text.split(" "))
    assert counted(text, model) == [expected[word] for word in WORDS] + [0, 0]
    assert decone.count_text("text.txt", model, "again.tsv").keys == keys


def test_a_folder_is_the_sum_of_its_files(model: Path) -> None:
    Path("texts/deep").mkdir(parents=True)
    Path("texts/a.txt").write_text("sea ice")
    Path("texts/deep/b.md").write_text("ice cone")
    Path("texts/.hidden").write_text("\0")
    result = decone.count_text("texts", model, "counts.tsv")
    assert (result.tokens, result.types) == (4, 3)
    assert Path("counts.tsv").read_text() == "ice\t2\nsea\t1\ncone\t1\n"


def test_the_name_of_a_corpus_is_a_text() -> None:
    run = Path(trained().name)
    with pytest.raises(ValueError, match="remove characters it does not know"):
        decone.count_text("default", run, "counts.tsv")
    assert not Path("counts.tsv").exists()


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_a_text_is_counted_in_parts(chunk: int, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_counts, "CHUNK", chunk)
    assert counted("ice sea cone sea " * 30, model)[1:4] == [30, 60, 30]


def test_a_run_of_two_languages_has_them_in_both_copies() -> None:
    run = trained()
    Path("text.txt").write_text("e" * 1000)
    decone.count_text("text.txt", run.name, "counts.tsv")
    assert torch.equal(read_counts(Path("counts.tsv"), run), count_texts(run, ["e" * 1000]))


@pytest.mark.parametrize(
    ("text", "content", "out", "message"),
    [
        ("gone", None, "counts.tsv", "no text gone; name a UTF-8 file, a folder, or one of default"),
        ("empty", "", "counts.tsv", "the text has no token of the model"),
        ("binary", "a\0b", "counts.tsv", "binary is a binary file"),
        ("latin", "\udcff", "counts.tsv", "latin is not UTF-8"),
        ("text", "ice", "counts.json", "is no JSON; name it e.g. counts.tsv"),
        ("text", "ice", "text", "text exists; remove it, or choose another --out"),
        ("text", "ice", "model/counts.tsv", "lies in the model's own folder"),
    ],
)
def test_what_cannot_be_is_one_sentence(text: str, content: str | None, out: str, message: str, model: Path) -> None:
    if content is not None:
        Path(text).write_text(content, errors="surrogateescape")
    before = sorted(str(path) for path in Path().rglob("*"))
    with pytest.raises(ValueError, match=message):
        decone.count_text(text, model, out)
    assert sorted(str(path) for path in Path().rglob("*")) == before


def test_counts_of_another_tokenizer_are_refused(model: Path) -> None:
    Path("counts.tsv").write_text("ice\t1\nfire\t3\n")
    with pytest.raises(ValueError, match="'fire' is no token of the model"):
        read_counts(Path("counts.tsv"), find_tables(str(model)))


@pytest.mark.filterwarnings("ignore")
def test_the_groups_of_an_evaluation_follow_the_counts() -> None:
    transformers = pytest.importorskip("transformers")
    words = [*"abcdefgh", "<unk>"]
    inner = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained("gpt2")
    config = transformers.GPT2Config(vocab_size=len(words), n_positions=8, n_embd=12, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained("gpt2")
    Path("text.txt").write_text("abab" * 20)
    Path("training.txt").write_text("a" * 2 + "b" * 3 + "cdefgh" * 9 + "\u00e4" * 9)
    alone = decone.evaluate("gpt2", "text.txt", batch=1, device="cpu")
    decone.count_text("training.txt", "gpt2", "counts.tsv")
    against = decone.evaluate("gpt2", "text.txt", counts="counts.tsv", batch=1, device="cpu")
    assert alone.languages["all"].groups["rare"].perplexity is None
    assert (against.languages["all"].groups["rare"].perplexity or 0) > 1
    sources = [result.to_dict()["frequencies"]["source"] for result in (alone, against)]
    assert sources == ["text", "counts"]
    assert "of this text itself" in json.dumps(alone.to_dict())
    assert "of this text itself" in alone._repr_html_()
    assert "from the given counts" in against._repr_html_()
