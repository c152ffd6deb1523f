"""A run's folder.

config.toml         resolved configuration
tokenizer.json      text to ids
counts.tsv          how often each token is a token to train on, by id
metrics.jsonl       one JSON object per line
checkpoints/        the last good state, see `training.checkpoint`
best-*.safetensors  weights of the lowest validation loss so far
model.safetensors   weights the run delivers, once it is done
result.json         every metric, once it is done
run.lock            process id and host of the process that trains; there no longer than that
"""

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

from jaxtyping import Int64
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from decone.data.tokens import TextTokenizer
from decone.document import DocumentModel
from decone.document.blocks import Document, Grid, GridColumn, Note, Section, Title
from decone.document.numbers import DASH, number
from decone.files.atomic import UNFINISHED, write_text
from decone.files.failure import WriteError, folders_above, write_failures
from decone.files.foreign import plain, quoted
from decone.files.lock import FolderLock, lock, require_present
from decone.files.settings import explain_mistake, parse_json
from decone.models.load import RUN_CONFIG
from decone.models.nano import Nano
from decone.training import checkpoint
from decone.training.config import RunConfig
from decone.vocab.counts import count_lines

LOG, COUNTS = "metrics.jsonl", "counts.tsv"
LOCKS = ("run.lock", "study.lock")  # of the process that trains, and of the one that waits for it
PATIENCE = 10.0  # seconds in which a worker ends whose study was killed
MEASURES = ("PPL", "PPL best", "T best", "bits/byte", "accuracy", "Recall@5", "MRR", "I(W)")
GROUPS = (GridColumn("tokens", "left"), "types", "targets", "PPL", "accuracy")


class ResultModel(BaseModel):
    """Base of results that are read from JSON and written to it: fields that are not declared stay."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return self.model_dump(exclude_unset=True)


Size = Annotated[int, Field(ge=0, lt=2**63)]


class TokenGroup(ResultModel):
    """Scores of the tokens of one frequency group; None where none of them is in the text."""

    tokens: Size
    count: Size
    perplexity: float | None
    accuracy: float | None


class LanguageScores(ResultModel):
    """Scores of a model on a text in one language; see `training.evaluation.scores`."""

    perplexity: float
    best_perplexity: float
    best_temperature: float = Field(gt=0, allow_inf_nan=False)
    accuracy: float
    recall: dict[str, float]
    mrr: float
    count: Size
    groups: dict[str, TokenGroup]
    curve: list[Annotated[list[float | None], Field(min_length=2, max_length=2)]]
    isotropy: dict[str, float]

    @model_validator(mode="after")
    def _has_what_is_shown(self) -> Self:
        if "5" not in self.recall or "raw" not in self.isotropy:
            raise ValueError("the scores lack recall 5 or isotropy raw")
        return self


class Measurement(ResultModel):
    """Scores by language of a state of a run, by its step, and the alignment of two simulated languages."""

    step: Size
    languages: dict[str, LanguageScores] = Field(min_length=1)
    alignment: float | None = None


class ValidationLine(ResultModel):
    """A validation of a run on its way."""

    kind: str = "validation"
    step: Size
    loss: float | None = None
    alignment: float | None = None


class RunResult(ResultModel, DocumentModel):
    """A finished run: the content of its `result.json`.

    Attributes:
        method: the method as text.
        seed: of the run.
        config: the resolved configuration.
        identity: digest of everything that decides the result.
        select: state that the run delivers, "best" or "last".
        corpus: name, digest, source and number of tokens of the text.
        vocabulary: rows of the table.
        parameters: of the model.
        seconds: of training.
        measured: measurement of the best and of the last state.
        history: validation losses.
        versions: of Python and packages.
        machine: on which it was carried out.
        date: of the end, UTC.
        commit: of the code, None for an installed package.
        path: folder of the run, None for a result without one; not in `to_dict()`.
        main_process: False in the other processes of a distributed launch; not in `to_dict()`.
    """

    method: str
    seed: int
    config: dict[str, Any]
    identity: str
    select: Literal["best", "last"]
    corpus: dict[str, Any]
    vocabulary: Size
    parameters: Size
    seconds: float
    measured: dict[str, Measurement]
    history: list[ValidationLine]
    versions: dict[str, str | None]
    machine: dict[str, str | int | None]
    date: str
    commit: str | None
    path: Path | None = Field(default=None, exclude=True)
    main_process: bool = Field(default=True, exclude=True)

    @model_validator(mode="after")
    def _both_states_of_a_valid_run(self) -> Self:
        for state in ("best", "last"):
            if state not in self.measured:
                raise ValueError(f"the {state} state is not measured")
        RunConfig.build(self.config)
        return self

    def __fspath__(self) -> str:
        """Folder of the run, so that a result is taken where a path is.

        Raises:
            ValueError: the result has no folder.
        """
        if self.path is None:
            raise ValueError("this result has no folder; name the folder of its run")
        return str(self.path)

    @property
    def scores(self) -> dict[str, LanguageScores]:
        """Scores of the delivered state by language."""
        return self.measured[self.select].languages

    def to_document(self) -> Document:
        """The scores of the delivered state as blocks."""
        return run_document(self)


def run_document(result: RunResult) -> Document:
    """The scores of a finished run in the state that it delivers."""
    measurement = result.measured[result.select]
    title = Title(f"{result.method}, seed {result.seed}, step {measurement.step}", kicker="decone run")
    return Document(title, tuple(score_sections(measurement.languages, measurement.alignment)))


def score_sections(languages: Mapping[str, LanguageScores], alignment: float | None) -> list[Section]:
    """Sections of the scores of languages: a line per language, then one per frequency group."""
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


def _scores(language: str, scores: LanguageScores) -> tuple[str, ...]:
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


def _group(language: str, group: str, scores: TokenGroup) -> tuple[str, ...]:
    if scores.perplexity is None or scores.accuracy is None:
        return language, group, str(scores.tokens), "0", "not in text", ""
    numbers = number(scores.perplexity, 2), number(scores.accuracy, 4)
    return language, group, str(scores.tokens), str(scores.count), *numbers


class Run:
    """The folder of one run. Use `create` or `open`."""

    _lock: FolderLock | None = None

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config
        self.model_path, self.result_path = path / "model.safetensors", path / "result.json"

    @classmethod
    def plan(cls, path: Path, config: RunConfig) -> Self:
        """A run of this configuration in a folder that is still to be made, or that already holds it; writes nothing.

        Raises:
            ValueError: the folder is a file, or holds something else or another configuration.
        """
        if not (path / RUN_CONFIG).is_file():
            require_unclaimed(path)
        elif cls.open(path).config.identity() != config.identity():
            raise ValueError(f"{path} holds a run of another configuration; choose another --out")
        return cls(path, config)

    def claim(self) -> None:
        """Makes the folder and writes the configuration into it; ValueError when that cannot be done."""
        with self.lock():
            pass

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps the folder, which is made if need be, for this process alone.

        Raises:
            ValueError: another process trains the run, or the folder holds something else or cannot be written.
        """
        file, patience = self.path / LOCKS[0], PATIENCE if (self.path / LOCKS[1]).exists() else 0.0
        with (
            folders_above(file),
            lock(file, f"{self.path} is being trained", "choose another --out", patience) as folder_lock,
        ):
            self.plan(self.path, self.config)
            if not (self.path / RUN_CONFIG).is_file():
                write_text(self.path / RUN_CONFIG, self.config.dump())
            self._lock = folder_lock
            try:
                yield
            finally:
                self._lock = None

    def require_present(self) -> None:
        """Refuses to write into a folder that was removed or renamed since it was locked; WriteError then."""
        if self._lock is not None:
            self._lock.require()

    @contextmanager
    def rescued(self) -> Iterator[None]:
        """Adds to a failure to write what survives of the run, and how to go on.

        Raises:
            WriteError: the block raised it, or an OSError.
        """
        try:
            yield
        except (WriteError, OSError) as error:
            failure = error if isinstance(error, WriteError) else WriteError.of(self.path, error)
            newest = checkpoint.latest(self.path)
            if newest is not None:
                step = int(newest.name.removeprefix("step-"))
                command = f"decone train --resume {shlex.quote(str(self.path))}"
                failure = failure.continued(f" and go on after step {step} with: {command}")
            elif (self.path / RUN_CONFIG).is_file():
                failure = failure.continued(" and run the same command again; there was no checkpoint yet")
            raise failure from None

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> Self:
        """Claims a folder for a new run, or one that already holds a run of the same configuration.

        Raises:
            ValueError: the folder is a file, cannot be written, holds something else or another configuration.
        """
        run = cls.plan(path, config)
        run.claim()
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens an existing run; ValueError if the folder holds none."""
        if not path.exists():
            raise ValueError(f"no run at {path}; name the folder given as --out")
        if not (path / RUN_CONFIG).is_file():
            raise ValueError(f"{path} holds no decone run ({RUN_CONFIG} is missing); name the folder given as --out")
        return cls(path, RunConfig.read(path / RUN_CONFIG))

    def tokenizer(self) -> TextTokenizer | None:
        """The run's tokenizer, None before it is saved."""
        path = self.path / "tokenizer.json"
        return TextTokenizer.load(path) if path.exists() else None

    def save_tokenizer(self, tokenizer: TextTokenizer) -> None:
        """Writes tokenizer.json."""
        write_text(self.path / "tokenizer.json", tokenizer.inner.to_str())

    def save_counts(self, counts: Int64[Tensor, " V"]) -> None:
        """Writes counts.tsv, from occurrences per row of the table."""
        write_text(self.path / COUNTS, count_lines(counts))

    def best(self, step: int) -> Path:
        """File of the weights of a step with the lowest validation loss so far."""
        return self.path / f"best-{step:08d}.safetensors"

    def forget_best(self, except_step: int) -> None:
        """Removes weights that a later step has beaten."""
        for old in self.path.glob("best-*.safetensors"):
            if old != self.best(except_step):
                old.unlink(missing_ok=True)

    def forget_unfinished(self) -> None:
        """Removes what a killed process was writing or was about to remove."""
        for file in self.path.glob(f"*{UNFINISHED}"):
            file.unlink(missing_ok=True)
        newest = checkpoint.latest(self.path)
        if newest is not None:
            checkpoint.remove_others(newest)

    def log_lines(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl."""
        return list(read_log(self.path))

    def result(self) -> RunResult | None:
        """Content of result.json, None while the run is not done."""
        if not self.result_path.exists():
            return None
        if (self.path / LOCKS[0]).exists():  # of a process that was killed just after the result, or another at its end
            with contextlib.suppress(ValueError), self.lock():
                self.forget_unfinished()
        return read_result(self.result_path)

    def model(self) -> Nano:
        """The delivered model with its weights; ValueError while the run is not done or when the file is damaged."""
        tokenizer = self.tokenizer()
        if tokenizer is None or not self.model_path.exists():
            raise ValueError(f"the run {self.path} is not done; finish it with: decone train --resume {self.path}")
        weights = checkpoint.load_weights(self.model_path)
        table = weights.get("embedding.weight")
        if table is None:
            raise ValueError(f"{self.model_path} holds no embedding.weight; is it from this program?")
        shape = self.config.model.model_copy(update={"vocabulary": len(table)})
        misfit = f"{self.model_path} does not fit its config.toml"
        numbers = sum(tensor.numel() for tensor in weights.values())
        if table.shape[1:] != (shape.width,) or numbers != shape.parameters:  # before its sizes take memory
            raise ValueError(f"{misfit}: it holds {numbers:,} numbers instead of {quoted(shape.parameters)}")
        copies = 2 if self.config.language.low_resource > 0 else 1
        if copies * tokenizer.size != len(table):
            raise ValueError(f"{misfit}: {len(table):,} rows for {copies} x {tokenizer.size:,} tokens")
        model = Nano(shape)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{misfit}: {plain(str(error).splitlines()[-1])}") from None
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise ValueError(
                f"{self.model_path} holds NaN or infinity, so nothing can be measured; train the run again"
            )
        return model.eval()


def read_result(path: Path) -> RunResult:
    """Reads a run's result; ValueError when it is damaged or something else."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        return RunResult.model_validate(content).model_copy(update={"path": path.parent})
    except ValidationError as error:
        reason = explain_mistake(RunResult, error)
    except (OSError, ValueError) as error:
        reason = str(error)
    raise ValueError(f"{path} is damaged ({reason}); remove it to measure the run again")


def require_unclaimed(path: Path) -> None:
    """Refuses an output folder that holds other things or cannot be made; writes nothing."""
    require_creatable(path)
    if path.is_dir() and not all(entry.name.endswith((UNFINISHED, *LOCKS)) for entry in path.iterdir()):
        raise ValueError(f"--out {path} is not empty and holds no decone run; choose another folder")


def require_creatable(path: Path) -> None:
    """Refuses a folder that could not be made or written to; writes nothing."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out {path} is a file; name a folder")
    above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not above.is_dir():
        raise ValueError(f"--out {path} lies below {above}, which is a file; choose another folder")
    if not os.access(above, os.W_OK):
        raise ValueError(f"cannot write to --out {path}: no permission for {above}; choose another folder")


def require_writable(path: Path) -> None:
    """Makes a folder if need be and tries to write there; ValueError when that cannot be done."""
    probe = path / f"probe.{os.getpid()}{UNFINISHED}"  # another process may claim the folder at this moment
    with folders_above(probe), write_failures(path):
        probe.touch()
        probe.unlink(missing_ok=True)


class RunLog:
    """Appends to `metrics.jsonl`; lines later than the step resumed from are removed, so that no step stands twice.

    Args:
        run: the run's folder.
        step: optimiser steps already done.
        tensorboard: also write TensorBoard events under `tensorboard/`.
    """

    def __init__(self, run: Path, step: int, tensorboard: bool = False) -> None:
        self.path = run / LOG
        lines = [json.dumps(line) for line in read_log(run) if line["step"] <= step]
        write_text(self.path, "".join(f"{line}\n" for line in lines))
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ValueError('machine.tensorboard needs the package: pip install "decone[report]"') from None
            self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Self:
        with write_failures(self.path):
            self._file = self.path.open("a", encoding="utf-8", buffering=1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # `write` has said it
            self._file.close()
        if self._writer is not None:
            self._writer.close()

    def write(self, kind: str, step: int, fields: dict[str, float]) -> None:
        """Writes one line, e.g. kind "train" or "validation".

        Raises:
            WriteError: the disk is full, or the folder was removed or renamed.
        """
        require_present(self._file.fileno(), self.path)
        with write_failures(self.path):
            self._file.write(json.dumps({"kind": kind, "step": step, **fields}) + "\n")
        if self._writer is not None:
            for name, value in fields.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)


def read_log(run: Path) -> Iterator[dict[str, Any]]:
    """The log's lines up to the first that is damaged; a kill may have cut the last one short."""
    try:
        content = (run / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:  # there is none, or it is being removed
        return
    for line in content.splitlines():
        try:
            fields = parse_json(line)
        except ValueError:
            return
        if not isinstance(fields, dict) or not isinstance(fields.get("step"), int):
            return
        yield fields
