"""Models of transformers: safetensors only, no code from the model's folder, refused in one sentence."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402  # only where transformers is

from decone.models import huggingface  # noqa: E402
from decone.models.generation import DECODINGS, Decoding, extend  # noqa: E402
from decone.models.huggingface import CONTEXT, HuggingFaceModel  # noqa: E402

CPU = torch.device("cpu")
WORDS = [*"abcdefgh", " ", "\n", "<unk>"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers with a tokenizer of one id per character, saved as safetensors."""
    folder = tmp_path_factory.mktemp("gpt2")
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=len(WORDS), n_positions=16, n_embd=12, n_layer=2, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_logits_are_those_of_the_model(saved: Path) -> None:
    model = HuggingFaceModel(str(saved), CPU)
    assert (model.context, model.vocabulary, model.device) == (16, len(WORDS), CPU)
    ids = model.encode("abc\ndef")
    assert ids.tolist() == [0, 1, 2, 9, 3, 4, 5]
    plain = transformers.GPT2LMHeadModel.from_pretrained(saved, use_safetensors=True).eval()
    hidden = plain.transformer(input_ids=ids[None]).last_hidden_state
    torch.testing.assert_close(model.logits(ids[None]), F.linear(hidden, plain.lm_head.weight))
    torch.testing.assert_close(model.head, plain.lm_head.weight.detach())
    assert not model.logits(ids[None]).requires_grad
    assert not model.head.requires_grad
    assert not model.model.training


def test_a_long_context_is_cut(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    model = HuggingFaceModel(str(copied), CPU)
    model.model.config.n_positions = 10 * CONTEXT
    assert config["n_positions"] == 16
    assert model.context == CONTEXT


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("unpickled"),)  # type: ignore[return-value]


def test_a_pickle_is_refused_and_not_opened(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps({"transformer.wte.weight": Bomb()}))
    with pytest.raises(ValueError, match=r"cannot load .*model as a causal model from safetensors"):
        HuggingFaceModel(str(copied), CPU)
    assert not Path("unpickled").exists()


def test_code_in_the_folder_is_not_run(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["model_type"] = "strange"
    config["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": "own.Own"}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "own.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    with pytest.raises(ValueError, match="cannot load"):
        HuggingFaceModel(str(copied), CPU)
    assert not Path("executed").exists()


def test_what_is_asked_of_transformers(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def listening(real: Callable[..., Any]) -> Callable[..., Any]:
        def load(name: str, **options: Any) -> Any:
            asked.append(options)
            return real(name, **options)

        return load

    for kind in (transformers.AutoTokenizer, transformers.AutoModelForCausalLM):
        monkeypatch.setattr(kind, "from_pretrained", listening(kind.from_pretrained))
    HuggingFaceModel(str(saved), CPU)
    tokenizer, model = asked
    assert tokenizer["trust_remote_code"] is False
    assert model["trust_remote_code"] is False
    assert model["use_safetensors"] is True


def test_a_model_with_holes_is_refused(copied: Path) -> None:
    """Transformers would fill them with random numbers, and the numbers measured would mean nothing."""
    weights = load_file(copied / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"lacks weights of a causal model, e\.g\. transformer\.h\.1\.mlp\.c_fc\.weight"
    ):
        HuggingFaceModel(str(copied), CPU)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_truncated_file_is_refused(name: str, copied: Path) -> None:
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot load") as error:
        HuggingFaceModel(str(copied), CPU)
    assert "\n" not in str(error.value)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"neither a decone run \(config.toml\) nor a Hugging Face model"):
        HuggingFaceModel("empty", CPU)
    with pytest.raises(ValueError, match="file is a file; name the folder of a model"):
        HuggingFaceModel("file", CPU)
    for name in ("nobody/nothing", "no/such/path", "white space"):
        with pytest.raises(ValueError, match=f"cannot load {name} as a causal model") as error:
            HuggingFaceModel(name, CPU)
        assert "\n" not in str(error.value)


@pytest.fixture
def prompts() -> torch.Tensor:
    return torch.randint(8, (3, 4), generator=torch.Generator().manual_seed(1))


def lively(folder: Path) -> HuggingFaceModel:
    """A model with likes and dislikes, whose checkpoint wishes for strange generation and ends at id 3 or 10."""
    model = HuggingFaceModel(str(folder), CPU)
    with torch.no_grad():
        model.head.mul_(40)
    own = model.model.generation_config
    own.repetition_penalty, own.temperature, own.do_sample, own.eos_token_id = 3.0, 5.0, True, [3, 10]
    return model


@pytest.mark.parametrize("name", list(DECODINGS))
def test_generation_is_that_of_our_own_loop(name: str, saved: Path, prompts: torch.Tensor) -> None:
    """What fits into the context is left to transformers; the draws are the same on a CPU."""
    model, before = lively(saved), torch.get_rng_state()
    found = model.extend(prompts, 12, DECODINGS[name], seed=4)  # 4 + 12 just fit
    ours = extend(lambda ids: model.logits(ids)[:, -1], prompts, 12, 16, DECODINGS[name], 4, [3, 10])
    assert torch.equal(found, ours)
    assert not bool(torch.isin(found, torch.tensor([3, 10])).any())
    assert torch.equal(torch.get_rng_state(), before)
    assert model.model.generation_config.repetition_penalty == 3.0


@pytest.mark.parametrize("rule", [Decoding(k=2), Decoding(p=0.4)])
def test_what_a_rule_drops_is_never_drawn(rule: Decoding, saved: Path, prompts: torch.Tensor) -> None:
    model = lively(saved)
    found = model.extend(prompts, 12, rule, seed=4)
    ours = extend(lambda ids: model.logits(ids)[:, -1], prompts, 12, 16, rule, 4, [3, 10])
    assert torch.equal(found, ours)


def test_top_p_draws_from_more_than_the_fifty_that_are_usual(
    saved: Path, prompts: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = lively(saved), []

    def generate(ids: torch.Tensor, **options: Any) -> torch.Tensor:
        asked.append(options["generation_config"])
        return ids

    monkeypatch.setattr(model.model, "generate", generate)
    for name in ("top-p", "top-k"):
        model.extend(prompts, 12, DECODINGS[name])
    assert [(one.top_k, one.top_p, one.temperature) for one in asked] == [(0, 0.9, 1.0), (50, 1.0, 1.0)]


@pytest.mark.parametrize("name", list(DECODINGS))
def test_a_window_moves_along_where_the_context_ends(
    name: str, saved: Path, prompts: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively(saved)
    found = model.extend(prompts, 20, DECODINGS[name], seed=4)
    assert torch.equal(
        found, extend(lambda ids: model.logits(ids)[:, -1], prompts, 20, 16, DECODINGS[name], 4, [3, 10])
    )
    monkeypatch.setattr(huggingface, "ENTRIES", 1)  # one row at a time
    assert torch.equal(found, model.extend(prompts, 20, DECODINGS[name], seed=4))


def test_a_mark_at_the_beginning_is_found_and_read(copied: Path, prompts: torch.Tensor) -> None:
    assert HuggingFaceModel(str(copied), CPU).beginning is None
    inner = Tokenizer.from_file(str(copied / "tokenizer.json"))
    inner.post_processor = processors.TemplateProcessing(single="a $A", special_tokens=[("a", 0)])
    named = {"unk_token": "<unk>", "bos_token": "a", "eos_token": "b"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **named).save_pretrained(copied)
    model = lively(copied)
    assert model.beginning == 0
    assert model.ends == [1, 3, 10]
    begun = torch.cat((torch.zeros(3, 1, dtype=torch.long), prompts), 1)
    ours = extend(lambda ids: model.logits(ids)[:, -1], begun, 11, 16, DECODINGS["greedy"], 0, model.ends)
    assert torch.equal(model.extend(prompts, 11, DECODINGS["greedy"]), ours)

    def marked(ids: torch.Tensor) -> torch.Tensor:
        return model.logits(torch.cat((begun[:, :1], ids), 1))[:, -1]

    ours = extend(marked, prompts, 25, 15, DECODINGS["greedy"], 0, model.ends)
    assert torch.equal(model.extend(prompts, 25, DECODINGS["greedy"]), ours)


def test_places_are_those_in_the_text(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = HuggingFaceModel(str(saved), CPU), "abc d\nefg\n\nhab\nc\n"
    ids, places = model.spans(text)
    assert torch.equal(ids, model.encode(text))
    assert places.tolist() == [[place, place + 1] for place in range(len(text))]
    monkeypatch.setattr(huggingface, "PIECE", 3)
    pieces = model.spans(text)
    assert torch.equal(pieces[0], ids)
    assert torch.equal(pieces[1], places)
    short = model.spans(text, limit=5)
    assert torch.equal(short[0], ids[:5])
    assert torch.equal(short[1], places[:5])
    assert model.decode(ids.tolist()).replace(" ", "") == text.replace(" ", "")


def test_what_does_not_read_from_left_to_right_is_refused(saved: Path, tmp_path: Path) -> None:
    """Transformers makes a causal model of a masked one's weights, with a warning only."""
    shape = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"intermediate_size": 8, "max_position_embeddings": 16}
    sides = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 8, "vocab_size": 11, "max_position_embeddings": 16}
    sides |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    sides |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    bert, bart = transformers.BertConfig, transformers.BartConfig
    five = transformers.T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    refused = [
        ("bert", transformers.BertForMaskedLM(bert(**shape))),
        ("bert", transformers.BertModel(bert(**shape))),
        ("bart", transformers.BartForConditionalGeneration(bart(**sides))),
        ("t5", transformers.T5ForConditionalGeneration(five)),
    ]
    kept = [transformers.BertLMHeadModel(bert(**shape, is_decoder=True)), transformers.BartForCausalLM(bart(**sides))]
    for index, (family, model) in enumerate([*refused, *((None, model) for model in kept)]):
        folder = tmp_path / str(index)
        model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(saved / name, folder / name)
        if family is None:
            assert HuggingFaceModel(str(folder), CPU).context == 16
        else:
            with pytest.raises(ValueError, match=f"a {family} does not continue text .* name a causal model") as error:
                HuggingFaceModel(str(folder), CPU)
            assert "\n" not in str(error.value)
