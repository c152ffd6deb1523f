"""Peculiarities of families of models: one row per family, keyed by the `model_type` of its configuration.

Names of tensors are given without the prefix of the base model (`transformer.`, `model.language_model.`), which a
checkpoint may have or lack. Defaults are those of transformers 5; they count where a configuration is silent.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from decone.files.foreign import quoted
from decone.models.tables import Kind

Config = Mapping[str, Any]


def positive(config: Config, key: str, default: float) -> float:
    """A number of a configuration; the default where it is absent or null.

    Raises:
        ValueError: it is something else than a number above zero.
    """
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"config.json: {key} must be a number above 0, not {quoted(value)}; correct it")
    return float(value)


def unscaled(config: Config) -> float:
    """Numbers as they come."""
    return 1.0


def factor(key: str, default: float = 1.0) -> Callable[[Config], float]:
    """Numbers times one of the configuration."""
    return lambda config: positive(config, key, default)


def divisor(key: str, default: float = 1.0) -> Callable[[Config], float]:
    """Numbers divided by one of the configuration."""
    return lambda config: 1 / positive(config, key, default)


def by_width(config: Config) -> float:
    """T5: states before a tied head are divided by the root of their width, unless it says it is of version 1.1."""
    scaled = config.get("scale_decoder_outputs")
    if scaled is None:
        scaled = config.get("tie_word_embeddings") is not False
    return positive(config, "d_model", 512.0) ** -0.5 if scaled else 1.0


def by_base_width(config: Config) -> float:
    """MiniCPM: states are divided by how much wider the model is than the one its settings were found on."""
    width = positive(config, "hidden_size", 2560.0)
    return positive(config, "dim_model_base", width if "dim_model_base" in config else 256.0) / width


@dataclass(frozen=True)
class Family:
    """Names of the tables of a family's models, what happens to their logits, and what their ids mean.

    Attributes:
        kind: of the whole model; one without its head is an encoder.
        embedding: names of the input table, likeliest first.
        head: names of the output table.
        bias: names of what is added to the logits.
        tied: the output table is the input table where the configuration says nothing.
        state_scale: factor of the last states before the head is given them.
        logit_scale: factor of the logits that the head makes.
        softcap: key in the configuration, and default.
        note: what a reader of the numbers must know.
        two_vocabularies: source and target have vocabularies of their own.
        padded_positions: the first position is the id of the padding token plus 1, so that id must not change.
        timestamp_ids: every id behind those of the vocabulary stands for a time, so none can be added.
        reads_highest_id: while eos_token_id is 2, a text is read off at its highest id.
    """

    kind: Kind
    embedding: tuple[str, ...]
    head: tuple[str, ...]
    bias: tuple[str, ...] = ()
    tied: bool = True
    state_scale: Callable[[Config], float] = unscaled
    logit_scale: Callable[[Config], float] = unscaled
    softcap: tuple[str, float | None] | None = None
    note: str = ""
    two_vocabularies: bool = False
    padded_positions: bool = False
    timestamp_ids: bool = False
    reads_highest_id: bool = False

    def cap(self, config: Config) -> float | None:
        """The c of c * tanh(logits / c), None without one; an explicit null in the configuration means none."""
        if self.softcap is None:
            return None
        key, default = self.softcap
        if default is None or key in config:
            return positive(config, key, math.inf) if config.get(key) is not None else None
        return default


WORDS = "word_embeddings.weight"
SCALED = "the model multiplies input rows by the root of their width; the table is shown as stored"
TARGET = "source and target have vocabularies of their own; that of the target is shown"

_UNTIED = Family("causal", ("embed_tokens.weight",), ("lm_head.weight",), ("lm_head.bias",), tied=False)
_TIED = replace(_UNTIED, tied=True)
_GPT2 = replace(_TIED, embedding=("wte.weight",))
_GPTJ = replace(_GPT2, tied=False)
_BLOOM = replace(_TIED, embedding=(WORDS,))
_NEOX = Family("causal", ("embed_in.weight",), ("embed_out.weight", "lm_head.weight"), tied=False)
_MAMBA = replace(_TIED, embedding=("backbone.embeddings.weight", "backbone.embedding.weight", "embeddings.weight"))
_GEMMA = replace(_TIED, softcap=("final_logit_softcapping", None), note=SCALED)
_GEMMA2 = replace(_GEMMA, softcap=("final_logit_softcapping", 30.0))
_GRANITE = replace(_UNTIED, logit_scale=divisor("logits_scaling"))
_COHERE = replace(_TIED, logit_scale=factor("logit_scale", 0.0625))

_BERT = Family(
    "masked",
    (WORDS,),
    ("cls.predictions.decoder.weight",),
    # The first is what an untied head adds; tied checkpoints hold the second alone, or both alike.
    ("cls.predictions.decoder.bias", "cls.predictions.bias"),
)
_GTE = replace(_BERT, head=("lm_head.decoder.weight",), bias=("lm_head.decoder.bias", "lm_head.bias"))
_ROBERTA = replace(_GTE, padded_positions=True)
_ELECTRA = replace(_BERT, head=("generator_lm_head.weight",), bias=("generator_lm_head.bias",))
_DEBERTA = replace(_BERT, bias=(*_BERT.bias, "lm_predictions.lm_head.bias"))
_MODERN = replace(
    _BERT, embedding=("embeddings.tok_embeddings.weight",), head=("decoder.weight",), bias=("decoder.bias",)
)
_XLM = replace(
    _BERT, embedding=("embeddings.weight",), head=("pred_layer.proj.weight",), bias=("pred_layer.proj.bias",)
)
_SIGLIP = Family("encoder", ("token_embedding.weight",), ())
_CLIP = replace(_SIGLIP, reads_highest_id=True)

_SHARED = ("shared.weight", "decoder.embed_tokens.weight", "encoder.embed_tokens.weight")
_BART = Family("seq2seq", _SHARED, ("lm_head.weight",), ("final_logits_bias",))
_MT5 = replace(_BART, bias=())
_T5 = replace(_MT5, state_scale=by_width)
_T5GEMMA = replace(
    _GEMMA2, kind="seq2seq", embedding=(_SHARED[1], "text_model.embed_tokens.weight"), head=("lm_head.out_proj.weight",)
)
_FSMT = replace(
    _MT5,
    embedding=_SHARED[1:],
    head=("output_projection.weight",),
    tied=False,
    note=TARGET,
    two_vocabularies=True,
    padded_positions=True,
)
_MOONSHINE = Family("seq2seq", ("decoder.embed_tokens.weight",), ("proj_out.weight",), ("proj_out.bias",))


def _rows(names: str, family: Family) -> dict[str, Family]:
    return dict.fromkeys(names.split(), family)


FAMILIES: dict[str, Family] = {
    # decoders
    "gpt2": _GPT2,
    **_rows("gpt-sw3 gpt_bigcode gpt_neo", _GPT2),
    "openai-gpt": replace(_TIED, embedding=("tokens_embed.weight",)),
    "ctrl": replace(_TIED, embedding=("transformer.w.weight", "w.weight")),
    **_rows("gptj codegen", _GPTJ),
    "gpt_neox": _NEOX,
    "gpt_neox_japanese": replace(_NEOX, tied=True),
    "opt": _TIED,
    **_rows("bloom falcon", _BLOOM),
    "mpt": _GPT2,
    "xglm": replace(_TIED, note=SCALED, padded_positions=True),
    "biogpt": replace(_TIED, head=("output_projection.weight",), note=SCALED),
    **_rows("llama mistral ministral ministral3 mixtral", _UNTIED),
    **_rows("qwen2 qwen2_moe qwen2_vl_text qwen2_5_vl_text qwen3 qwen3_moe qwen3_next qwen3_vl_text", _UNTIED),
    **_rows("qwen3_5_text qwen3_5_moe_text olmo olmo2 olmo3 olmoe phi3 phimoe exaone4 apertus arcee cwm", _UNTIED),
    **_rows("deepseek_v2 deepseek_v3 glm glm4 glm4_moe gpt_oss seed_oss minimax minimax_m2", _UNTIED),
    **_rows("llama4_text mllama_text_model nemotron jamba bamba helium diffllama bitnet aria_text jais2", _UNTIED),
    "phi": _UNTIED,
    **_rows("stablelm persimmon dbrx", replace(_UNTIED, embedding=("embed_tokens.weight", "wte.weight"))),
    **_rows("smollm3 starcoder2 lfm2 ernie4_5 ernie4_5_moe jetmoe zamba zamba2", _TIED),
    "gemma": replace(_TIED, note=SCALED),
    **_rows("gemma2 gemma3n_text vaultgemma", _GEMMA2),
    **_rows("gemma3_text gemma4_text", _GEMMA),
    "recurrent_gemma": replace(_GEMMA, softcap=("logits_soft_cap", 30.0)),
    "nanochat": replace(_UNTIED, softcap=("final_logit_softcapping", 15.0)),
    **_rows("cohere cohere2 cohere2_moe", _COHERE),
    **_rows("granite granitemoe granitemoeshared granitemoehybrid granitemoe_swa", _GRANITE),
    "granite_swa": replace(_GRANITE, tied=True),
    "falcon_h1": replace(_UNTIED, logit_scale=factor("lm_head_multiplier")),
    "hyperclovax": replace(_UNTIED, logit_scale=factor("logits_scaling")),
    "minicpm3": replace(_TIED, state_scale=by_base_width),
    **_rows("mamba falcon_mamba", _MAMBA),
    "mamba2": replace(_MAMBA, tied=False),
    "xlstm": replace(_MAMBA, tied=False, softcap=("output_logit_soft_cap", 30.0)),
    "rwkv": replace(_MAMBA, embedding=("embeddings.weight",), head=("head.weight",), tied=False),
    "xlnet": Family("causal", ("word_embedding.weight",), ("lm_loss.weight",), ("lm_loss.bias",)),
    "internlm2": replace(_UNTIED, embedding=("tok_embeddings.weight",), head=("output.weight",)),
    "chatglm": replace(_UNTIED, embedding=(WORDS,), head=("output_layer.weight",)),
    "modernbert-decoder": replace(_MODERN, kind="causal"),
    # encoders, with a head for masked words or without
    "bert": _BERT,
    **_rows("big_bird megatron-bert mobilebert ernie fnet layoutlm mra nomic_bert nystromformer roc_bert", _BERT),
    **_rows("roformer squeezebert tapas visual_bert yoso", _BERT),
    "rembert": replace(_BERT, tied=False),
    **_rows("roberta xlm-roberta camembert xlm-roberta-xl xmod roberta-prelayernorm", _ROBERTA),
    **_rows("data2vec-text ibert longformer luke mpnet jina_embeddings_v3", _ROBERTA),
    "gte": _GTE,
    "distilbert": replace(_BERT, head=("vocab_projector.weight",), bias=("vocab_projector.bias",)),
    # Its rows are narrower than the hidden states; both tables are.
    "albert": replace(
        _BERT, head=("predictions.decoder.weight",), bias=("predictions.decoder.bias", "predictions.bias")
    ),
    **_rows("electra convbert", _ELECTRA),
    **_rows("deberta deberta-v2", _DEBERTA),
    "modernbert": _MODERN,
    "modernvbert": replace(_MODERN, head=("lm_head.weight",), bias=("lm_head.bias",), tied=False),
    "funnel": replace(_BERT, head=("lm_head.weight",), bias=("lm_head.bias",)),
    "eurobert": replace(_UNTIED, kind="masked"),
    **_rows("xlm flaubert", _XLM),
    **_rows("clip clip_text_model", _CLIP),
    **_rows("siglip siglip_text_model siglip2", _SIGLIP),
    # encoder and decoder
    **_rows("t5 longt5 switch_transformers umt5 pop2piano udop", _T5),
    "mt5": _MT5,
    **_rows("t5gemma t5gemma2", _T5GEMMA),
    "bart": _BART,
    **_rows("mbart blenderbot blenderbot-small pegasus bigbird_pegasus plbart mvp led", _BART),
    "marian": _BART,
    **_rows("m2m_100 nllb-moe", replace(_MT5, padded_positions=True)),
    **_rows("pegasus_x seamless_m4t seamless_m4t_v2", _MT5),
    "fsmt": _FSMT,
    "prophetnet": replace(_MT5, embedding=("prophetnet.word_embeddings.weight", WORDS), padded_positions=True),
    "speech_to_text": replace(_MT5, embedding=_SHARED[1:2], padded_positions=True),
    "whisper": replace(_MOONSHINE, timestamp_ids=True),
    "moonshine": _MOONSHINE,
    "trocr": replace(_MOONSHINE, head=("output_projection.weight",)),
}

UNKNOWN = Family("causal", (), (), softcap=("final_logit_softcapping", None))
_IDS_ALONE: dict[str, Family] = {  # families whose tables are found by names and shapes
    **_rows("mluke esm layoutlmv3 lilt markuplm", replace(UNKNOWN, padded_positions=True)),
    **_rows("clipseg clipseg_text_model clip_vision_model", replace(UNKNOWN, reads_highest_id=True)),
}


def family_of(model_type: str) -> Family:
    """The row of a family; one of defaults for a family without.

    Example:
        >>> family_of("gpt2").embedding, family_of("esm").padded_positions, family_of("new").embedding
        (('wte.weight',), True, ())
    """
    return FAMILIES.get(model_type) or _IDS_ALONE.get(model_type) or UNKNOWN
