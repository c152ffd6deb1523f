"""Entry points of training: `train` carries out one run, `evaluate` measures a model on a text."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from decone.data.corpora import read_text
from decone.data.tokens import Languages
from decone.document.blocks import Document, DocumentModel, Title
from decone.files.settings import Progress
from decone.metrics.table_geometry import isotropy
from decone.models.huggingface import HuggingFaceModel
from decone.models.load import RUN_CONFIG, is_run
from decone.training.config import RunConfig
from decone.training.evaluation import measure, scores
from decone.training.loop import Trainer
from decone.training.machine import resolve_device
from decone.training.run import LanguageScores, ResultModel, Run, RunResult, score_sections
from decone.vocab.counts import count_tokens


class TextEvaluation(ResultModel, DocumentModel):
    """Scores of one model on one text.

    Attributes:
        model: as it was named.
        text: name of the file.
        tokens: of the text.
        languages: scores by language.
        alignment: of two simulated languages.
    """

    model: str
    text: str
    tokens: int
    languages: dict[str, LanguageScores]
    alignment: float | None = None

    def to_document(self) -> Document:
        """The scores as blocks."""
        return evaluation_document(self)


def evaluation_document(evaluation: TextEvaluation) -> Document:
    """The scores of a model on a text."""
    title = Title(f"{evaluation.model} on {evaluation.text}, {evaluation.tokens} tokens", kicker="decone evaluation")
    return Document(title, tuple(score_sections(evaluation.languages, evaluation.alignment)))


def train(
    config: RunConfig | Mapping[str, Any] | Path | str | None = None,
    *,
    out: Path | str | None = None,
    resume: Path | str | None = None,
    seed: int | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Trains one model with one method; a finished run is only read.

    Args:
        config: the configuration, or a TOML file of it; None for the defaults.
        out: folder of a new run, or of one with the same configuration.
        resume: folder of a run to continue, in place of `out`.
        seed: seed of the run; None for that of the configuration.
        device: auto, cpu, cuda, cuda:N or mps; None for that of the configuration.
        settings: values by dotted key that replace those of the configuration, e.g. {"optimizer.lr": 3e-4}.
        progress: called after every step with a description, the steps done and all steps.

    Returns:
        The result of the run; `path` is its folder.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; a checkpoint has been written and the same call continues.
        WriteError: the disk is full, or the folder was removed meanwhile; the sentence says what survives.
        ValueError: the configuration, the text or the folder will not do; nothing has been written then.

    Example:
        >>> import tempfile
        >>> tiny = {"steps": 2, "model": {"width": 8, "layers": 1, "heads": 1, "context": 8}, "batch": {"size": 64}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = train(tiny, out=f"{folder}/run", device="cpu", settings={"machine.threads": 1})
        >>> sorted(result.scores)
        ['HR', 'LR']
    """
    overrides = dict(settings or {})
    if seed is not None:
        overrides["seed"] = seed
    if device is not None:
        overrides["machine.device"] = device
    if resume is None and out is None:
        raise ValueError("name the folder of the run with --out DIR, or a run to go on with by --resume DIR")
    run = _resumed_run(Path(resume), config, out, overrides) if resume else _new_run(config, Path(out or ""), overrides)
    result = run.result()
    if result is not None:
        return result
    trainer = Trainer(run.config, run)  # refuses what cannot be before the folder is made
    content = trainer.train(_steps_reported(progress, run.config.steps) if trainer.main else None)
    return RunResult.model_validate(content).model_copy(update={"path": run.path, "main_process": trainer.main})


def evaluate(
    model: str | os.PathLike[str], text: Path | str, *, batch: int = 12, device: str = "auto"
) -> TextEvaluation:
    """Measures a model on a text: perplexity, its best temperature, ranks, isotropy, frequency groups.

    Args:
        model: a finished run or its folder, or folder or hub name of a Hugging Face causal model.
        text: UTF-8 file.
        batch: windows scored at once; a last incomplete group of windows is dropped.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        `languages`, each with the scores of `training.evaluation.scores`, `isotropy` and `bits_per_byte`; with two
        simulated languages also `alignment`. Frequency groups are counted on the text itself.

    Raises:
        ValueError: the model or the text cannot be read, or the text is shorter than one window.
    """
    name, file, target = os.fspath(model), Path(text), resolve_device(device)
    content = read_text(file)
    if is_run(name):
        run = Run.open(Path(name))
        nano, tokenizer = run.model().to(target), run.tokenizer()
        assert tokenizer is not None  # run.model() has checked
        ids = tokenizer.encode(content)
        _require_window(len(ids), nano.context, file)
        languages = Languages(tokenizer.size, run.config.language.low_resource)
        measured = measure(nano, ids, languages, batch, count_tokens(ids, tokenizer.size))
    else:
        causal = HuggingFaceModel(name, target)
        ids = causal.encode(content)
        _require_window(len(ids), causal.context, file)
        values = scores(causal, ids, 0, batch, count_tokens(ids, causal.vocabulary))
        measured = {"languages": {"all": {**values, "isotropy": isotropy(causal.head.float().cpu())._asdict()}}}
    bytes_per_token = len(content.encode()) / len(ids)
    for values in measured["languages"].values():
        # Only bits per byte compares models with different vocabularies.
        values["bits_per_byte"] = math.log2(values["perplexity"]) / bytes_per_token
    return TextEvaluation.model_validate({"model": name, "text": file.name, "tokens": len(ids), **measured})


def _new_run(config: RunConfig | Mapping[str, Any] | Path | str | None, out: Path, overrides: dict[str, Any]) -> Run:
    return Run.plan(out, RunConfig.resolve(config, overrides))


def _resumed_run(
    resume: Path,
    config: RunConfig | Mapping[str, Any] | Path | str | None,
    out: Path | str | None,
    overrides: dict[str, Any],
) -> Run:
    if out is not None and Path(out).resolve() != resume.resolve():
        raise ValueError("--resume goes on in its own folder; leave out --out")
    run = Run.open(resume)
    if config is not None or overrides:
        resolved = RunConfig.resolve(resume / RUN_CONFIG if config is None else config, overrides)
        if resolved.identity() != run.config.identity():
            raise ValueError(f"{resume} holds a run of another configuration; start a new one with --out")
        run.config = resolved
    return run


def _steps_reported(progress: Progress | None, steps: int) -> Callable[[int, dict[str, float]], None] | None:
    """Callback of the trainer for a progress callback, which is also given the last loss."""
    if progress is None:
        return None
    stage = "training"

    def report(step: int, fields: dict[str, float]) -> None:
        nonlocal stage
        if "loss" in fields:
            stage = f"training, loss {fields['loss']:.3f}"
        progress(stage, step, steps)

    return report


def _require_window(tokens: int, context: int, text: Path) -> None:
    if tokens < context + 1:
        raise ValueError(f"{text} has {tokens} tokens, one window needs {context + 1}; give a longer text")
