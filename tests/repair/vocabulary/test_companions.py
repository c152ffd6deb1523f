"""Files beside the weights after trim and grow: every id is that of the same token, and no old vocabulary is left."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.repair.vocabularies import build, loaded

from decone.repair.vocabulary import companions
from decone.repair.vocabulary.config_ids import family_ids
from decone.repair.vocabulary.grow import grow
from decone.repair.vocabulary.trim import trim

V = 320  # rows of the model that `gpt2` builds
TEXT = "the cat sat on the mat"


def gpt2(padding: int = 0, **files: Any) -> Path:
    """A model in m, with JSON files beside it."""
    source = build("gpt2", Path("m"), padding)
    Path("t.txt").write_text(TEXT)
    for name, content in files.items():
        write(source / f"{name}.json", content)
    return source


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def change_config(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", config | entries)


def read(name: str) -> Any:
    return json.loads(Path("n", name).read_text())


def vocabulary(folder: str = "n") -> dict[str, int]:
    tokens: dict[str, int] = loaded(Path(folder)).get_vocab()
    return tokens


def trimmed() -> Any:
    return trim("m", Path("n"), text="t.txt")


def rare() -> list[tuple[str, int]]:
    """Tokens that no text of the tests needs, with their ids."""
    tokens = vocabulary("m").items()
    return sorted((token, index) for token, index in tokens if token.isascii() and token.isalpha() and len(token) > 3)


def test_maps_from_tokens_to_ids_follow() -> None:
    source = gpt2()
    (token, index), (other, second), *_ = rare()
    marks = {"<|endoftext|>": vocabulary("m")["<|endoftext|>"], token: index}
    write(source / "odd.json", {"deep": [{"marks": marks}], "back": {str(second): other, "0": "<|endoftext|>"}})
    trimmed()
    new = vocabulary()
    assert read("odd.json") == {
        "deep": [{"marks": {name: new[name] for name in marks}}],
        "back": {str(new[other]): other, str(new["<|endoftext|>"]): "<|endoftext|>"},
    }


def test_a_copy_of_the_vocabulary_loses_what_goes() -> None:
    old = vocabulary(str(gpt2()))
    change_config(Path("m"), vocabulary_map=old, vocab_list=sorted(old, key=lambda token: old[token]))
    write(Path("m/assets/ids.json"), {str(index): token for token, index in old.items()})
    trimmed()
    new = vocabulary()
    assert len(new) < len(old)
    assert read("config.json")["vocabulary_map"] == new
    assert read("config.json")["vocab_list"] == sorted(new, key=lambda token: new[token])
    assert read("assets/ids.json") == {str(index): token for token, index in new.items()}


def test_tokens_of_pictures_stay() -> None:
    """Chameleon makes pictures of the tokens that begin with IMGIMG, though none of its tokens is a special one."""
    source = gpt2()
    spec = json.loads((source / "tokenizer.json").read_text())
    (token, index), *_ = rare()
    spec["model"]["merges"] = [pair for pair in spec["model"]["merges"] if token not in ("".join(pair), *pair)]
    old = spec["model"]["vocab"] = {("IMGIMGAZ" if i == index else t): i for t, i in spec["model"]["vocab"].items()}
    write(source / "tokenizer.json", spec)
    change_config(source, vocabulary_map=old)
    trimmed()
    assert read("config.json")["vocabulary_map"]["IMGIMGAZ"] == vocabulary()["IMGIMGAZ"]


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("config.json", {"vision_config": {"image_token_id": 0}}),
        ("config.json", {"im_end_id": 0}),
        ("processor_config.json", {"image_processor": {"image_token_id": 0}}),
        ("preprocessor_config.json", {"audio_token_index": [0, 0]}),
        ("generation_config.json", {"text_decoder_lang_to_code_id": {"eng": 0}}),
        ("adapter_config.json", {"trainable_token_indices": {"embed_tokens": [0]}}),
        ("any/settings.json", {"stop": [{"id": 0, "content": "TOKEN"}]}),
    ],
)
def test_ids_by_name_follow(name: str, entry: dict[str, Any]) -> None:
    source = gpt2()
    (token, index), *_ = rare()

    def fill(value: Any, number: int) -> Any:
        if isinstance(value, dict):
            return {key: fill(inner, number) for key, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner, number) for inner in value]
        return token if value == "TOKEN" else number

    path = source / name
    present = json.loads(path.read_text()) if path.exists() else {}
    write(path, present | fill(entry, index))
    trimmed()
    assert fill(entry, vocabulary()[token]).items() <= read(name).items()


def test_a_processor_names_its_token() -> None:
    source = gpt2()
    (token, _), *_ = rare()
    write(source / "processor_config.json", {"image_token": token})
    trimmed()
    assert token in vocabulary()


@pytest.mark.parametrize(
    "entry",
    [
        {"id2label": {"0": "!", "1": '"', "2": "#"}, "label2id": {"!": 0, '"': 1, "#": 2}},
        {"prompt_lookup_num_tokens": 300, "num_image_tokens": 300},
        {"size": {"height": 300, "width": 300}, "layers": [300, 301]},
        {"qformer_config": {"vocab_size": 999, "pad_token_id": 300}},
        {"t2u_eos_token_id": 300, "codebook_pad_token_id": 300},
        {"alignment_heads": [[300, 301]]},
    ],
)
def test_other_numbers_stay(entry: dict[str, Any]) -> None:
    write(gpt2() / "odd.json", entry)
    trimmed()
    assert read("odd.json") == entry


def test_times_of_whisper_stay() -> None:
    transformers = pytest.importorskip("transformers")
    source = gpt2()
    spec = json.loads((source / "tokenizer.json").read_text())
    names = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    spec["added_tokens"] += [{"id": V + place, "content": name, **flags} for place, name in enumerate(names)]
    write(source / "tokenizer.json", spec)
    sizes = {f"{side}_{part}": 1 for side in ("encoder", "decoder") for part in ("layers", "attention_heads")}
    sizes |= {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_target_positions": 32}
    config = transformers.WhisperConfig(
        vocab_size=V + 4 + 11, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=V, **sizes
    )
    transformers.WhisperForConditionalGeneration(config).save_pretrained(source)
    generation = {"no_timestamps_token_id": V + 3, "lang_to_id": {"<|en|>": V + 1}, "task_to_id": {"transcribe": V + 2}}
    generation |= {
        "alignment_heads": [[0, 0]],
        "suppress_tokens": [1, rare()[0][1]],
        "forced_decoder_ids": [[1, V + 1]],
    }
    write(source / "generation_config.json", generation)
    trimmed()
    new, found = vocabulary(), read("generation_config.json")
    name = "model.decoder.embed_tokens.weight"
    one, two = (load_file(f"{folder}/model.safetensors")[name] for folder in ("m", "n"))
    assert torch.equal(one[-11:], two[new["<|notimestamps|>"] + 1 :])
    assert found["no_timestamps_token_id"] == new["<|notimestamps|>"]
    assert (found["lang_to_id"], found["task_to_id"]) == (
        {"<|en|>": new["<|en|>"]},
        {"transcribe": new["<|transcribe|>"]},
    )
    assert found["suppress_tokens"] == [new["!"]]
    assert found["forced_decoder_ids"] == [[1, new["<|en|>"]]]
    assert found["alignment_heads"] == [[0, 0]]


def test_a_row_that_a_configuration_names_stays_without_a_token() -> None:
    source = gpt2(padding=5)
    change_config(source, image_token_id=V + 2)
    report = trimmed()
    assert (report.rows_after, read("config.json")["image_token_id"]) == (report.tokens_after + 1, report.tokens_after)
    one, two = (load_file(f"{folder}/model.safetensors")["transformer.wte.weight"] for folder in ("m", "n"))
    assert torch.equal(one[V + 2], two[-1])


def test_a_new_token_takes_no_row_that_a_configuration_names() -> None:
    change_config(gpt2(padding=5), image_token_id=V)
    with pytest.raises(ValueError, match=r"config.json: image_token_id is the id 320"):
        grow("m", ["covid"], Path("n"))
    assert not Path("n").exists()


def test_an_id_of_any_size_costs_no_more_than_the_table() -> None:
    assert family_ids("roberta", {"pad_token_id": 10**12}, {}, {}, 9) == set(range(9))
    assert family_ids("whisper", {}, {"no_timestamps_token_id": -(10**12)}, {}, 9) == set(range(9))


def test_a_deep_file_is_refused_by_name() -> None:
    write(gpt2() / "deep.json", '{"a":' * 400 + "1" + "}" * 400)
    with pytest.raises(ValueError, match=r"deep.json: it is nested too deeply.*--leave deep.json"):
        trimmed()


def test_first_clip_models_read_a_text_at_its_highest_id() -> None:
    assert family_ids("clip", {"text_config": {"eos_token_id": 2}}, {}, {}, 9) == {0, 1, 2}
    assert family_ids("clip", {"text_config": {"eos_token_id": 7}}, {}, {}, 9) == set()


@pytest.mark.parametrize("grown", [False, True])
def test_what_mistral_reads_goes(grown: bool) -> None:
    """Its library takes tekken.json before tokenizer.json: new tokens would not be met."""
    source = gpt2()
    for name in ("tekken.json", "tokenizer.model.v3"):
        write(source / name, "{}")
    write(source / "params.json", {"dim": 16, "vocab_size": V})
    save_file({"tok_embeddings.weight": torch.zeros(V, 16)}, source / "consolidated.safetensors")
    write(source / "consolidated.safetensors.index.json", {"weight_map": {"a": "consolidated.safetensors"}})
    report = grow("m", ["covid"], Path("n")) if grown else trimmed()
    gone = ["consolidated.safetensors", "consolidated.safetensors.index.json", "params.json", "tekken.json"]
    assert f"left out, for the old vocabulary is in it: {', '.join(gone)}, tokenizer.model.v3" in report.notes
    assert not [name for name in gone if Path("n", name).exists()]


@pytest.mark.parametrize("grown", [False, True])
def test_sizes_in_other_files(grown: bool) -> None:
    source = gpt2(padding=2)
    write(source / "params.json", {"dim": 16, "vocab_size": V + 2})
    pooling = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": V + 2}
    write(source / "1_SpladePooling/config.json", pooling)
    tokenizer = json.loads((source / "tokenizer_config.json").read_text())
    write(source / "tokenizer_config.json", tokenizer | {"vocab_size": V})
    report = grow("m", ["covid", "blog", "vlog"], Path("n")) if grown else trimmed()
    assert read("params.json") == {"dim": 16, "vocab_size": report.rows_after}
    assert read("1_SpladePooling/config.json") == pooling | {"word_embedding_dimension": report.rows_after}
    assert read("tokenizer_config.json")["vocab_size"] == report.tokens_after


@pytest.mark.parametrize("grown", [False, True])
def test_a_second_tokenizer_is_the_same_again(grown: bool) -> None:
    source = gpt2()
    write(source / "tokenizer/tokenizer.json", (source / "tokenizer.json").read_bytes())
    if grown:
        grow("m", ["covid"], Path("n"))
    else:
        trimmed()
    assert Path("n/tokenizer/tokenizer.json").read_bytes() == Path("n/tokenizer.json").read_bytes()


def test_lists_with_a_token_per_line() -> None:
    source = gpt2()
    old = sorted(vocabulary("m").items(), key=lambda pair: pair[1])
    write(source / "tokens/list.txt", "".join(f"{token}\n" for token, _ in old))
    write(source / "spiece.vocab", "".join(f"{token}\t-1.5\n" for token, _ in old))
    write(source / "vocab.txt", "".join(f"{token}\n" for token, _ in reversed(old)))  # in another order
    write(source / "notes.txt", "the\ncat\n")
    report = trimmed()
    new = sorted(vocabulary().items(), key=lambda pair: pair[1])
    assert Path("n/tokens/list.txt").read_text().split("\n")[:-1] == [token for token, _ in new]
    assert Path("n/spiece.vocab").read_text().split("\n")[:-1] == [f"{token}\t-1.5" for token, _ in new]
    assert "left out, for the old vocabulary is in it: vocab.txt" in report.notes
    assert Path("n/notes.txt").read_text() == "the\ncat\n"


def test_a_map_with_other_ids_goes_or_is_refused() -> None:
    source = gpt2()
    other = {token: V - 1 - index for token, index in vocabulary("m").items()}
    write(source / "vocab.json", other)
    assert "left out, for the old vocabulary is in it: vocab.json" in trimmed().notes
    write(source / "deep.json", {"first": other})
    with pytest.raises(ValueError, match=r"deep.json: first gives the tokens other ids .* --leave deep.json"):
        trim("m", Path("o"), text="t.txt")


def test_counts_of_tokens_stay() -> None:
    counts = {token: 7 + index % 3 for token, index in vocabulary(str(gpt2())).items()}
    write(Path("m/counts.json"), counts)
    trimmed()
    assert read("counts.json") == counts


@pytest.mark.parametrize(
    "names", [("tf_model.h5", "flax_model.msgpack", "pytorch_model.bin"), ("q.gguf", "rust_model.ot")]
)
def test_other_formats_of_the_weights_go(names: tuple[str, ...]) -> None:
    source = gpt2()
    for name in names:
        write(source / name, b"old")
    report = trimmed()
    assert f"left out, for the old vocabulary is in it: {', '.join(sorted(names))}" in report.notes
    assert not any(Path("n", name).exists() for name in names)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "openvino/openvino_model.bin", "checkpoint-9/model.safetensors"])
def test_a_copy_of_the_model_goes_with_its_folder(name: str) -> None:
    source = gpt2()
    path = source / name
    write(path.parent / "tokenizer_config.json", {"pad_token_id": 9})
    if path.suffix == ".safetensors":
        save_file({"transformer.wte.weight": torch.zeros(V, 16)}, path)
    else:
        write(path, b"old")
    trimmed()
    assert not Path("n", name).parent.exists()


def test_parts_of_another_kind_stay() -> None:
    source = gpt2(modules=[{"path": ""}, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}])
    write(source / "2_Dense/pytorch_model.bin", b"small")
    write(source / "scheduler.pt", b"small")
    (source / "vocoder").mkdir()
    save_file({"weight": torch.zeros(7, 16)}, source / "vocoder/model.safetensors")
    trimmed()
    assert [path for path in ("2_Dense/pytorch_model.bin", "scheduler.pt") if Path("n", path).exists()] == [
        "2_Dense/pytorch_model.bin",
        "scheduler.pt",
    ]
    assert Path("n/vocoder/model.safetensors").exists()


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("flow.pt", bytes(V * 16), "flow.pt cannot be looked into"),
        ("2_Dense/pytorch_model.bin", bytes(V * 16), "2_Dense/pytorch_model.bin cannot be looked into"),
        ("0_Static/model.safetensors", torch.zeros(V), "holds what is as long as the vocabulary"),
        ("weights.json", {"idf": [0.5] * V}, "weights.json: idf is a list of 320 numbers, one per token"),
        ("speech.json", {"token_offset": V}, "speech.json: token_offset 320 says where"),
    ],
)
def test_what_cannot_follow_is_refused_by_name(name: str, content: Any, message: str, grown: bool) -> None:
    source = gpt2(modules=[{"path": "2_Dense"}])
    if isinstance(content, torch.Tensor):
        (source / name).parent.mkdir()
        save_file({"weight": content}, source / name)
    else:
        write(source / name, content)

    def change(leave: tuple[str, ...]) -> None:
        if grown:
            grow("m", ["covid"], Path("n"), leave=leave)
        else:
            trim("m", Path("n"), text="t.txt", leave=leave)

    with pytest.raises(ValueError, match=f"{message}.*--leave {name}"):
        change(())
    assert not Path("n").exists()
    change((name,))
    assert Path("n", name).read_bytes() == (source / name).read_bytes()


def test_adapters_with_rows_are_refused() -> None:
    source = gpt2()
    save_file({"base.lora_A.weight": torch.zeros(4, 16)}, source / "adapter_model.safetensors")
    trimmed()
    assert Path("n/adapter_model.safetensors").exists()
    save_file({"base.lora_embedding_A": torch.zeros(4, V)}, source / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="is an adapter with rows for tokens"):
        grow("m", ["covid"], Path("o"))


def test_an_id_of_another_token_is_found_after_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = gpt2()
    change_config(source, forced_bos_token_id=rare()[0][1])
    monkeypatch.setattr(companions, "renumber", lambda content, change, name: (content, []))
    with pytest.raises(ValueError, match=r"config.json: forced_bos_token_id names the id"):
        trimmed()
    assert not Path("n").exists()
