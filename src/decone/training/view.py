"""Scores of a model as a document: one line per language, then one per frequency group."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from decone.document.blocks import Document, Grid, GridColumn, Note, Section, Title
from decone.document.numbers import DASH, number

if TYPE_CHECKING:
    from decone.training.run import LanguageScores, RunResult
    from decone.training.session import TextEvaluation

MEASURES = ("PPL", "PPL best", "T best", "bits/byte", "accuracy", "Recall@5", "MRR", "I(W)")
GROUPS = (GridColumn("tokens", "left"), "types", "targets", "PPL", "accuracy")


def evaluation_document(evaluation: "TextEvaluation") -> Document:
    """The scores of a model on a text."""
    title = Title(f"{evaluation.model} on {evaluation.text}, {evaluation.tokens} tokens", kicker="decone evaluation")
    return Document(title, tuple(_sections(evaluation.languages, evaluation.alignment)))


def run_document(result: "RunResult") -> Document:
    """The scores of a finished run in the state that it delivers."""
    measurement = result.measured[result.select]
    title = Title(f"{result.method}, seed {result.seed}, step {measurement.step}", kicker="decone run")
    return Document(title, tuple(_sections(measurement.languages, measurement.alignment)))


def _sections(languages: Mapping[str, "LanguageScores"], alignment: float | None) -> list[Section]:
    overall = Grid(("language", *MEASURES), tuple(_scores(name, scores) for name, scores in languages.items()))
    groups = tuple(
        _group(name, group, values) for name, scores in languages.items() for group, values in scores.groups.items()
    )
    sections = [
        Section("scores", "Scores", (overall,)),
        Section("groups", "Frequency groups", (Grid(("language", *GROUPS), groups),)),
    ]
    if alignment is not None:
        text = f"alignment: {alignment:.2f} of the low-resource rows lie nearest their translation"
        sections.append(Section("alignment", "Alignment", (Note(text),)))
    return sections


def _scores(language: str, scores: "LanguageScores") -> tuple[str, ...]:
    bits: float | None = (scores.model_extra or {}).get("bits_per_byte")
    values = [
        (scores.perplexity, 2),
        (scores.best_perplexity, 2),
        (scores.best_temperature, 2),
        (bits, 3),
        (scores.accuracy, 4),
        (scores.recall["5"], 4),
        (scores.mrr, 4),
        (scores.isotropy["raw"], 4),
    ]
    return language, *(DASH if value is None else number(value, digits) for value, digits in values)


def _group(language: str, group: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    if not values["count"]:
        return language, group, str(values["tokens"]), "0", "not in text", ""
    numbers = number(values["perplexity"], 2), number(values["accuracy"], 4)
    return language, group, str(values["tokens"]), str(values["count"]), *numbers
