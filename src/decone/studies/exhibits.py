"""Exhibits of one trained model for a page: its tables and sample text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from decone.data import corpora
from decone.data.tokens import Languages, split
from decone.models.generation import sample
from decone.training.run import Run
from decone.vocab.counts import count_tokens

PROMPT = "\n"
LENGTH = 240  # tokens of sample text


@dataclass(frozen=True)
class ModelExhibit:
    """One run's tables and sample text.

    Attributes:
        label: the method.
        seed: the run's seed.
        tokens: string of every token of one language, in order of ids.
        languages: copies of the vocabulary; rows of `weight` lie by its `offsets()`.
        weight: output table, [V, H], float32.
        counts: occurrences in the training text of one language, by id.
        samples: text written in each language, by name, drawn at `temperatures`.
        temperatures: temperature of the lowest perplexity in each language, as measured.
    """

    label: str
    seed: int
    tokens: list[str]
    languages: Languages
    weight: Float[Tensor, "V H"]
    counts: list[int]
    samples: dict[str, str]
    temperatures: dict[str, float]


def exhibit(label: str, run: Run, counts: list[int], length: int = LENGTH) -> ModelExhibit:
    """Loads a finished run and lets it write; ValueError if it is not done or damaged."""
    tokenizer, model = run.tokenizer(), run.model()
    assert tokenizer is not None  # run.model() has checked
    languages = Languages(tokenizer.size, run.config.language.low_resource)
    prompt = tokenizer.encode(PROMPT) if PROMPT in tokenizer.inner.get_vocab() else torch.tensor([0])
    result = run.result()
    assert result is not None  # a run with a model has its result
    temperatures = {name: scores.best_temperature for name, scores in result.scores.items()}
    if missing := languages.offsets().keys() - temperatures.keys():
        raise ValueError(f"{run.result_path} has no scores of {min(missing)}; remove it to measure the run again")
    samples = {}
    for name, offset in languages.offsets().items():
        ids = sample(model, prompt + offset, length, temperatures[name], run.config.seed)
        # A model may switch languages in the middle; both copies read the same.
        samples[name] = tokenizer.decode((ids % languages.size).tolist())
    return ModelExhibit(
        label=label,
        seed=run.config.seed,
        tokens=tokenizer.tokens(),
        languages=languages,
        weight=model.head.detach().float(),
        counts=counts,
        samples=samples,
        temperatures=temperatures,
    )


def load_exhibits(runs: Sequence[tuple[str, Path]]) -> list[ModelExhibit]:
    """Loads runs with their token counts for a page; each is a label and a folder."""
    exhibits = []
    for label, folder in runs:
        run = Run.open(folder)
        tokenizer = run.tokenizer()
        if tokenizer is None:
            raise ValueError(f"the run {folder} has no tokenizer.json; remove its folder to train it again")
        ids = tokenizer.encode(corpora.load(run.config.corpus.name).text)
        train, _ = split(ids, run.config.corpus.validation, run.config.model.context)
        exhibits.append(exhibit(label, run, count_tokens(train, tokenizer.size).tolist()))
    return exhibits
