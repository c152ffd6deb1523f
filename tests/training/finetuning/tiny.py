"""A tiny encoder as a folder of transformers, and a task that it can learn."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from decone.data.glue import Example, Task
from decone.data.published import Published

WORDS = ("the", "a", "film", "plot", "actor", "was", "is", "good", "bad", "very", "and", "then", "it", "ends")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

NOWHERE = Published("tiny.tsv", None, "0" * 64)
TASK = Task("TINY", NOWHERE, NOWHERE, (0, None, 1), 2, classes=("0", "1"))
SCORES = Task("STS-B", NOWHERE, NOWHERE, (0, 1, 2), 3, scores=(0.0, 5.0))


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
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
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
