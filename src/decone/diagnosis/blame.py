"""The gradient microscope: pull and push on each row of the output table.

Turumtaev, "Stop Jostling", Section 4.2 and Figure 3. The gradient of row i has three parts:

    g1    through the input table, where i is context      context alignment
    g2    from positions whose target is i                 target alignment
    g3    from all other positions                         marginalisation

The paper averages over a training run. Here the weights stay as they are, dropout is off, and the averages are over
batches of a text: what would move the rows if training went on from here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn import functional as F

from decone.data.corpora import read_text
from decone.data.tokens import Languages, random_batch
from decone.diagnosis.result import Blame, BlameRow
from decone.engines.contract import Tokens, apply_rule, position_costs, upcast
from decone.frequencies import frequencies, token_texts
from decone.metrics.gradients import pull_push_norms, pull_to_push
from decone.models.find_tables import find_tables
from decone.models.huggingface import HuggingFaceModel
from decone.models.load import first_line, is_run
from decone.objectives import MLE, Objective
from decone.training import checkpoint
from decone.training.config import Method
from decone.training.machine import resolve_device
from decone.training.run import Run

STREAM = 2  # of randomness; training and validation have 0 and 1
PUSHERS = ("frequent", "medium", "rare")  # classes of targets; all other targets are one more class
WINDOWS, CONTEXT = 8, 128  # a batch of a Hugging Face model, at most
LOGITS = 1 << 27  # and at most so many logits at once, 512 MiB in float32
TOKEN_LENGTH = 200  # characters of a token


class ForwardPass(NamedTuple):
    """Outputs of a model on a batch, still on its graph: [B, T, H], hidden @ table.T (+ bias), and the final logits."""

    hidden: Float[Tensor, "B T H"]
    product: Float[Tensor, "B T V"]
    logits: Float[Tensor, "B T V"]


class Slopes(NamedTuple):
    """Gradients of a batch: hidden states, gradient of the products as it reaches the table, and of the input table."""

    hidden: Float[Tensor, "N H"]
    product: Float[Tensor, "N V"]
    input: Float[Tensor, "V D"]


class GradientNorms(NamedTuple):
    """Lengths of g1, g2 and g3 of each row by step; g3 by class of target as mean; how often a row was a target."""

    input: Float[Tensor, "S V"]
    pull: Float[Tensor, "S V"]
    push: Float[Tensor, "S V"]
    by_class: Float[Tensor, "C V"]
    targets: Int64[Tensor, " V"]


@dataclass(frozen=True)
class GradientModel:
    """A model under the microscope, the text's ids, and the windows that make one batch.

    Attributes:
        embedding: input table, the only tensor that needs a gradient.
        table: output table.
        forward_pass: runs the model on ids [B, T].
    """

    embedding: Tensor
    table: Tensor
    forward_pass: Callable[[Tensor], ForwardPass]
    objective: Objective
    ids: Tensor
    context: int
    windows: int
    languages: Languages


def measure_blame(
    model: str,
    text: Path,
    *,
    counts: Path | None = None,
    steps: int = 20,
    device: str = "auto",
    seed: int = 0,
    limit: int = 200,
) -> Blame:
    """Measures the parts of the gradient of every row of the output table, on random windows of a text.

    A decone run is looked at through its own objective (penalties on the table itself are left out: no token causes
    them), in batches as large as those of its training and in the same mixture of languages; a Hugging Face model
    through plain cross-entropy, on at most 8 windows of 128 tokens. Gradients are those of the mean loss over the
    targets of a batch; norms depend on its size.

    Note:
        g1 moves the same row as the other parts only where the tables are tied. In an untied model it is the gradient
        of the token's row of the *input* table.

    Args:
        model: folder of a decone run, or folder or hub name of a Hugging Face causal model.
        text: UTF-8 file; also counted for the frequency groups where there are no other counts.
        counts: file of token frequencies.
        steps: batches, each standing for one optimiser step.
        device: as on the command line.
        seed: of the windows.
        limit: most rows listed; the groups share it equally, each evenly over its frequencies, most frequent first.

    Returns:
        Ratios over the rows of all groups together and by group ("special" too). By row the mean norms; `count` is how
        often the token was a target in these batches, and targets of no frequency group push in `push` alone.

    Raises:
        ValueError: the model or the text cannot be read, the text is shorter than one window, the objective or the
            output of the model cannot be taken apart, or gradients are not finite.
    """
    if steps < 1 or limit < 0:
        raise ValueError(f"steps must be 1 or more and limit 0 or more, not {steps} and {limit}")
    content, target_device = read_text(text), resolve_device(device)
    prepare = run_subject if is_run(model) else hugging_face_subject
    subject = prepare(model, content, target_device)
    if len(subject.ids) < subject.context + 1:
        raise ValueError(
            f"{text} has {len(subject.ids)} tokens, one window needs {subject.context + 1}; give a longer text"
        )
    model_tables = find_tables(model)
    token_frequencies, tokens = frequencies(model_tables, content, counts), token_texts(model_tables)
    norms = measure(subject, token_frequencies.groups, steps, seed)
    everywhere = {"all": torch.cat(list(token_frequencies.groups.values())), **token_frequencies.groups}
    ratios = {
        name: pull_to_push(norms.input[:, ids] + norms.pull[:, ids], norms.push[:, ids])
        for name, ids in everywhere.items()
    }
    listed = _listed(token_frequencies.groups, token_frequencies.rank, limit)
    return Blame(
        steps=steps,
        tokens=int(norms.targets.sum()),
        ratio_of_average={name: ratio.of_average for name, ratio in ratios.items()},
        average_of_ratio={name: ratio.average_of for name, ratio in ratios.items()},
        rows=[_row(norms, id, tokens[id], group) for group, ids in listed.items() for id in ids],
    )


def measure(subject: GradientModel, groups: Mapping[str, Int64[Tensor, " M"]], steps: int, seed: int) -> GradientNorms:
    """Takes the gradients of some batches apart; ValueError as of `slopes`, or when a gradient is not finite."""
    size, device = subject.table.size(0), subject.table.device
    kind = torch.full((size,), len(PUSHERS))
    for index, name in enumerate(PUSHERS):
        kind[groups[name]] = index
    kind = kind.to(device)
    targets = torch.zeros(size, dtype=torch.long)
    by_class = torch.zeros(len(PUSHERS), size, dtype=torch.float64)
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(steps):
        key = (seed, STREAM, step)
        batch = random_batch(subject.ids, subject.context, subject.windows, subject.languages, key).to(device)
        target = batch[:, 1:].flatten()
        gradient = slopes(subject, batch)
        norms = pull_push_norms(gradient.product, gradient.hidden, target, kind, len(PUSHERS) + 1)
        rows.append((gradient.input.norm(dim=1).cpu(), norms.pull.cpu(), norms.push.cpu()))
        if not all(bool(lengths.isfinite().all()) for lengths in rows[-1]):
            raise ValueError("the model's gradients are not finite; look for NaN in its weights, or try another text")
        by_class += norms.push_by_class[: len(PUSHERS)].cpu().double() / steps
        targets += torch.bincount(target.cpu(), minlength=size)
    through, pull, push = (torch.stack(column) for column in zip(*rows, strict=True))
    return GradientNorms(through, pull, push, by_class, targets)


def slopes(subject: GradientModel, batch: Int[Tensor, "B U"]) -> Slopes:
    """Gradients of the mean loss of windows whose inputs are [:, :-1] and targets [:, 1:].

    Raises:
        ValueError: the objective sends gradient to the table past the logits.
    """
    forward, target = subject.forward_pass(batch[:, :-1]), batch[:, 1:]
    hidden, flat = forward.hidden.detach().flatten(0, 1), target.flatten()
    slope = _logit_slope(subject.objective, forward.logits.detach().flatten(0, 1), hidden, subject.table, target)
    slope = slope.view_as(forward.logits).to(forward.logits.dtype)
    product, back = torch.autograd.grad(forward.logits, (forward.product, forward.hidden), slope)
    (through,) = torch.autograd.grad(forward.hidden, subject.embedding, back)
    product, gate = product.flatten(0, 1), subject.objective.gate()
    if gate is not None:  # hidden states heard all of it, the table hears less
        factor = torch.where(gate.rare[flat, None], gate.on_rare, gate.on_common).to(product)
        product = product * factor.scatter(1, flat[:, None], 1.0)
    return Slopes(hidden, product, through)


def _logit_slope(objective: Objective, logits: Tensor, hidden: Tensor, table: Tensor, target: Tensor) -> Tensor:
    flat, index = target.flatten(), torch.arange(target.numel(), device=target.device)
    length = target.numel() if objective.whole_batch else target.size(1)
    tokens = Tokens(flat, index // length, index % length)
    if objective.history:
        tokens = tokens.with_earlier(table.size(0))
    with torch.enable_grad():
        leaf = upcast(logits).requires_grad_()
        past = [upcast(v.detach()).clone().requires_grad_() for v in (hidden, table[flat]) if objective.vectors]
        tokens = tokens.select(slice(None), *past)
        logprob = apply_rule(objective, leaf, tokens).log_softmax(1)
        loss = -logprob.gather(1, flat[:, None]).squeeze(1)
        extra = objective.extra(logprob, tokens) if objective.general else None
        for cost in (position_costs(objective, logprob, tokens), extra):
            loss = loss if cost is None else loss + cost
        slope, *past_slopes = torch.autograd.grad(loss.mean(), (leaf, *past), allow_unused=True)
    if any(past_slope is not None and bool(past_slope.any()) for past_slope in past_slopes):
        raise ValueError(_mixed(objective, "sends gradient to the table past the logits"))
    assert slope is not None
    return slope


def _mixed(objective: Objective, why: str) -> str:
    name = type(objective).__name__
    return f"{name} {why}, which cannot be split into pull and push; look at a run of another method with --blame"


def run_subject(model: str, content: str, device: torch.device) -> GradientModel:
    """A decone run with its own objective; ValueError when it is not done or its objective cannot be taken apart."""
    run = Run.open(Path(model))
    nano, tokenizer, config = run.model().to(device).requires_grad_(False), run.tokenizer(), run.config
    assert tokenizer is not None  # run.model() has checked
    nano.embedding.weight.requires_grad_()
    objective = Method.parse(config.method).build_objective()
    if type(objective).evaluate is not Objective.evaluate or type(objective).forward is not Objective.forward:
        raise ValueError(_mixed(objective, "evaluates the loss in its own way"))
    objective.prepare(nano.vocabulary)
    if objective.state_dict():  # counters decide what reaches the table
        folder = checkpoint.latest(run.path)
        if folder is None:
            raise ValueError(f"{run.path} holds no checkpoint with the counters of its method; train the run again")
        try:
            objective.load_state_dict(checkpoint.load(folder)[2]["objective"])
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            reason = first_line(error)
            raise ValueError(f"the checkpoint {folder} does not fit this run ({reason}); train the run again") from None

    def forward_pass(inputs: Tensor) -> ForwardPass:
        hidden = nano(inputs)
        product = F.linear(hidden, nano.head)
        return ForwardPass(hidden, product, product)

    languages = Languages(tokenizer.size, config.language.low_resource)
    ids, windows = tokenizer.encode(content), config.batch.size * config.batch.accumulate
    objective = objective.to(device).eval()
    return GradientModel(
        nano.embedding.weight, nano.head, forward_pass, objective, ids, nano.context, windows, languages
    )


def hugging_face_subject(model: str, content: str, device: torch.device) -> GradientModel:
    """A Hugging Face causal model in float32 with plain cross-entropy; ValueError when its head is no plain table."""
    wrapped = HuggingFaceModel(model, device)
    inner: Any = wrapped.model.requires_grad_(False)
    if wrapped.head.dtype in (torch.float16, torch.bfloat16):
        inner.float()  # probabilities over the number of targets vanish in half precision
    head, embedding = inner.get_output_embeddings(), inner.get_input_embeddings().weight.requires_grad_()
    table = head.weight.detach()

    def forward_pass(inputs: Tensor) -> ForwardPass:
        passed: list[tuple[Tensor, Tensor]] = []
        # The model's own path from the products to the logits stays in the graph between this hook and its answer.
        hook = head.register_forward_hook(lambda module, arguments, product: passed.append((arguments[0], product)))
        try:
            logits: Tensor = inner(input_ids=inputs).logits
        finally:
            hook.remove()
        shape = (*inputs.shape, table.size(0))
        if len(passed) != 1 or passed[0][1].shape != shape or passed[0][0].shape != (*inputs.shape, table.size(1)):
            raise ValueError(f"{model} makes its logits by more than one table; --blame knows models with one")
        return ForwardPass(*passed[0], logits)

    V, context = table.size(0), min(wrapped.context, CONTEXT)
    windows = max(1, min(WINDOWS, LOGITS // (V * context)))
    ids, _ = wrapped.spans(content)
    return GradientModel(
        embedding, table, forward_pass, MLE().to(device).eval(), ids, context, windows, Languages(V, 0.0)
    )


def _row(norms: GradientNorms, id: int, token: str, group: str) -> BlameRow:
    through, pull, push = (float(lengths[:, id].double().mean()) for lengths in norms[:3])
    frequent, medium, rare = norms.by_class[:, id].tolist()
    return BlameRow(
        id=id,
        token=token[:TOKEN_LENGTH],
        group=group,
        count=int(norms.targets[id]),
        pull=pull,
        input=through,
        push_frequent=frequent,
        push_medium=medium,
        push_rare=rare,
        push=push,
    )


def _listed(groups: Mapping[str, Int64[Tensor, " M"]], rank: Int64[Tensor, " V"], limit: int) -> dict[str, list[int]]:
    selection, remaining = {}, limit
    for done, (name, ids) in enumerate(sorted(groups.items(), key=lambda item: len(item[1]))):
        take = min(len(ids), remaining // (len(groups) - done))
        indices = torch.linspace(0, len(ids) - 1, take, dtype=torch.float64).round().long()
        selection[name], remaining = ids[rank[ids].argsort()][indices].tolist(), remaining - take
    return {name: selection[name] for name in groups}
