"""Tiny models as folders of transformers, and tasks that they can learn."""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from decone.data.published import Published
from decone.training.tasks import tasks
from decone.training.tasks.glue import Example, GlueTask
from decone.training.tasks.summarization import Pair

WORDS = ("the", "a", "film", "plot", "actor", "was", "is", "good", "bad", "very", "and", "then", "it", "ends")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

NOWHERE = Published("tiny.tsv", None, "0" * 64)


def tiny_task(name: str, columns: tuple[int, int | None, int], width: int, **labels: Any) -> GlueTask:
    """A task with the measures of a task of GLUE and data of another."""
    original = tasks()[name]
    assert isinstance(original, GlueTask)
    heading = original.untuned_heading
    return GlueTask(name, NOWHERE, NOWHERE, columns, width, original.measures, untuned_heading=heading, **labels)


TASK = tiny_task("RTE", (0, None, 1), 2, classes=("0", "1"))
SCORES = tiny_task("STS-B", (0, 1, 2), 3, scores=(0.0, 5.0))


def tokenizer() -> Tokenizer:
    """Words, with [CLS] and [SEP] around a sentence or a pair."""
    vocabulary = {word: place for place, word in enumerate((*SPECIAL, *WORDS))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return inner


def bert(folder: Path, width: int = 16, seed: int = 0, head: bool = False) -> Path:
    """A random encoder of one layer; with a head of its own if asked for."""
    import transformers

    settings = transformers.BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        attn_implementation="eager",
    )
    torch.manual_seed(seed)
    kind = transformers.BertForSequenceClassification if head else transformers.BertModel
    kind(settings).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    import transformers

    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)


def bart(folder: Path, width: int = 16, **settings: Any) -> Path:
    """A random BART of one layer on both sides."""
    import transformers

    values = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "d_model": width,
        "max_position_embeddings": 64,
        **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": 2 * width for side in ("encoder", "decoder")},
        "dropout": 0.0,
        "init_std": 0.2,  # with the usual 0.02 so narrow a model learns nothing in seconds
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "forced_eos_token_id": 3,
        "decoder_start_token_id": 3,
    }
    torch.manual_seed(0)
    transformers.BartForConditionalGeneration(transformers.BartConfig(**{**values, **settings})).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def t5(folder: Path, **settings: Any) -> Path:
    """A random T5 of one layer on both sides."""
    import transformers

    values = {"vocab_size": len(SPECIAL) + len(WORDS), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1}
    tokens = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    config = transformers.T5Config(num_heads=2, **{**values, **tokens, **settings})
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def gpt2(folder: Path) -> Path:
    """A random decoder without an encoder."""
    import transformers

    config = transformers.GPT2Config(vocab_size=len(SPECIAL) + len(WORDS), n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def examples(count: int, seed: int = 0) -> list[Example]:
    """Sentences that are good or bad."""
    draw = random.Random(seed)
    neutral = [word for word in WORDS if word not in ("good", "bad")]
    made = []
    for _ in range(count):
        label = draw.randrange(2)
        words = [draw.choice(neutral) for _ in range(draw.randrange(2, 9))]
        words.insert(draw.randrange(len(words) + 1), ("bad", "good")[label])
        made.append(Example(" ".join(words), None, label))
    return made


def pairs(count: int, seed: int = 0) -> list[Example]:
    """Pairs of sentences, the score is how many words they share."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        first, second = (draw.sample(WORDS, draw.randrange(3, 6)) for _ in range(2))
        made.append(Example(" ".join(first), " ".join(second), float(len(set(first) & set(second)))))
    return made


def texts(count: int, seed: int = 0) -> list[Pair]:
    """Documents of some words, summed up by the first and the last of them."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        words = [draw.choice(WORDS) for _ in range(draw.randrange(2, 7))]
        made.append(Pair(" ".join(words), f"{words[0]} {words[-1]}"))
    return made
