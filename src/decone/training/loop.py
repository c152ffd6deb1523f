"""The training loop, on Accelerate: one process or many, resumable at any step, bit for bit on a CPU."""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from textwrap import shorten
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from decone.data.tokens import TRAINING, random_batch
from decone.files.atomic import write_text
from decone.files.safetensors import write_tensors
from decone.metrics.neighbours import translation_alignment
from decone.models.nano import Nano
from decone.objectives import Loss, Objective
from decone.training import checkpoint, inputs
from decone.training.config import Method, RunConfig
from decone.training.evaluation import measure, validation_loss
from decone.training.interrupt import Interrupted, catch_interrupt, signal_number
from decone.training.machine import accelerator, provenance, require_memory
from decone.training.run import Run, RunLog
from decone.vocab.counts import count_tokens

LAYER = 1 << 15  # bytes of the objects of a layer, about, however small its weights
LOG_EVERY = 50  # steps between training lines in the log

Progress = Callable[[int, dict[str, float]], None]
Stop = Callable[[], bool]


class ModelWithObjective(nn.Module):
    """Model and objective as one module, so that wrappers (DDP, FSDP, autocast) see the loss as part of forward."""

    def __init__(self, model: Nano, objective: Objective, engine: str = "auto") -> None:
        super().__init__()
        self.model, self.objective, self.engine = model, objective, engine
        objective.prepare(model.vocabulary)  # counters must be there before a checkpoint is read into them

    def forward(self, windows: Int[Tensor, "B T"], nll: bool = False) -> Loss:
        """Loss of windows whose inputs are [:, :-1] and targets [:, 1:]."""
        hidden = self.model(windows[:, :-1])
        loss: Loss = self.objective(hidden, self.model.head, windows[:, 1:], engine=self.engine, nll=nll)
        return loss


class Trainer:
    """One run, from its configuration to `result.json`.

    Args:
        config: the resolved configuration.
        run: its folder; it is not touched before `train`, which makes it if need be.

    Raises:
        ValueError: the text, the device or the engine is not here or will not do.
    """

    def __init__(self, config: RunConfig, run: Run) -> None:
        self.config, self.run = config, run
        machine, settings, method = config.machine, config.optimizer, Method.parse(config.method)
        if machine.threads:
            torch.set_num_threads(machine.threads)
        text = inputs.check(config, run.tokenizer())
        self.tokenizer, self.languages = text.tokenizer, text.languages
        self.train_ids, self.validation_ids = text.train, text.validation
        self.corpus = {
            "name": text.corpus.name,
            "sha256": text.corpus.sha256,
            "source": text.corpus.source,
            "tokens": len(text.train) + len(text.validation),
        }
        self.accelerator = accelerator(machine.device, machine.precision)
        if config.batch.size < self.accelerator.num_processes:
            raise ValueError(
                f"batch.size {config.batch.size} leaves some of {self.accelerator.num_processes} processes "
                "without work; raise it"
            )
        torch.manual_seed(config.seed)
        shape = config.model.model_copy(update={"vocabulary": self.languages.vocabulary})
        require_memory(4 * shape.parameters + LAYER * shape.layers, "the model", "model.width, layers or context")
        windows = config.batch.size * config.batch.accumulate
        require_memory(8 * windows * shape.context, "a step", "batch.size, batch.accumulate or model.context")
        model = Nano(shape)
        model.to(self.accelerator.device)
        self.optimizer = method.build_optimizer(
            model, settings.lr, (settings.beta1, settings.beta2), settings.weight_decay
        )
        self.plain = ModelWithObjective(model, method.build_objective(), machine.engine).to(self.accelerator.device)
        self.learner, self.stepper = self.accelerator.prepare(self.plain, self.optimizer)
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, Any] = {"step": 0, "loss": math.inf}

    @property
    def main(self) -> bool:
        """True in the process that writes files and reports."""
        return bool(self.accelerator.is_main_process)

    def train(self, progress: Progress | None = None, stop: Stop | None = None) -> dict[str, Any]:
        """Trains from the last checkpoint to the end and measures the run.

        Args:
            progress: called after every step with its number and what is known of it.
            stop: asked after every step; true is as good as Ctrl-C.

        Returns:
            The content of `result.json`.

        Raises:
            Interrupted: Ctrl-C, SIGTERM or SIGHUP; a checkpoint has been written.
            WriteError: the disk is full, or the folder was removed; the sentence says what survives.
            ValueError: another process trains the run, the checkpoint cannot be read, or the loss is no longer finite.
        """
        if not self.main:
            self._restore()
            return self._train(None, progress, stop)
        with self.run.rescued(), self.run.lock():
            self.run.forget_unfinished()
            self._restore()
            self.run.forget_best(except_step=self.best["step"])
            self.run.save_tokenizer(self.tokenizer)
            self.run.save_counts(self.languages.spread(count_tokens(self.train_ids, self.languages.size)))
            return self._train(RunLog(self.run.path, self.step, self.config.machine.tensorboard), progress, stop)

    def _train(self, log: RunLog | None, progress: Progress | None, stop: Stop | None) -> dict[str, Any]:
        config, started = self.config, time.perf_counter() - self.seconds
        with catch_interrupt() as interrupted, log or nullcontext():
            while self.step < config.steps:
                logging = (self.step + 1) % LOG_EVERY == 0 or self.step + 1 == config.steps
                fields = self._one_step(logging)
                self.step += 1
                self.seconds = time.perf_counter() - started
                if logging and log is not None:
                    log.write("train", self.step, {**fields, "seconds": self.seconds})
                if self.step % config.evaluation.every == 0 or self.step == config.steps:
                    validation = self._validate()
                    if log is not None:
                        log.write("validation", self.step, validation)
                if progress is not None:
                    progress(self.step, fields)
                stopped = self._agreed(interrupted.is_set() or (stop is not None and stop()))
                if self.step % config.machine.checkpoint_every == 0 or self.step == config.steps or stopped:
                    self._save()
                if stopped and self.step < config.steps:
                    raise Interrupted(self.run.path, self.step, interrupted.number)
        try:
            return self._finish()
        except KeyboardInterrupt as error:
            raise Interrupted(self.run.path, self.step, signal_number(error)) from None

    def _agreed(self, stop: bool) -> bool:
        """True if any process is to stop; all must stop after the same step, or the others wait for ever."""
        if self.accelerator.num_processes == 1:
            return stop
        wishes = torch.tensor([float(stop)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(wishes, "sum").item())

    def _one_step(self, logging: bool) -> dict[str, float]:
        config, world = self.config, self.accelerator.num_processes
        rate = learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        chunks = config.batch.accumulate
        step_windows = random_batch(
            self.train_ids,
            config.model.context,
            config.batch.size * chunks,
            self.languages,
            (config.seed, TRAINING, self.step),
        )
        local_windows = step_windows[self.accelerator.process_index :: world].to(self.accelerator.device)
        count = step_windows[:, 1:].numel()  # targets of the full step, over all processes
        total = torch.zeros(3, device=self.accelerator.device)
        with self.plain.objective.step(local_windows[:, 1:]):  # counters add up what all processes observe
            for index, windows in enumerate(local_windows.tensor_split(chunks)):
                sync = index + 1 == chunks
                with nullcontext() if sync else self.accelerator.no_sync(self.learner):
                    loss = self.learner(windows, nll=logging)
                    # DDP averages gradients over processes; a sum over targets must not be averaged.
                    self.accelerator.backward(loss.tokens * (world / count) + loss.matrix / chunks)
                if logging:
                    total += torch.stack(
                        (loss.tokens.detach() / count, loss.matrix.detach() / chunks, loss.nll / count)
                    )
        norm = self.accelerator.clip_grad_norm_(self.learner.parameters(), config.optimizer.clip or math.inf)
        self.stepper.step()
        self.stepper.zero_grad()
        if not logging:
            return {}
        if world > 1:
            total = self.accelerator.reduce(total, "sum") / total.new_tensor([1.0, world, 1.0])
        loss_value, matrix, nll = total.tolist()
        _require_finite(loss_value, self.step + 1)
        return {"loss": loss_value, "matrix": matrix, "nll": nll, "norm": float(norm), "lr": rate}

    def _validate(self) -> dict[str, float]:
        config, model = self.config, self.plain.model
        key = (config.seed, self.step)
        settings = config.evaluation
        loss = validation_loss(model, self.validation_ids, self.languages, config.batch.size, settings.batches, key)
        _require_finite(loss, self.step)
        fields = {"loss": loss}
        if self.languages.simulated:
            high, low = self.languages.ids("HR"), self.languages.ids("LR")
            fields["alignment"] = translation_alignment(model.embedding.weight.detach().cpu(), high, low)
        if loss < self.best["loss"]:
            self.best = {"step": self.step, "loss": loss}
            if self.main:
                self.run.require_present()
                write_tensors(self.run.best(self.step), model.state_dict())
        return fields

    def _save(self) -> None:
        if not self.main:
            return
        state = {
            "identity": self.config.identity(),
            "corpus": self.corpus["sha256"],
            "optimizer": self.optimizer.state_dict(),
            "objective": self.plain.objective.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.accelerator.device.type == "cuda" else None,
            "best": self.best,
            "seconds": self.seconds,
        }
        self.run.require_present()
        checkpoint.save(self.run.path, self.step, self.plain.model.state_dict(), state)
        self.run.forget_best(except_step=self.best["step"])

    def _restore(self) -> None:
        folder = checkpoint.latest(self.run.path)
        if folder is None:
            return
        self.step, weights, state = checkpoint.load(folder)
        try:
            if state.get("identity", self.config.identity()) != self.config.identity():
                raise ValueError("it belongs to another configuration")
            if state.get("corpus", self.corpus["sha256"]) != self.corpus["sha256"]:
                raise ValueError(f"the text {self.corpus['name']} has changed since")
            if not 0 < self.step <= self.config.steps:
                raise ValueError(f"it is of step {self.step}")
            self.plain.model.load_state_dict(weights)
            self.plain.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            if self.accelerator.device.type == "cuda" and state.get("random_cuda") is not None:
                torch.cuda.set_rng_state(state["random_cuda"])
            self.best = {"step": int(state["best"]["step"]), "loss": float(state["best"]["loss"])}
            self.seconds = float(state["seconds"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the checkpoint {folder} does not fit this run ({shorten(str(error), 200)}); use another --out"
            ) from None

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
        if self.main:
            delivered = best if self.config.evaluation.select == "best" else model.state_dict()
            write_tensors(self.run.model_path, delivered)
            write_text(self.run.result_path, json.dumps(result, indent=1) + "\n")
            self.run.require_present()
        self.accelerator.wait_for_everyone()
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


def _require_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise ValueError(f"the loss is {loss} at step {step}; lower optimizer.lr or check the method")
