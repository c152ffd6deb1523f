"""TrimReport models: transformers gives tokens that stay the same logits bit for bit, and texts are cut as before."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.repair.checkpoints import contents, minilm
from tests.repair.vocabularies import KINDS, TEXT, build, corpus, loaded, logits

from decone.models.find_tables import find_tables
from decone.repair.vocabulary import trim as trimming
from decone.repair.vocabulary import write
from decone.repair.vocabulary.grow import grow
from decone.repair.vocabulary.result import TrimReport, VocabularyHistory
from decone.repair.vocabulary.trim import TokenSelection, trim

SAID = "the cat sat on the hill, zebra\n\n then the naïve reader ran 42 ☃\nthe unlocked\n"


@pytest.fixture(autouse=True)
def text() -> Path:
    path = Path("t.txt")
    path.write_text(SAID)
    return path


def old_ids(folder: Path) -> list[int]:
    found: list[int] = load_file(folder / "decone/ids.safetensors")["old"].tolist()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("padding", "tied"), [(0, True), (5, False)])
def test_logits_and_texts_stay(kind: str, padding: int, tied: bool, text: Path) -> None:
    source = build(kind, Path("m"), padding, tie_word_embeddings=tied)
    before = contents(source)
    report = trim("m", Path("n"), text=[text])
    old = old_ids(Path("n"))
    assert len(old) == report.rows_after == report.tokens_after < report.tokens_before <= report.rows_before - padding
    assert contents(source) == before
    assert find_tables("n").tied == (tied or kind == "t5")
    ids = torch.arange(min(20, len(old)))[None]
    asked = torch.tensor(old)
    assert torch.equal(logits(source, asked[ids])[..., asked], logits(Path("n"), ids))
    # Every tensor by the vocabulary has the rows of before, and only such tensors changed.
    one, two = load_file("m/model.safetensors"), load_file("n/model.safetensors")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        axes = [axis for axis, size in enumerate(tensor.shape) if size == report.rows_before]
        assert torch.equal(tensor.index_select(axes[0], asked) if axes else tensor, two[name]), name
    assert sum(part.shape_after.count(len(old)) for part in report.tables) == len(report.tables) >= 1
    # With the marks around it, whole and by the line, and as strings.
    cut, again = loaded(source), loaded(Path("n"))
    for said in (SAID, *SAID.split("\n")):
        first, second = cut(said)["input_ids"], again(said)["input_ids"]
        assert [old[index] for index in second] == first
        assert cut.convert_ids_to_tokens(first) == again.convert_ids_to_tokens(second)
        assert cut.decode(first) == again.decode(second)
    assert json.loads(Path("n/config.json").read_text())["vocab_size"] == len(old)
    for role in ("pad_token", "eos_token", "bos_token", "mask_token"):
        assert getattr(again, role) == getattr(cut, role)
        if getattr(cut, role) is not None:
            assert old[getattr(again, f"{role}_id")] == getattr(cut, f"{role}_id")


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_that_was_given(kind: str) -> None:
    build(kind, Path("m"))
    for seed in range(3):
        lines = corpus(3, seed)[3:]
        Path("s.txt").write_text("\n".join(lines))
        trim("m", Path(f"n{seed}"), text=[Path("s.txt")])
        old, cut, again = old_ids(Path(f"n{seed}")), loaded(Path("m")), loaded(Path(f"n{seed}"))
        for line in lines:
            assert [old[index] for index in again(line)["input_ids"]] == cut(line)["input_ids"]


def test_bytes_spell_what_was_not_given(text: Path) -> None:
    for kind in ("gpt2", "llama"):
        build(kind, Path(kind))
        trim(kind, Path(f"{kind}-n"), text=[text])
        again = loaded(Path(f"{kind}-n"))
        ids = again("quixotic Жук", add_special_tokens=False)["input_ids"]
        assert again.decode(ids).strip() == "quixotic Жук"
        assert again.unk_token_id not in ids[1:]


def test_shards_and_small_pieces(monkeypatch: pytest.MonkeyPatch, text: Path) -> None:
    monkeypatch.setattr(write, "STEP", 100)
    source = build("llama", Path("m"), dtype=torch.bfloat16, shards=True)
    report = trim("m", Path("n"), text=[text], link=True)
    assert report.written is not None
    assert report.written.linked
    assert not report.written.copied
    assert report.bytes_of_rows == 2 * 2 * 16 * (report.rows_before - report.rows_after)
    old = torch.tensor(old_ids(Path("n")))
    ids = torch.arange(20)[None]
    assert torch.equal(logits(source, old[ids])[..., old], logits(Path("n"), ids))
    index = json.loads(Path("n/model.safetensors.index.json").read_text())
    whole = [tensor for path in Path("n").glob("model-*") for tensor in load_file(path).values()]
    assert index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in whole)


def test_ids_in_configurations(text: Path) -> None:
    source = build("bart", Path("m"))
    word = loaded(source).convert_tokens_to_ids(["a", "Z", "Q"])  # bytes, which stay
    rare = loaded(source)("stony", add_special_tokens=False)["input_ids"][-1]  # goes, unless something names it
    config = json.loads((source / "config.json").read_text())
    config |= {"forced_bos_token_id": rare, "bad_words_ids": [[rare, word[0]], [319]], "image_token_id": 50264}
    (source / "config.json").write_text(json.dumps(config))
    made = json.loads((source / "generation_config.json").read_text())
    made |= {"eos_token_id": [2, word[1]], "suppress_tokens": [word[2], 318], "forced_decoder_ids": [[1, word[0]]]}
    made |= {"sequence_bias": [[[word[0], word[1]], -5.0]], "lang_to_id": {"<a>": word[0]}, "max_length": 318}
    (source / "generation_config.json").write_text(json.dumps(made))
    report = trim("m", Path("n"), text=[text])
    old = old_ids(Path("n"))
    new = {index: place for place, index in enumerate(old)}
    assert rare in new
    assert 318 not in new
    assert 319 not in new
    found = json.loads(Path("n/config.json").read_text())
    assert (found["forced_bos_token_id"], found["pad_token_id"]) == (new[rare], 1)
    assert found["bad_words_ids"] == [[new[rare], new[word[0]]]]
    assert found["image_token_id"] == 50264
    assert any("image_token_id 50264" in note for note in report.notes)
    found = json.loads(Path("n/generation_config.json").read_text())
    assert found["eos_token_id"] == [2, new[word[1]]]
    assert found["suppress_tokens"] == [new[word[2]]]
    assert found["forced_decoder_ids"] == [[1, new[word[0]]]]
    assert found["lang_to_id"] == {"<a>": new[word[0]]}
    assert found["sequence_bias"] == [[[new[word[0]], new[word[1]]], -5.0]]
    assert found["max_length"] == 318


def test_positions_that_hang_on_the_padding_token(text: Path) -> None:
    """RoBERTa counts positions from the id of the padding token: all ids before it stay."""
    source = build("bert", Path("m"))
    config = json.loads((source / "config.json").read_text()) | {"pad_token_id": 20}
    (source / "config.json").write_text(json.dumps(config))
    trim("m", Path("n"), keep=text_of("the"))
    assert old_ids(Path("n"))[:7] == [0, 1, 2, 3, 4, 20, loaded(source).convert_tokens_to_ids("the")]
    (source / "config.json").write_text(json.dumps(config | {"model_type": "roberta"}))
    trim("m", Path("o"), keep=text_of("the"))
    assert old_ids(Path("o"))[:21] == list(range(21))
    assert json.loads(Path("o/config.json").read_text())["pad_token_id"] == 20


def text_of(*tokens: str) -> Path:
    path = Path("keep.txt")
    path.write_text("\n".join(tokens) + "\n")
    return path


def test_older_files_of_the_tokenizer(text: Path) -> None:
    for kind, names in (("bert", ("vocab.txt",)), ("gpt2", ("vocab.json", "merges.txt"))):
        source = build(kind, Path(kind))
        parts = json.loads((source / "tokenizer.json").read_text())
        vocabulary = parts["model"]["vocab"]
        (source / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary))
        if kind == "gpt2":
            (source / "vocab.txt").rename(source / "vocab.json")
            (source / "vocab.json").write_text(json.dumps(vocabulary))
            lines = [" ".join(pair) for pair in parts["model"]["merges"]]
            (source / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n")
        (source / "spiece.model").write_bytes(b"old")
        config = json.loads((source / "tokenizer_config.json").read_text())
        mark = parts["added_tokens"][-1]
        config["added_tokens_decoder"] = {str(mark["id"]): {k: v for k, v in mark.items() if k != "id"}}
        (source / "tokenizer_config.json").write_text(json.dumps(config))
        out = Path(f"{kind}-n")
        report = trim(kind, out, text=[text])
        assert any("spiece.model" in note for note in report.notes)
        assert not (out / "spiece.model").exists()
        found = json.loads((out / "tokenizer_config.json").read_text())["added_tokens_decoder"]
        assert old_ids(out)[int(next(iter(found)))] == mark["id"]
        # The older files alone make the same tokenizer.
        (out / "tokenizer.json").rename("tokenizer.json")
        settings = out / "tokenizer_config.json"
        own_class = {"bert": "BertTokenizer", "gpt2": "GPT2Tokenizer"}[kind]
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"tokenizer_class": own_class}))
        model_tables = find_tables(str(out))
        assert model_tables.tokenizer is not None
        assert all((out / name).exists() for name in names)
        said = "the cat sat on the hill"
        alone = model_tables.tokenizer.encode(said, add_special_tokens=False).ids
        Path("tokenizer.json").rename(out / "tokenizer.json")
        assert alone == loaded(out)(said, add_special_tokens=False)["input_ids"]


def test_what_nothing_leads_to() -> None:
    source = build("bert", Path("m"), padding=2)
    parts = json.loads((source / "tokenizer.json").read_text())
    vocabulary = parts["model"]["vocab"] | {"CAT": 90, "the cat": 91}  # upper case, and a space
    (source / "tokenizer.json").write_text(json.dumps(parts | {"model": parts["model"] | {"vocab": vocabulary}}))
    report = trim("m", Path("n"), unreachable=True)
    assert report.dropped == ["CAT", "the cat"]
    assert (report.rows_before, report.rows_after) == (92, 90)
    assert report.retained["reachable"] == 85
    assert old_ids(Path("n")) == list(range(90))
    assert report.checked > 200
    with pytest.raises(ValueError, match="nothing to trim"):
        trim("n", Path("o"), unreachable=True)


def test_a_list_and_a_text_and_counts(text: Path) -> None:
    build("gpt2", Path("m"))
    cut = loaded(Path("m"))
    trim("m", Path("n"), keep=text_of("Ġcat"))
    vocabulary = loaded(Path("n")).get_vocab()
    assert "Ġcat" in vocabulary
    assert len(vocabulary) < 262
    assert loaded(Path("n")).tokenize(" cat") == ["Ġcat"]  # with the merges it is built from
    Path("s.txt").write_text("the cat\nthe cat\nthe mat\n")
    trim("m", Path("o"), text=[Path("s.txt")], keep=text_of("Ġsat"), min_count=2)
    vocabulary = loaded(Path("o")).get_vocab()
    mat = cut.tokenize(" mat")
    assert {"Ġcat", "the", "Ġsat"} <= vocabulary.keys()
    assert not set(mat) <= vocabulary.keys()


def test_a_word_that_is_given_up_stays_unknown() -> None:
    """Greedy matching takes "un" and finds no "##x"; without "un" it would take "u" and "##nx"."""
    source = build("bert", Path("m"), padding=20)
    parts = json.loads((source / "tokenizer.json").read_text())
    vocabulary = [*parts["model"]["vocab"], *("qwy", "q", "##wyx")]
    model = parts["model"] | {"vocab": {token: place for place, token in enumerate(vocabulary)}}
    (source / "tokenizer.json").write_text(json.dumps(parts | {"model": model}))
    Path("s.txt").write_text("the qwyx q\n")
    assert loaded(source).tokenize("qwyx") == ["[UNK]"]
    trim("m", Path("n"), text=[Path("s.txt")], keep=text_of("##wyx"))
    assert loaded(Path("n")).tokenize("the qwyx q") == loaded(source).tokenize("the qwyx q")
    assert "qwy" in loaded(Path("n")).get_vocab()


def test_the_price_of_the_unknown() -> None:
    """Unigram charges ten more than its least likely piece for what it does not know."""
    source = build("t5", Path("m"))
    parts = json.loads((source / "tokenizer.json").read_text())
    least = min(parts["model"]["vocab"], key=lambda entry: entry[1])[0]
    Path("s.txt").write_text("the cat\n")
    trim("m", Path("n"), text=[Path("s.txt")])
    again = json.loads(Path("n/tokenizer.json").read_text())["model"]
    assert least in dict(again["vocab"])
    assert again["vocab"][again["unk_id"]][0] == "<unk>"
    assert source.exists()


def test_history_and_report(text: Path) -> None:
    build("gpt2", Path("m"))
    grow("m", ["covid"], Path("g"))
    report = trim("g", Path("n"), text=[text])
    TrimReport.model_validate_json(report.model_dump_json(by_alias=True))
    steps = VocabularyHistory.model_validate_json(Path("n/decone.json").read_text()).steps
    assert [step.method for step in steps] == ["grow", "trim"]
    assert steps[1].tables == report.tables
    assert steps[0].tables[0].after == steps[1].tables[0].before
    assert steps[1].settings["text"] == ["t.txt"]
    assert sum(report.retained.values()) == report.rows_after
    assert report.retained["added"] == 1  # covid, though nobody says it
    assert not report.notes
    assert report.checked > 20
    assert 0 < len(report.dropped) <= 20
    # TrimReport, then grown: the map of ids would be of another table.
    grow("n", ["blog"], Path("o"))
    assert not Path("o/decone/ids.safetensors").exists()
    assert loaded(Path("o")).tokenize("covid blog")[0] == "covid"


def refused(said: str, model: str = "m", out: str = "n", **settings: Any) -> None:
    before = contents(Path())
    folders = {path for path in Path().rglob("*") if path.is_dir()}
    with pytest.raises(ValueError, match=said) as raised:
        trim(model, Path(out), **settings)
    assert "\n" not in str(raised.value)
    assert contents(Path()) == before
    assert {path for path in Path().rglob("*") if path.is_dir()} == folders


def test_what_is_refused(text: Path) -> None:
    source = build("gpt2", Path("m"))
    for settings, said in (
        ({}, "say what stays"),
        ({"texts": (text,), "unreachable": True}, "leave out --text and --keep"),
        ({"texts": (text,), "min_count": 0}, "at least 1"),
        ({"unreachable": True, "min_count": 2}, "add --text"),
    ):
        with pytest.raises(ValueError, match=said):
            TokenSelection(**settings)  # type: ignore[arg-type]
    refused("no file", text=[Path("absent.txt")])
    refused(r"names 1 tokens that the vocabulary lacks \(catt\)", keep=text_of("Ġcat", "catt"))
    refused("own folder", text=[text], out="m")
    refused("own folder", text=[text], out="m/n")
    Path("all.txt").write_text(TEXT)
    parts = json.loads((source / "tokenizer.json").read_text())
    parts["model"]["dropout"] = 0.1
    (source / "tokenizer.json").write_text(json.dumps(parts))
    refused("at random", text=[text])
    parts["model"] |= {"dropout": None, "type": "Odd"}
    (source / "tokenizer.json").write_text(json.dumps(parts))
    refused("the tokenizer cannot be read", text=[text])
    whole = load_file("m/model.safetensors")
    save_file(whole | {"odd": torch.ones(320)}, source / "model.safetensors", metadata={"format": "pt"})
    parts["model"] |= {"type": "BPE"}
    (source / "tokenizer.json").write_text(json.dumps(parts))
    refused("--leave odd", text=[text])


def test_a_tokenizer_without_an_unknown_token(text: Path) -> None:
    source = build("t5", Path("m"))
    parts = json.loads((source / "tokenizer.json").read_text())
    parts["model"]["unk_id"] = None
    (source / "tokenizer.json").write_text(json.dumps(parts))
    refused("cannot take .*zebra", text=[text])


def test_marks_beyond_the_table(text: Path) -> None:
    source = build("roberta", Path("m"))
    parts = json.loads((source / "tokenizer.json").read_text())
    parts["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 999}
    parts["padding"] |= {"pad_type_id": 0, "pad_token": "<pad>"}
    (source / "tokenizer.json").write_text(json.dumps(parts))
    refused("names the id 999", text=[text])


def test_a_text_that_would_be_cut_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch, text: Path) -> None:
    """Without the smaller tokens that kept ones are built from."""
    build("gpt2", Path("m"))
    monkeypatch.setattr(trimming, "merge_components", lambda *_: set())
    refused("cuts the text near", text=[text])
    with pytest.raises(ValueError, match="cuts the text near"):
        trim("m", None, text=[text])


def test_a_dry_run_says_the_same(text: Path) -> None:
    build("t5", Path("m"))
    before = contents(Path())
    dry = trim("m", text=[text])
    assert contents(Path()) == before
    assert dry.written is None
    assert trim("m", Path("n"), text=[text]).model_copy(update={"written": None, "tables": []}) == dry


def test_a_real_encoder(text: Path) -> None:
    transformers = pytest.importorskip("transformers")
    source = minilm()
    report = trim(str(source), Path("n"), text=[text], link=True)
    assert report.rows_before == 30522
    assert 15 < report.rows_after < 60
    assert Path("n/model.safetensors").stat().st_size < (source / "model.safetensors").stat().st_size - 40_000_000
    cut, again = loaded(source), loaded(Path("n"))
    old, new = (transformers.AutoModel.from_pretrained(folder).eval() for folder in (source, "n"))
    with torch.no_grad():
        one, two = (model(**split(SAID, return_tensors="pt")) for model, split in ((old, cut), (new, again)))
    assert torch.equal(one.last_hidden_state, two.last_hidden_state)
    lines = Path("n/vocab.txt").read_text().splitlines()
    assert lines == [token for token, _ in sorted(again.get_vocab().items(), key=lambda pair: pair[1])]
