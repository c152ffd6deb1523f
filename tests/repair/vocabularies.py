"""Tiny random models of transformers with tokenizers of their own, as save_pretrained leaves them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

TEXT = """
the a cat dog sat on mat and then ran over hill by sea home lower lowest newer wider slowly quietly reading reader
unread unlock locker blocked stone stony alone naïve café über 42 1984 42nd , . ! ? don't we'll
"""
WORDS = TEXT.split()
KINDS = ("bert", "roberta", "gpt2", "llama", "bart", "t5")
SIZES = {"bert": 90, "roberta": 320, "gpt2": 320, "llama": 400, "bart": 320, "t5": 90}


def corpus(lines: int = 200, seed: int = 5) -> list[str]:
    """Lines of words, rare ones too."""
    draw = random.Random(seed)
    often = ["the cat sat on the mat"] * lines  # these become tokens, however ties between others are broken
    return [*often, *(" ".join(draw.choice(WORDS) for _ in range(draw.randint(3, 9))) for _ in range(lines))]


def tokenizer(kind: str) -> tuple[Tokenizer, dict[str, str]]:
    """A tokenizer as models of this kind have them, and the names of its special tokens."""
    if kind == "bert":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        made.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=SIZES[kind], special_tokens=marks))
        pair = [("[CLS]", 2), ("[SEP]", 3)]
        made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", pair)
        return made, dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), marks, strict=True))
    if kind in ("roberta", "bart", "gpt2"):
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        marks = ["<|endoftext|>"] if kind == "gpt2" else ["<s>", "<pad>", "</s>", "<unk>"]
        letters = pre_tokenizers.ByteLevel.alphabet()
        made.train_from_iterator(
            corpus(), trainers.BpeTrainer(vocab_size=SIZES[kind], special_tokens=marks, initial_alphabet=letters)
        )
        if kind == "gpt2":
            made.post_processor = processors.ByteLevel(trim_offsets=False)
            return made, dict.fromkeys(("bos_token", "eos_token", "unk_token"), marks[0])
        made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        roles = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
        return made, roles | {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    if kind == "llama":
        marks = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        trained.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=SIZES[kind], special_tokens=marks))
        parts = json.loads(trained.to_str())
        parts["added_tokens"] = [entry for entry in parts["added_tokens"] if entry["id"] < 3]
        made = Tokenizer.from_str(json.dumps(parts))
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
        return made, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    marks = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=SIZES[kind], special_tokens=marks, unk_token="<unk>")
    made.train_from_iterator(corpus(), trainer)
    made.add_special_tokens(["<extra_id_0>", "<extra_id_1>"])
    made.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return made, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def build(
    kind: str, folder: Path, padding: int = 0, dtype: torch.dtype = torch.float32, shards: bool = False, **config: Any
) -> Path:
    """A model and its tokenizer in a folder.

    Args:
        kind: one of KINDS.
        folder: to write.
        padding: rows without a token.
        dtype: of its weights.
        shards: several files instead of one.
        config: of transformers, e.g. tie_word_embeddings.
    """
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    inner, roles = tokenizer(kind)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **roles)
    small = {"vocab_size": inner.get_vocab_size() + padding}
    small |= {f"{role.removesuffix('_token')}_token_id": inner.token_to_id(token) for role, token in roles.items()}
    deep = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "bert":
        made = transformers.BertForMaskedLM(
            transformers.BertConfig(**small | deep, max_position_embeddings=64, **config)
        )
    elif kind == "roberta":
        settings = small | deep | {"max_position_embeddings": 64, "type_vocab_size": 1}
        made = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**settings, **config))
    elif kind == "gpt2":
        settings = small | {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
        made = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings, **config))
    elif kind == "llama":
        settings = small | deep | {"max_position_embeddings": 64, "tie_word_embeddings": False}
        made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings | config))
    elif kind == "bart":
        settings = small | {"d_model": 16, "max_position_embeddings": 64, "decoder_start_token_id": 2}
        settings |= {
            f"{side}_{part}": size
            for side in ("encoder", "decoder")
            for part, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 24))
        }
        made = transformers.BartForConditionalGeneration(
            transformers.BartConfig(**settings | {"forced_eos_token_id": 2}, **config)
        )
    else:
        settings = small | {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
        made = transformers.T5ForConditionalGeneration(
            transformers.T5Config(**settings | {"decoder_start_token_id": 0}, **config)
        )
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, tensor in [*made.named_parameters(), *made.named_buffers()]:
            if tensor.is_floating_point() and (small["vocab_size"] in tensor.shape or "norm" not in name.lower()):
                tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.5)
    made.to(dtype).save_pretrained(folder, **({"max_shard_size": "4KB"} if shards else {}))
    fast.save_pretrained(folder)
    return folder


def logits(folder: Path, ids: Tensor) -> Tensor:
    """What transformers makes of ids, [B, T, V]."""
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    more = {"decoder_input_ids": ids} if config.is_encoder_decoder else {}
    with torch.no_grad():
        found: Tensor = model(input_ids=ids, **more).logits
    return found


def loaded(folder: Path) -> Any:
    """The tokenizer as transformers loads it."""
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
