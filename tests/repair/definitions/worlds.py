"""Tiny random models of five families, whose vocabularies a small lexicon defines."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from decone.data.lexicons import Lexicon
from decone.models.find_tables import find_tables
from decone.models.tables import ModelTables
from decone.repair.alignment.align import AlignmentSettings, TokenAlignment, align
from decone.repair.definitions.fit import Reconstructor
from decone.repair.definitions.recipe import DefinitionRecipe

FAMILIES = ("bert", "roberta", "bart", "t5", "albert")
SOUNDS = [a + b for a in ("b", "d", "k", "l", "m", "n", "r", "s") for b in ("a", "e", "i", "o", "u")]
TOLD = [first + second for first, second in zip(SOUNDS, SOUNDS[7:] + SOUNDS[:7], strict=True)][:24]  # of glosses
WORDS = [first + second + "x" for first, second in zip(SOUNDS, SOUNDS[3:] + SOUNDS[:3], strict=True)]  # defined, 40


def glosses(seed: int = 0, words: list[str] = WORDS) -> dict[str, str]:
    """A definition of 4 to 9 words for each word; no two alike."""
    draw = random.Random(seed)
    return {word: " ".join(draw.choices(TOLD, k=draw.randint(4, 9))) for word in words}


def tsv(path: Path, defined: dict[str, str]) -> Path:
    """A lexicon in a file."""
    path.write_text("".join(f"{word}\t{gloss}\n" for word, gloss in defined.items()))
    return path


def tokenizer(family: str, words: list[str] = WORDS) -> tuple[Tokenizer, dict[str, str]]:
    """A tokenizer as models of this family have them, every word one token, and the names of its special tokens."""
    letters = sorted(set("".join((*words, *TOLD))))
    if family == "bert":
        marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        held = [*marks, "[unused0]", ":", ";", "-", *letters, *(f"##{letter}" for letter in letters), *TOLD, *words]
        made = Tokenizer(models.WordPiece({token: id for id, token in enumerate(held)}, unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        made.add_special_tokens(marks)
        made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
        return made, dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), marks, strict=True))
    if family in ("roberta", "bart"):
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        marks = ["<s>", "<pad>", "</s>", "<unk>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=marks, initial_alphabet=alphabet)
        made.train_from_iterator([f": {word}" for word in (*TOLD, *words) for _ in range(3)], trainer)
        made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        roles = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
        return made, roles | {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    if family == "t5":
        marks, template, close = ["<pad>", "</s>", "<unk>"], "$A </s>", [("</s>", 1)]
        roles = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    else:
        marks, template = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], "[CLS] $A [SEP]"
        close = [("[CLS]", 2), ("[SEP]", 3)]
        roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), marks, strict=True))
    held = [*marks, "▁", ":", ";", "-", *letters, *(f"▁{word}" for word in (*TOLD, *words))]
    scores = [(token, -20.0 if token in marks else -8.0 if len(token) == 1 else -4.0) for token in held]
    made = Tokenizer(models.Unigram(scores, unk_id=marks.index("<unk>")))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.add_special_tokens([*marks, "<extra_id_0>", "<extra_id_1>"] if family == "t5" else marks)
    made.post_processor = processors.TemplateProcessing(template, None, close)
    return made, roles


def model(family: str, inner: Tokenizer, roles: dict[str, str], padding: int = 3, **config: Any) -> Any:
    """A random model with two layers' worth of parts and some rows without a token."""
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"vocab_size": inner.get_vocab_size() + padding}
    sizes |= {f"{role.removesuffix('_token')}_token_id": inner.token_to_id(token) for role, token in roles.items()}
    deep = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    deep |= {"max_position_embeddings": 64}
    if family == "bert":
        made = transformers.BertForMaskedLM(transformers.BertConfig(**sizes | deep | config))
    elif family == "roberta":
        made = transformers.RobertaForMaskedLM(
            transformers.RobertaConfig(**sizes | deep | {"type_vocab_size": 1} | config)
        )
    elif family == "albert":
        made = transformers.AlbertForMaskedLM(
            transformers.AlbertConfig(**sizes | deep | {"embedding_size": 8} | config)
        )
    elif family == "bart":
        sides = {f"{side}_{part}": size for side in ("encoder", "decoder") for part, size in _BART.items()}
        sides |= {"d_model": 16, "max_position_embeddings": 64, "decoder_start_token_id": 2, "forced_eos_token_id": 2}
        made = transformers.BartForConditionalGeneration(transformers.BartConfig(**sizes | sides | config))
    else:
        small = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
        made = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes | small | config))
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, part in made.named_parameters():
            if "norm" not in name.lower():
                part.copy_(torch.randn(part.shape, generator=draw) * 0.3)
    return made


_BART = {"layers": 1, "attention_heads": 2, "ffn_dim": 24}


def saved(
    family: str, folder: Path, words: list[str] = WORDS, dtype: torch.dtype = torch.float32, **given: Any
) -> Path:
    """A folder as save_pretrained leaves it."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    inner, roles = tokenizer(family, words)
    model(family, inner, roles, **given).to(dtype).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **roles).save_pretrained(folder)
    return folder


def aligned(model_tables: ModelTables, defined: dict[str, Any] | None = None, **choices: Any) -> TokenAlignment:
    """The tokens of a model with their definitions."""
    assert model_tables.tokenizer is not None
    lexicon = Lexicon.of(glosses() if defined is None else defined)
    return align(
        model_tables.tokenizer,
        lexicon,
        model_tables.embedding.shape[0],
        model_tables.special,
        AlignmentSettings(**choices),
    )


def reconstructor(
    folder: Path, recipe: DefinitionRecipe | None = None, defined: dict[str, Any] | None = None, **choices: Any
) -> Reconstructor:
    """Reads a model's definitions on the CPU."""
    model_tables = find_tables(str(folder))
    return Reconstructor(
        model_tables,
        model_tables.embedding,
        aligned(model_tables, defined, **choices),
        recipe or DefinitionRecipe(),
        "cpu",
    )
