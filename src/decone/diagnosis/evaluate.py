"""Scores of a model on a text, which `decone.evaluate` gives."""

import math
import os
from pathlib import Path

from decone.data.corpora import read_text
from decone.data.tokens import Languages
from decone.document.blocks import Document, DocumentModel, Note, Section, Title
from decone.frequencies import OF_TEXT, SOURCES, FrequencyFacts, known_counts
from decone.metrics.table_geometry import isotropy
from decone.models.find_tables import find_tables
from decone.models.huggingface import HuggingFaceModel
from decone.models.load import is_run
from decone.training.evaluation import measure, scores
from decone.training.machine import resolve_device
from decone.training.run import LanguageScores, ResultModel, Run, score_sections
from decone.vocab.counts import count_tokens


class TextEvaluation(ResultModel, DocumentModel):
    """Scores of one model on one text.

    Attributes:
        model: as it was named.
        text: name of the file.
        tokens: of the text.
        frequencies: source of the counts that the frequency groups go by.
        languages: scores by language.
        alignment: of two simulated languages.
    """

    model: str
    text: str
    tokens: int
    frequencies: FrequencyFacts | None = None
    languages: dict[str, LanguageScores]
    alignment: float | None = None

    def to_document(self) -> Document:
        """The scores as blocks."""
        return evaluation_document(self)


def evaluation_document(evaluation: TextEvaluation) -> Document:
    """The scores of a model on a text."""
    title = Title(f"{evaluation.model} on {evaluation.text}, {evaluation.tokens} tokens", kicker="decone evaluation")
    sections = score_sections(evaluation.languages, evaluation.alignment)
    if (facts := evaluation.frequencies) is not None:
        source = f"Frequency groups: {SOURCES[facts.source]}." if facts.warning is None else f"Note: {facts.warning}."
        sections.append(Section("frequencies", "Frequencies", (Note(source),)))
    return Document(title, tuple(sections))


def evaluate(
    model: str | os.PathLike[str],
    text: Path | str,
    *,
    counts: Path | str | None = None,
    batch: int = 12,
    device: str = "auto",
) -> TextEvaluation:
    """Measures a model on a text: perplexity, its best temperature, ranks, isotropy, frequency groups.

    Args:
        model: a finished run or its folder, or folder or hub name of a Hugging Face causal model.
        text: UTF-8 file.
        counts: file of token frequencies, e.g. of `count_text`; a run has those of its training. Without either they
            are counted in the text itself.
        batch: windows scored at once; a last incomplete group of windows is dropped.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        `languages`, each with the scores of `training.evaluation.scores`, `isotropy` and `bits_per_byte`; with two
        simulated languages also `alignment`. `frequencies` says by which counts tokens are frequent or rare.

    Raises:
        ValueError: the model, the text or the counts cannot be read, or the text is shorter than one window.
    """
    name, file, target = os.fspath(model), Path(text), resolve_device(device)
    content = read_text(file)
    occurrences, facts = None, OF_TEXT
    if counts is not None or is_run(name):
        occurrences, facts = known_counts(find_tables(name), None if counts is None else Path(counts))
    facts = OF_TEXT if occurrences is None else facts
    if is_run(name):
        run = Run.open(Path(name))
        nano, tokenizer = run.model().to(target), run.tokenizer()
        assert tokenizer is not None  # run.model() has checked
        ids = tokenizer.encode(content)
        _require_window(len(ids), nano.context, file)
        languages = Languages(tokenizer.size, run.config.language.low_resource)
        if occurrences is None:
            occurrences = count_tokens(ids, tokenizer.size)
        occurrences = occurrences.view(-1, tokenizer.size).sum(0)  # copies of the vocabulary have the same tokens
        measured = measure(nano, ids, languages, batch, occurrences)
    else:
        causal = HuggingFaceModel(name, target)
        ids = causal.encode(content)
        _require_window(len(ids), causal.context, file)
        if occurrences is None:
            occurrences = count_tokens(ids, causal.vocabulary)
        values = scores(causal, ids, 0, batch, occurrences)
        measured = {"languages": {"all": {**values, "isotropy": isotropy(causal.head.float().cpu())._asdict()}}}
    bytes_per_token = len(content.encode()) / len(ids)
    for values in measured["languages"].values():
        # Only bits per byte compares models with different vocabularies.
        values["bits_per_byte"] = math.log2(values["perplexity"]) / bytes_per_token
    totals = {"tokens": int(occurrences.sum()), "types": int((occurrences > 0).sum())}
    described = {"frequencies": {**facts.model_dump(exclude_none=True, exclude={"sizes"}), **totals}}
    return TextEvaluation.model_validate(
        {"model": name, "text": file.name, "tokens": len(ids), **described, **measured}
    )


def _require_window(tokens: int, context: int, text: Path) -> None:
    if tokens < context + 1:
        raise ValueError(f"{text} has {tokens} tokens, one window needs {context + 1}; give a longer text")
