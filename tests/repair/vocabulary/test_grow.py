"""Grown models: transformers' own logits of old tokens stay the same to the last bit, and new rows are what is said."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.repair.checkpoints import contents, llama, minilm
from tests.repair.vocabularies import KINDS, build, loaded, logits
from torch import Tensor

from decone.files import folder as folders
from decone.models.find_tables import find_tables
from decone.repair.vocabulary import write
from decone.repair.vocabulary.grow import grow
from decone.repair.vocabulary.initialisations import INITIALISATIONS, NewRows, RowRequest
from decone.repair.vocabulary.result import GrowthReport, VocabularyHistory
from decone.repair.vocabulary.trim import trim

NEW = ["covid", "lowliest", "Zürich"]
HEADS = {"bert": "cls.predictions.decoder.weight", "roberta": "lm_head.decoder.weight", "llama": "lm_head.weight"}
HEADS |= {"gpt2": "lm_head.weight", "bart": "lm_head.weight", "t5": "lm_head.weight"}


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def by_rows(folder: Path, rows: int) -> dict[str, Tensor]:
    """Everything as long as the vocabulary, with the rows first."""
    found = {name: tensor for name, tensor in tensors(folder).items() if rows in tensor.shape}
    return {name: tensor if tensor.shape[0] == rows else tensor.T for name, tensor in found.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("padding", "tied"), [(0, True), (0, False), (2, True), (5, False)])
def test_old_logits_stay_bit_for_bit(kind: str, padding: int, tied: bool) -> None:
    source = build(kind, Path("m"), padding, tie_word_embeddings=tied)
    before = contents(source)
    report = grow("m", NEW, Path("n"))
    V, ids = report.rows_before, torch.arange(40).view(2, 20)
    old, new = logits(source, ids), logits(Path("n"), ids)
    assert old.shape[-1] == V
    assert new.shape[-1] == report.rows_after == V + max(0, 3 - padding)
    assert torch.equal(old[..., : report.tokens_before], new[..., : report.tokens_before])
    assert report.in_padding == min(3, padding)
    assert contents(source) == before
    assert find_tables("n").tied == (tied or kind == "t5")  # which transformers always ties
    assert json.loads(Path("n/config.json").read_text())["vocab_size"] == new.shape[-1]
    one, two = by_rows(source, V), by_rows(Path("n"), report.rows_after)
    assert one.keys() == two.keys()
    assert len(one) == len([name for part in report.tables for name in part.tensors])
    first = report.tokens_before
    for name, tensor in one.items():
        assert torch.equal(two[name][:first], tensor[:first]), name
    rest = {name: tensor for name, tensor in tensors(source).items() if name not in one}
    assert all(torch.equal(tensor, tensors(Path("n"))[name]) for name, tensor in rest.items())
    # By hand: each row and each bias is the mean of those of its pieces.
    cut, again = loaded(source), loaded(Path("n"))
    # In Unigram with the mark of the space before them, as is what a byte-level decoder would take for bytes.
    names = [token.token for token in report.tokens]
    for token, name, index in zip(NEW, names, range(first, first + 3), strict=True):
        pieces = cut(name.removeprefix("▁"), add_special_tokens=False)["input_ids"]
        pieces = [piece for piece in pieces if piece != cut.unk_token_id or kind == "gpt2"]
        pieces = pieces or list(range(5, first))  # of Zürich bert knows nothing: all but the special tokens
        for tensor_name, tensor in two.items():
            torch.testing.assert_close(tensor[index], one[tensor_name][pieces].mean(0), msg=tensor_name)
        assert index in again(f"the {token} sat")["input_ids"]
        assert again.convert_tokens_to_ids(name) == index
        assert name.lstrip("▁ ") == token
    text = "the cat sat on the hill, by the sea"
    assert cut(text)["input_ids"] == again(text)["input_ids"]
    assert "covidx" not in again.get_vocab()


def test_words_are_found_as_words_and_elsewhere_only_when_asked() -> None:
    source = build("bert", Path("m"))
    grow("m", ["lock", "海"], Path("n"))
    grow("m", ["lock"], Path("o"), match="anywhere")
    cut, words, anywhere = (loaded(Path(place)) for place in ("m", "n", "o"))
    assert words("a locker")["input_ids"] == cut("a locker")["input_ids"] != anywhere("a locker")["input_ids"]
    (lock, sea), (other,) = words.convert_tokens_to_ids(["lock", "海"]), anywhere.convert_tokens_to_ids(["lock"])
    assert lock in words("a LOCK")["input_ids"]
    assert other in anywhere("a locker")["input_ids"]
    assert sea in words("x海x")["input_ids"]
    assert contents(source)["model.safetensors"] != contents(Path("n"))["model.safetensors"]


def test_a_table_stored_twice_stays_one() -> None:
    source = build("roberta", Path("m"))
    whole = load_file("m/model.safetensors")
    whole["lm_head.decoder.weight"] = whole["roberta.embeddings.word_embeddings.weight"].clone()
    whole["lm_head.decoder.bias"] = whole["lm_head.bias"].clone()
    save_file(whole, source / "model.safetensors", metadata={"format": "pt"})
    report = grow("m", NEW, Path("n"), init="sample")
    found = load_file("n/model.safetensors")
    assert torch.equal(found["lm_head.decoder.weight"], found["roberta.embeddings.word_embeddings.weight"])
    assert torch.equal(found["lm_head.decoder.bias"], found["lm_head.bias"])
    assert len(found["lm_head.bias"]) == 324
    assert find_tables("n").tied
    assert [len(part.tensors) for part in report.tables] == [2, 1, 1]
    ids = torch.arange(30)[None]
    assert torch.equal(logits(source, ids), logits(Path("n"), ids)[..., :321])


def test_biases_go_with_the_rows_of_the_output() -> None:
    source = build("bert", Path("m"), tie_word_embeddings=False)
    grow("m", ["covid"], Path("n"), init="neighbours", neighbours=4)
    one, two = load_file("m/model.safetensors"), load_file("n/model.safetensors")
    cut, first = loaded(source), len(one[HEADS["bert"]])
    pieces = [piece for piece in cut("covid", add_special_tokens=False)["input_ids"] if piece != cut.unk_token_id]
    chosen = {}
    for name in (HEADS["bert"], "bert.embeddings.word_embeddings.weight"):
        table = one[name].double()
        cosine = torch.cosine_similarity(table, table[pieces].mean(0)[None])
        cosine[:5] = -2  # special tokens
        chosen[name] = cosine.topk(4).indices
        torch.testing.assert_close(two[name][first], one[name][chosen[name]].mean(0))
    near, other = chosen.values()
    for bias in ("cls.predictions.bias", "cls.predictions.decoder.bias"):
        if bias in one:
            torch.testing.assert_close(two[bias][first], one[bias][near].mean(0))
            assert not torch.isclose(two[bias][first], one[bias][other].mean(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_shards_and_small_pieces(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(write, "STEP", 100)
    source = build("llama", Path("m"), dtype=dtype, shards=True)
    before = contents(source)
    report = grow("m", NEW, Path("n"), multiple=64, link=True)
    assert report.rows_after == 448
    assert report.written is not None
    index = json.loads(Path("n/model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {path.name for path in Path("n").glob("model-*")}
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors(Path("n")).values())
    assert index["metadata"]["total_size"] == total
    changed = {name for name, digest in contents(Path("n")).items() if before.get(name) != digest}
    assert changed == set(report.written.rewritten)
    assert "README.md" not in changed
    assert len([name for name in changed if name.startswith("model-")]) == 2  # the two shards with a table
    assert all(Path("m", name).samefile(Path("n", name)) for name in report.written.linked)
    ids = torch.arange(30)[None]
    assert torch.equal(logits(source, ids), logits(Path("n"), ids)[..., :400])
    table = tensors(source)["lm_head.weight"]
    ordinary = table[259:].double().mean(0)  # neither special nor bytes, which are trained as well
    padding = tensors(Path("n"))["lm_head.weight"][403:]
    assert torch.equal(padding, table[3:].double().mean(0).to(dtype).expand(45, -1))
    assert not torch.equal(padding[0], ordinary.to(dtype))


def test_a_way_of_ones_own() -> None:
    build("llama", Path("m"))
    seen: list[RowRequest] = []

    def constant(request: RowRequest) -> NewRows:
        seen.append(request)
        rows = torch.full((len(request.surfaces), request.table.shape[1]), float(len(seen)), dtype=torch.float64)
        return NewRows(rows, [torch.tensor([0])] * len(request.surfaces))

    report = grow("m", NEW, Path("n"), init=constant)
    assert [request.table.name for request in seen] == ["model.embed_tokens.weight", "lm_head.weight"]
    found = load_file("n/model.safetensors")
    assert found["model.embed_tokens.weight"][400:].eq(1).all()
    assert found["lm_head.weight"][400:].eq(2).all()
    assert report.settings["init"] == "constant"


def test_the_report_and_what_stays_with_the_model() -> None:
    source = build("bert", Path("m"))
    report = grow("m", [*NEW, "the", "covid", "", "The"], Path("n"), init="neighbours", neighbours=3)
    said = "left out: 1 known already (the); 1 read as one token already (The); 1 given twice (covid); 1 empty"
    assert said in report.notes
    assert report.added == 3
    GrowthReport.model_validate_json(report.model_dump_json(by_alias=True))
    history = VocabularyHistory.model_validate_json(Path("n/decone.json").read_text())
    (step,) = history.steps
    assert (step.method, step.model, step.settings["init"], step.settings["neighbours"]) == (
        "grow",
        "m",
        "neighbours",
        3,
    )
    assert step.tables == report.tables
    assert said in step.notes
    assert step.decone
    assert step.date
    table = load_file("m/model.safetensors")["bert.embeddings.word_embeddings.weight"].double()
    (norms,) = report.norms
    assert norms.old["mean"] == pytest.approx(float(table[5:].norm(dim=1).mean()))
    row = load_file("n/model.safetensors")["bert.embeddings.word_embeddings.weight"][-3].double()
    near = torch.cosine_similarity(table[5:], row[None]).argsort(descending=True)[:5] + 5
    assert [other.id for other in report.tokens[0].neighbours] == near.tolist()
    assert report.tokens[0].norm == pytest.approx(float(row.norm()))
    # Grown once more: both steps are told, and ids go on.
    again = grow("n", ["blog"], Path("o"))
    steps = VocabularyHistory.model_validate_json(Path("o/decone.json").read_text()).steps
    assert [step.rows_after for step in steps] == [93, 94]
    assert again.tokens[0].id == 93
    assert steps[1].tables[0].before == steps[0].tables[0].after
    assert not (source / "decone.json").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_on_a_text(kind: str) -> None:
    build(kind, Path("m"), padding=1)
    Path("t.txt").write_text("the cat sat on the hill by the sea, and then the dog ran over the mat. " * 20)
    found = grow("m", NEW, Path("n"), text=Path("t.txt")).divergence
    assert found is not None
    assert found.positions > 30
    assert found.largest_change == found.kl_mean == found.kl_max == 0
    assert 0 < found.mass_mean < found.mass_max < 1
    if kind in ("gpt2", "llama"):  # by hand, on the first window
        ids = torch.tensor(loaded(Path("m"))(Path("t.txt").read_text(), add_special_tokens=False)["input_ids"])
        mass = []
        for part in ids.split(56):
            row = torch.cat((part.new_tensor([0 if kind == "gpt2" else 1]), part))[None]
            mass.append(logits(Path("n"), row)[0].softmax(-1)[:, [report_id(kind) + n for n in range(3)]].sum(-1))
        assert found.mass_mean == pytest.approx(float(torch.cat(mass).mean()), rel=1e-5)


def report_id(kind: str) -> int:
    return {"gpt2": 320, "llama": 400}[kind]


def test_an_encoder_has_no_outputs() -> None:
    source = build("bert", Path("m"))
    config = json.loads((source / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (source / "config.json").write_text(json.dumps(config))
    whole = {name: part for name, part in load_file("m/model.safetensors").items() if not name.startswith("cls")}
    save_file(whole, source / "model.safetensors", metadata={"format": "pt"})
    Path("t.txt").write_text("the cat sat")
    report = grow("m", NEW, Path("n"), text=Path("t.txt"))
    assert report.divergence is None
    assert any("no outputs" in note for note in report.notes)


def test_nested_and_silent_configurations() -> None:
    source = build("llama", Path("m"))
    config = json.loads((source / "config.json").read_text())
    nested = {"model_type": "llava", "architectures": config["architectures"], "text_config": config}
    (source / "config.json").write_text(json.dumps(nested | {"vision_config": {"vocab_size": 400}}))
    grow("m", NEW, Path("n"))
    found = json.loads(Path("n/config.json").read_text())
    assert found["text_config"]["vocab_size"] == 403
    assert found["vision_config"]["vocab_size"] == 400
    del config["vocab_size"]
    (source / "config.json").write_text(json.dumps(config))
    grow("m", NEW, Path("o"))
    assert json.loads(Path("o/config.json").read_text())["vocab_size"] == 403


def test_older_files_list_the_tokens_too() -> None:
    source = build("bert", Path("m"))
    config = json.loads((source / "tokenizer_config.json").read_text())
    mark = {"content": "[PAD]", "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    (source / "tokenizer_config.json").write_text(json.dumps(config | {"added_tokens_decoder": {"0": mark}}))
    (source / "added_tokens.json").write_text("{}")
    grow("m", NEW, Path("n"))
    listed = json.loads(Path("n/tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert listed["0"] == mark
    assert listed["90"]["content"] == "covid"
    assert not listed["90"]["special"]
    assert json.loads(Path("n/added_tokens.json").read_text()) == {"covid": 90, "lowliest": 91, "Zürich": 92}
    assert loaded(Path("n")).convert_tokens_to_ids(NEW) == [90, 91, 92]


def refused(said: str, tokens: list[str] = NEW, model: str = "m", out: str = "n", **settings: Any) -> None:
    before = contents(Path())
    folders = {path for path in Path().rglob("*") if path.is_dir()}
    with pytest.raises(ValueError, match=said) as raised:
        grow(model, tokens, Path(out), **settings)
    assert "\n" not in str(raised.value)
    assert contents(Path()) == before
    assert {path for path in Path().rglob("*") if path.is_dir()} == folders


def test_what_is_refused() -> None:
    source = build("llama", Path("m"))
    refused("no new token.*2 known already", ["▁the", "▁cat"])
    refused("no new token", [])
    refused("take one of pieces, mean", init="best")
    refused("take at least 1", multiple=0)
    refused("own folder", out="m")
    refused("own folder", out="m/n")
    refused("no file", text=Path("absent.txt"))
    refused("no tensor", leave=["absent"])
    Path("t.txt").write_text("the cat")
    with pytest.raises(ValueError, match="leave out --dry-run"):
        grow("m", NEW, None, text=Path("t.txt"))
    llama(Path("bare"), sharded=False)
    refused("no tokenizer.json", model="bare")
    Path("bare/model.safetensors").rename("bare.safetensors")
    refused("no folder of transformers", model="bare.safetensors")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 399}))
    refused("says vocab_size 399 but the tables have 400")
    (source / "config.json").write_text(json.dumps(config))
    (source / "decone.json").write_text("{}")
    refused("no history")
    (source / "decone.json").unlink()
    (source / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<pad>"}))
    refused("gives the id 400 but its tables have 400 rows")
    padded = build("llama", Path("p"), padding=1)
    (padded / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<pad>"}))
    refused("declare tokens that it lacks", model="p")


def test_tensors_that_are_as_long_but_unknown() -> None:
    source = build("llama", Path("m"))
    whole = load_file("m/model.safetensors")
    save_file(whole | {"lm_head.scales": torch.ones(1, 400)}, source / "model.safetensors", metadata={"format": "pt"})
    refused("lm_head.scales; a quantised model is changed before")
    assert grow("m", NEW, Path("n"), leave=["lm_head.scales"]).added == 3
    assert load_file("n/model.safetensors")["lm_head.scales"].shape == (1, 400)
    small = whole | {"lm_head.weight": torch.ones(400, 16, dtype=torch.int8)}
    save_file(small, source / "model.safetensors", metadata={"format": "pt"})
    refused("quantised", out="o")
    longer = whole | {"model.embed_tokens.weight": torch.ones(408, 16)}
    save_file(longer, source / "model.safetensors", metadata={"format": "pt"})
    refused("something else than tokens", out="o")


def test_models_to_which_the_highest_id_means_something() -> None:
    source = build("llama", Path("m"))
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"model_type": "whisper"}))
    names = {"embedding": "model.embed_tokens.weight", "head": "lm_head.weight"}
    refused("behind its first timestamp", **names)
    (source / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": config, "architectures": []}))
    refused("where its highest id stands", **names)


def test_other_weights_are_left_out_and_said() -> None:
    source = build("gpt2", Path("m"))
    (source / "pytorch_model.bin").write_bytes(b"old")
    (source / "onnx").mkdir()
    (source / "onnx" / "model.onnx").write_bytes(b"old")
    (source / "README.md").write_text("a model")
    report = grow("m", NEW, Path("n"))
    assert not Path("n/pytorch_model.bin").exists()
    assert not Path("n/onnx").exists()
    assert "left out, for the old vocabulary is in it: onnx/model.onnx, pytorch_model.bin" in report.notes
    assert Path("n/README.md").exists()


def test_a_full_disk_and_an_interrupt_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    build("gpt2", Path("m"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        refused("cannot write .*free space", out="above/n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders.shutil, "copyfile", stop)
    before = contents(Path())
    with pytest.raises(KeyboardInterrupt):
        grow("m", NEW, Path("n"))
    assert contents(Path()) == before
    assert not Path("n").exists()


def test_a_real_encoder() -> None:
    transformers = pytest.importorskip("transformers")
    source = minilm()
    report = grow(str(source), ["covid", "gazumping", "the"], Path("n"), link=True)
    assert report.added == 2
    assert report.rows_after == 30524
    cut, again = loaded(source), loaded(Path("n"))
    text = "Covid came; then the gazumpings, and gazumping."
    assert again(text)["input_ids"].count(30522) == 1 == again(text)["input_ids"].count(30523)
    assert cut("a plain text")["input_ids"] == again("a plain text")["input_ids"]
    old, new = (transformers.AutoModel.from_pretrained(folder).eval() for folder in (source, "n"))
    inputs = cut("a plain text", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(old(**inputs).last_hidden_state, new(**inputs).last_hidden_state)
    assert set(INITIALISATIONS) == {"pieces", "mean", "sample", "neighbours"}


@pytest.mark.parametrize(("token", "left"), [("covid", False), ("[TOOL]", True)])
def test_a_sentencepiece_file_goes_where_a_piece_is_added(token: str, left: bool) -> None:
    source = build("t5", Path("m"))
    (source / "spiece.model").write_bytes(b"the old pieces")
    report = grow("m", [token], Path("n"))
    assert Path("n/spiece.model").exists() == left
    assert any("left out" in note and "spiece.model" in note for note in report.notes) != left
    assert loaded(Path("n")).convert_tokens_to_ids(report.tokens[0].token) == report.tokens[0].id


def test_a_grown_unigram_model_can_grow_and_shrink_again() -> None:
    build("t5", Path("m"))
    grow("m", ["covid", "ạ"], Path("n"))
    grow("n", ["covidx", "bạn"], Path("o"))
    again = loaded(Path("o"))
    text = "the covid, a covidx; bạn hạt"
    ids = again(text, add_special_tokens=False)["input_ids"]
    assert [again.convert_ids_to_tokens(ids).count(piece) for piece in ("▁covid", "▁covidx", "▁bạn", "ạ")] == [1] * 4
    Path("t.txt").write_text(text + "\n")
    trim("o", Path("p"), text="t.txt")
    small = loaded(Path("p"))
    assert small.convert_ids_to_tokens(small(text)["input_ids"]) == again.convert_ids_to_tokens(
        again(text)["input_ids"]
    )
