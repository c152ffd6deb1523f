"""Scores of a text, as a document: a line per language, a line per group of frequencies, and whose they are."""

from rich.console import Console

from decone.diagnosis.evaluate import TextEvaluation
from decone.document import terminal
from decone.training.run import LanguageScores


def scores(perplexity: float) -> LanguageScores:
    group = {"tokens": 7, "count": 3, "perplexity": 8.125, "accuracy": 0.5}
    return LanguageScores.model_validate(
        {
            "perplexity": perplexity,
            "best_perplexity": 9.5,
            "best_temperature": 0.75,
            "accuracy": 0.25,
            "recall": {"5": 0.625},
            "mrr": 0.375,
            "count": 90,
            "groups": {"frequent": group, "rare": {"tokens": 2, "count": 0, "perplexity": None, "accuracy": None}},
            "curve": [],
            "isotropy": {"raw": 0.875},
            "bits_per_byte": 1.5,
        }
    )


def lines(evaluation: TextEvaluation) -> list[str]:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(terminal.render(evaluation.to_document()))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_every_score_stands_in_its_line() -> None:
    languages = {"HR": scores(12.25), "[b]LR[/b]": scores(20.0)}
    text = lines(TextEvaluation(model="m", text="t.txt", tokens=99, languages=languages, alignment=0.125))
    assert "m on t.txt, 99 tokens" in text
    assert "HR 12.25 9.50 0.75 1.500 0.2500 0.6250 0.3750 0.8750" in text
    assert "[b]LR[/b] 20.00 9.50 0.75 1.500 0.2500 0.6250 0.3750 0.8750" in text
    assert "HR frequent 7 3 8.12 0.5000" in text
    assert "HR rare 2 0 not in text" in text
    assert "alignment: 0.12 of the low-resource rows lie nearest their translation" in text


def test_one_language_has_no_alignment() -> None:
    evaluation = TextEvaluation(model="m", text="t.txt", tokens=99, languages={"all": scores(12.25)})
    assert "lignment" not in " ".join(lines(evaluation))
    assert "12.25" in evaluation._repr_html_()
