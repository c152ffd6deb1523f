"""The training loop, on Accelerate: one process or many, resumable at any step, bit for bit on a CPU."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from decone.data import corpora
from decone.data.languages import Languages
from decone.data.tokenizers import TextTokenizer
from decone.data.windows import TRAINING, random_batch, split
from decone.metrics.similarity import translation_alignment
from decone.models.nano import Nano
from decone.training import checkpoint
from decone.training.config import RunConfig
from decone.training.evaluation import measure, validation_loss
from decone.training.learner import Learner
from decone.training.log import Log
from decone.training.method import Method
from decone.training.provenance import provenance
from decone.training.run import Run
from decone.vocab.counts import count_tokens

LOG_EVERY = 50  # steps between training lines in the log

Progress = Callable[[int, dict[str, float]], None]


class Interrupted(Exception):  # noqa: N818  # the user's wish, no error
    """Training stopped at the user's wish after writing a checkpoint; `run` names the folder that resumes."""

    def __init__(self, run: Path, step: int) -> None:
        super().__init__(f"stopped after step {step}; resume with: decone train --resume {run}")
        self.run, self.step = run, step

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[Path, int]]:
        return Interrupted, (self.run, self.step)  # so that it survives the way home from a worker process


class Trainer:
    """One run, from its configuration to `result.json`.

    Args:
        config: the resolved configuration.
        run: its folder, already claimed with `Run.create` or `Run.open`.
    """

    def __init__(self, config: RunConfig, run: Run) -> None:
        self.config, self.run = config, run
        machine = config.machine
        if machine.threads:
            torch.set_num_threads(machine.threads)
        self.accelerator = accelerator(machine.device, machine.precision)
        corpus = corpora.load(config.corpus.name)
        self.tokenizer = run.tokenizer() or train_tokenizer(config, corpus.text)
        ids = self.tokenizer.encode(corpus.text)
        self.languages = Languages(self.tokenizer.size, config.language.low_resource)
        self.train_ids, self.validation_ids = split(ids, config.corpus.validation, config.model.context)
        self.corpus = {"name": corpus.name, "sha256": corpus.sha256, "source": corpus.source, "tokens": len(ids)}
        method = Method.parse(config.method)
        torch.manual_seed(config.seed)
        model = Nano(config.model.model_copy(update={"vocabulary": self.languages.vocabulary}))
        model.to(self.accelerator.device)
        settings = config.optimizer
        self.optimizer = method.build_optimizer(
            model, settings.lr, (settings.beta1, settings.beta2), settings.weight_decay
        )
        objective = method.build_objective()
        objective.prepare(self.languages.vocabulary)
        self.plain = Learner(model, objective, machine.engine).to(self.accelerator.device)
        self.learner, self.stepper = self.accelerator.prepare(self.plain, self.optimizer)
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, Any] = {"step": 0, "loss": math.inf}

    def train(self, progress: Progress | None = None) -> dict[str, Any]:
        """Trains from the last checkpoint to the end and measures the run.

        Returns:
            The content of `result.json`.

        Raises:
            Interrupted: Ctrl-C; a checkpoint has been written.
            ValueError: the checkpoint cannot be read, or the loss is no longer finite.
        """
        self._restore()
        self.run.save_tokenizer(self.tokenizer)
        config, started = self.config, time.perf_counter() - self.seconds
        log = Log(self.run.path, self.step, config.machine.tensorboard and self.accelerator.is_main_process)
        with catch_interrupt() as interrupted, log:
            while self.step < config.steps:
                logging = (self.step + 1) % LOG_EVERY == 0 or self.step + 1 == config.steps
                fields = self._one_step(logging)
                self.step += 1
                self.seconds = time.perf_counter() - started
                if logging:
                    log.write("train", self.step, {**fields, "seconds": self.seconds})
                if self.step % config.evaluation.every == 0 or self.step == config.steps:
                    log.write("validation", self.step, self._validate())
                if progress is not None:
                    progress(self.step, fields)
                last = self.step == config.steps or interrupted.is_set()
                if self.step % config.machine.checkpoint_every == 0 or last:
                    self._save()
                if interrupted.is_set() and self.step < config.steps:
                    raise Interrupted(self.run.path, self.step)
        return self._finish()

    def _one_step(self, logging: bool) -> dict[str, float]:
        config, world = self.config, self.accelerator.num_processes
        rate = learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = config.batch.accumulate
        whole = random_batch(
            self.train_ids,
            config.model.context,
            config.batch.size * parts,
            self.languages,
            (config.seed, TRAINING, self.step),
        )
        mine = whole[self.accelerator.process_index :: world].to(self.accelerator.device)
        count = whole[:, 1:].numel()  # targets of the whole step, over all processes
        total = torch.zeros(3, device=self.accelerator.device)
        with self.plain.objective.step(mine[:, 1:]):
            for index, windows in enumerate(mine.chunk(parts)):
                sync = index + 1 == parts
                with nullcontext() if sync else self.accelerator.no_sync(self.learner):
                    loss = self.learner(windows, nll=logging)
                    # DDP averages gradients over processes; a sum over targets must not be averaged.
                    self.accelerator.backward(loss.tokens * (world / count) + loss.matrix / parts)
                if logging:
                    total += torch.stack((loss.tokens.detach() / count, loss.matrix.detach() / parts, loss.nll / count))
        norm = self.accelerator.clip_grad_norm_(self.learner.parameters(), config.optimizer.clip or math.inf)
        self.stepper.step()
        self.stepper.zero_grad()
        if not logging:
            return {}
        if world > 1:
            total = self.accelerator.reduce(total, "sum") / total.new_tensor([1.0, world, 1.0])
        loss_value, matrix, nll = total.tolist()
        if not math.isfinite(loss_value):
            raise ValueError(
                f"the loss is {loss_value} at step {self.step + 1}; lower optimizer.lr or check the method"
            )
        return {"loss": loss_value, "matrix": matrix, "nll": nll, "norm": float(norm), "lr": rate}

    def _validate(self) -> dict[str, float]:
        config, model = self.config, self.plain.model
        key = (config.seed, self.step)
        settings = config.evaluation
        loss = validation_loss(model, self.validation_ids, self.languages, config.batch.size, settings.batches, key)
        fields = {"loss": loss}
        if self.languages.simulated:
            high, low = self.languages.ids("HR"), self.languages.ids("LR")
            fields["alignment"] = translation_alignment(model.embedding.weight.detach().cpu(), high, low)
        if loss < self.best["loss"]:
            self.best = {"step": self.step, "loss": loss}
            if self.accelerator.is_main_process:
                checkpoint.write_tensors(self.run.best(self.step), model.state_dict())
        return fields

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        state = {
            "optimizer": self.optimizer.state_dict(),
            "objective": self.plain.objective.state_dict(),
            "random": torch.get_rng_state(),
            "best": self.best,
            "seconds": self.seconds,
        }
        checkpoint.save(self.run.path, self.step, self.plain.model.state_dict(), state)
        self.run.forget_best(except_step=self.best["step"])

    def _restore(self) -> None:
        folder = checkpoint.latest(self.run.path)
        if folder is None:
            return
        self.step, weights, state = checkpoint.load(folder)
        try:
            self.plain.model.load_state_dict(weights)
            self.plain.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            self.best, self.seconds = state["best"], state["seconds"]
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"the checkpoint {folder} does not fit this run ({reason}); use another --out") from None

    def _finish(self) -> dict[str, Any]:
        measured = {"last": {"step": self.step, **self._measure()}}
        model = self.plain.model
        if self.best["step"] not in (0, self.step):
            last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            model.load_state_dict(checkpoint.load_weights(self.run.best(self.best["step"])))
            measured["best"] = {"step": self.best["step"], **self._measure()}
            best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            model.load_state_dict(last)
        else:
            measured["best"], best = measured["last"], model.state_dict()
        result = {
            "method": self.config.method,
            "seed": self.config.seed,
            "config": self.config.model_dump(mode="json"),
            "identity": self.config.identity(),
            "select": self.config.evaluation.select,
            "corpus": self.corpus,
            "vocabulary": self.languages.vocabulary,
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": self.seconds,
            "measured": measured,
            "history": [line for line in self.run.log_lines() if line["kind"] == "validation"],
            **provenance(),
        }
        if self.accelerator.is_main_process:
            chosen = best if self.config.evaluation.select == "best" else model.state_dict()
            checkpoint.write_tensors(self.run.model_path, chosen)
            checkpoint.write_text(self.run.result_path, json.dumps(result, indent=1) + "\n")
        return result

    def _measure(self) -> dict[str, Any]:
        counts = count_tokens(self.train_ids, self.languages.size)
        return measure(self.plain.model, self.validation_ids, self.languages, self.config.batch.size, counts)


def learning_rate(config: RunConfig, step: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, then half a cosine down to `lr_min` at the end.

    Example:
        >>> config = RunConfig(steps=1000)
        >>> learning_rate(config, 99), round(learning_rate(config, 999), 4)
        (0.001, 0.0001)
    """
    settings = config.optimizer
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(1, config.steps - settings.warmup)
    return settings.lr_min + 0.5 * (1 + math.cos(math.pi * share)) * (settings.lr - settings.lr_min)


def accelerator(device: str, precision: str) -> Accelerator:
    """An Accelerator for a device and a precision, both "auto" or by name; ValueError for a device that is not here."""
    try:
        wanted = torch.device("cpu" if device == "auto" else device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}; choose auto, cpu, cuda, cuda:N or mps") from None
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} is not available here; choose auto or cpu")
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not available here; choose auto or cpu")
    if wanted.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device {device!r} is not supported; choose auto, cpu, cuda, cuda:N or mps")
    if wanted.index is not None and wanted.type == "cuda":
        torch.cuda.set_device(wanted)
    cuda = wanted.type == "cuda" or (device == "auto" and torch.cuda.is_available())
    low = precision == "bfloat16" or (precision == "auto" and cuda)
    return Accelerator(
        mixed_precision="bf16" if low else "no", cpu=device == "cpu", step_scheduler_with_optimizer=False
    )


def train_tokenizer(config: RunConfig, text: str) -> TextTokenizer:
    """The tokenizer a configuration asks for, made from the whole text."""
    if config.tokenizer.kind == "characters":
        return TextTokenizer.characters(text)
    return TextTokenizer.bpe(text, config.tokenizer.size)


@contextmanager
def catch_interrupt() -> Iterator[threading.Event]:
    """Turns Ctrl-C into an event that the loop looks at between steps; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
