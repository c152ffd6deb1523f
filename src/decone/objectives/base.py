"""Base of the training objectives: a few hooks on one chunk of logits, and three numbers with three normalisers.

An objective overrides the hooks it needs and nothing else. State (counters, windows) lives in buffers, so that it is
saved and resumed with the model. The hooks are called in a fixed order, see `engines.contract`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn

from decone.engines import select
from decone.engines.contract import PLAIN, Engine, Evaluation, Gate, Pairs, Readout, Request, Shift, Tokens
from decone.files.foreign import quoted


@dataclass
class Loss:
    """A loss as three numbers that must be divided by three different things.

    Attributes:
        tokens: sum over counted targets (with `reduction="none"`: one value per target, 0 where ignored). Divide by
            the number of counted targets of the whole optimiser step, over all micro-batches and processes.
        count: number of counted targets in this call, int64 scalar.
        matrix: penalty on the table itself, scalar; goes into an optimiser step once.
        nll: plain negative log-likelihood, summed, detached; for logs, never for the optimiser. None if not asked for.
        lse: log of the sum of exponentials over the logits that the objective did not drop, in the shape of target, 0
            where ignored; detached. None if not asked for, and so are the next two.
        support: number of logits that were not dropped, in the shape of target, 0 where ignored.
        live: share of the table's rows that the gradient's products had to touch.
    """

    tokens: Tensor
    count: Tensor
    matrix: Tensor
    nll: Tensor | None
    lse: Tensor | None = None
    support: Tensor | None = None
    live: Tensor | None = None

    def mean(self) -> Tensor:
        """The loss of the simple case, one call per optimiser step: tokens / count + matrix."""
        return self.tokens.sum() / self.count.clamp(min=1) + self.matrix


class Objective(nn.Module):
    """Base of all objectives; without overrides it is plain cross-entropy.

    Class attributes:
        paper: where the method comes from, one line.
        cures: the symptom it is for, a few words.
        cost: extra cost against plain cross-entropy, a few words.
        identity: constructor settings at which the method is plain cross-entropy, None if there are none.
        citation: BibTeX of the paper.
        renamed: settings by a name they had before, with the present one; methods of earlier runs have it.
        history: the hooks use earlier targets (`shift`, `charge`, `Tokens.pairs`, `Tokens.earlier_mask`).
        whole_batch: history goes through the batch as if it were one sequence.
        vectors: the hooks use `Tokens.hidden` and `Tokens.target_row`.

    Attributes:
        processes: the process group whose targets make one optimiser step, for counters; None for all processes. Set
            it where some processes see the same targets, as under tensor parallelism.
    """

    paper: ClassVar[str] = ""
    cures: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    identity: ClassVar[dict[str, Any] | None] = None
    citation: ClassVar[str] = ""
    renamed: ClassVar[dict[str, str]] = {}
    history: bool = False
    whole_batch: bool = False
    vectors: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._observed = False  # inside `step`
        self._unrecorded = 0  # training calls without gradients that a checkpoint may repeat in its backward pass
        self.processes: distributed.ProcessGroup | None = None

    @property
    def general(self) -> bool:
        """True if `adjust` or `extra` is overridden: an engine must then differentiate the chunk by autograd."""
        return type(self).adjust is not Objective.adjust or type(self).extra is not Objective.extra

    def prepare(self, vocabulary: int) -> None:
        """Makes counters for a vocabulary; called before the first target is observed, and harmless afterwards."""

    def observe(self, target: Int[Tensor, " N"]) -> None:
        """Updates counters with the counted targets of one optimiser step."""

    def scale(self) -> float:
        """Factor on every logit, before anything else."""
        return 1.0

    def shift(self) -> Shift | None:
        """Constants added to the logits of seen and of novel tokens."""
        return None

    def adjust(self, logits: Float[Tensor, "n V"], tokens: Tokens) -> Float[Tensor, "n V"]:
        """Any other change of logits, given targets; differentiated by autograd on the chunk."""
        return logits

    def floor(self, target_logit: Float[Tensor, " n"], tokens: Tokens) -> Float[Tensor, " n"] | None:
        """Logits below this are dropped: probability zero, gradient exactly zero. The target is never dropped."""
        return None

    def charge(self, logprob: Float[Tensor, " P"], pairs: Pairs) -> Float[Tensor, " P"] | None:
        """Cost of each token seen earlier, from its log-probability alone; see `Pairs` for whose they are.

        Added to the position. Only these P numbers are differentiated by autograd, the rest has a closed gradient.
        """
        return None

    def extra(self, logprob: Float[Tensor, "n V"], tokens: Tokens) -> Float[Tensor, " n"] | None:
        """Cost added to each position, from the log-probabilities."""
        return None

    def gate(self) -> Gate | None:
        """Scales the gradient that reaches rows of the table; hidden states get all of it."""
        return None

    def matrix(self, weight: Float[Tensor, "V H"]) -> Float[Tensor, ""]:
        """Penalty on the table, once per optimiser step."""
        return weight.new_zeros(())

    @contextmanager
    def step(self, target: Int[Tensor, "..."], ignore_index: int = -100) -> Iterator[None]:
        """Observes the targets of a whole optimiser step once, before its micro-batches are evaluated inside.

        Without it, every training call is a step of its own and observes its targets, which is right for one call per
        step. Nothing is observed in evaluation, without gradients, or when activation checkpointing repeats a call. An
        objective with counters needs `prepare` to have been called, or one evaluation before.
        """
        outer, self._observed = self._observed, True
        try:
            if self.training and torch.is_grad_enabled() and not outer:
                self.observe(target[target != ignore_index])
            yield
        finally:
            self._observed = outer

    def forward(
        self,
        hidden: Float[Tensor, "... H"],
        weight: Float[Tensor, "V H"],
        target: Int[Tensor, "..."],
        *,
        bias: Float[Tensor, " V"] | None = None,
        ignore_index: int = -100,
        document: Int[Tensor, "..."] | None = None,
        importance: Float[Tensor, "..."] | None = None,
        readout: Readout = PLAIN,
        engine: str | Engine = "auto",
        reduction: str = "sum",
        nll: bool = True,
        detail: bool = False,
    ) -> Loss:
        """Evaluates the objective.

        Args:
            hidden: last hidden states, [..., H].
            weight: output table, [V, H]; may be the input table (tied).
            target: token ids, [...]; the last axis is the sequence. Already shifted: target t belongs to hidden t.
            bias: output bias, [V].
            ignore_index: targets of this value count for nothing.
            document: document of each position, [...], where several are packed into one sequence.
            importance: factor on the loss of each target, [...]; divide by what suits, `count` counts targets.
            readout: what the model does to its logits: a scale, a softcap.
            engine: a name, see `engines.select.choose`, or an engine.
            reduction: "sum", or "none" for one loss per target.
            nll: also compute the plain NLL for logs.
            detail: also return the log-sum-exp and the number of logits not dropped per target, and the live share.

        Returns:
            The three numbers; `loss.mean().backward()` in the simple case.

        Raises:
            ValueError: shapes do not fit, or a target is outside the vocabulary.

        Example:
            >>> from decone.objectives import MLE
            >>> hidden, weight = torch.zeros(2, 3, 4), torch.zeros(8, 4)
            >>> MLE()(hidden, weight, torch.tensor([[1, 2, -100], [3, -100, -100]])).mean()
            tensor(2.0794)
        """
        _check(hidden, weight, target, bias, document, importance, readout, reduction)
        flat = target.reshape(-1)
        counted = flat != ignore_index
        # Asking stalls a GPU once or twice; indexing by booleans would do it for every tensor.
        index = None if bool(counted.all()) else counted.nonzero().squeeze(1)
        tokens = self._tokens(target, document, importance, index)
        if flat.device.type == "cpu" and tokens.target.numel():
            low, high = int(tokens.target.min()), int(tokens.target.max())
            if low < 0 or high >= weight.size(0):
                raise ValueError(
                    f"target {low if low < 0 else high} is outside the vocabulary of {weight.size(0)}; "
                    f"mark positions that do not count with ignore_index ({ignore_index})"
                )
        self.prepare(weight.size(0))
        self._observe_call(tokens.target)
        rows = hidden.reshape(-1, hidden.size(-1))
        request = Request(per_token=reduction == "none", nll=nll, detail=detail, readout=readout)
        rows = rows if index is None else rows.index_select(0, index)
        evaluator = select.get(engine, rows, weight, self)
        result = self.evaluate(rows, weight, bias, tokens, engine=evaluator, request=request)

        def scatter(values: Tensor) -> Tensor:
            return values.new_zeros(flat.shape).masked_scatter(counted, values).view_as(target)

        matrix = self.matrix(weight)
        if hasattr(matrix, "full_tensor"):  # of a table that is cut over ranks
            matrix = matrix.full_tensor()
        return Loss(
            tokens=scatter(result.loss) if request.per_token else result.loss,
            count=counted.sum(),
            matrix=matrix,
            nll=None if result.nll is None else result.nll.sum(),
            lse=None if result.lse is None else scatter(result.lse),
            support=None if result.support is None else scatter(result.support),
            live=result.live,
        )

    def _observe_call(self, target: Int[Tensor, " N"]) -> None:
        """Observes the targets of a call outside `step`, once, and only if it trains."""
        if not self.training:
            return
        recorded, counts = torch.is_grad_enabled(), not self._observed
        if torch._C._current_graph_task_id() == -1:  # no backward pass is under way
            self._unrecorded = self._unrecorded + counts if not recorded else 0
        else:  # activation checkpointing calls again; it is new only if the first call recorded no gradients
            counts, self._unrecorded = counts and self._unrecorded > 0, max(0, self._unrecorded - 1)
        if counts and recorded:
            self.observe(target)

    def evaluate(
        self,
        hidden: Float[Tensor, "N H"],
        weight: Float[Tensor, "V H"],
        bias: Float[Tensor, " V"] | None,
        tokens: Tokens,
        *,
        engine: Engine,
        request: Request,
    ) -> Evaluation:
        """Evaluates the counted targets on an engine; overridden where a loss is no rule on one position's logits."""
        return engine(hidden, weight, bias, tokens, self, request)

    def _tokens(
        self, target: Tensor, document: Tensor | None, importance: Tensor | None, counted: Tensor | None
    ) -> Tokens:
        """The targets with their sequence and offset; `counted` are the indices of those that are not ignored."""
        T = target.size(-1) if target.dim() and not self.whole_batch else max(1, target.numel())
        index = torch.arange(target.numel(), device=target.device)
        sequence, offset = index // T, index % T
        flat = target.reshape(-1)
        if self.history and not self.whole_batch and document is not None:
            # A packed document is a sequence of its own; order inside it is all that `Tokens.offset` is compared for.
            pairs = torch.stack((sequence, document.reshape(-1)), 1)
            sequence = torch.unique(pairs, dim=0, return_inverse=True)[1]
        factor = None if importance is None else importance.reshape(-1)
        if counted is None:
            return Tokens(flat, sequence, offset, importance=factor)
        factor = None if factor is None else factor[counted]
        return Tokens(flat[counted], sequence[counted], offset[counted], importance=factor)


def _check(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    document: Tensor | None,
    importance: Tensor | None,
    readout: Readout,
    reduction: str,
) -> None:
    if hidden.shape[:-1] != target.shape:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} needs a target of shape {tuple(hidden.shape[:-1])}, got "
            f"{tuple(target.shape)}; shift both so that target t belongs to hidden t"
        )
    if weight.dim() != 2 or weight.size(1) != hidden.size(-1):
        raise ValueError(f"weight {tuple(weight.shape)} must be [V, {hidden.size(-1)}] to fit hidden; pass the table")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {tuple(bias.shape)} must be [{weight.size(0)}], one number per row of weight")
    kinds = {str(t.dtype).removeprefix("torch.") for t in (hidden, weight, bias) if t is not None}
    if len(kinds) > 1 and not torch.is_autocast_enabled(hidden.device.type):
        raise ValueError(
            f"hidden, weight and bias mix {', '.join(sorted(kinds))}; cast them, or call in torch.autocast"
        )
    if target.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"target holds {target.dtype}; token ids are whole numbers, pass target.long()")
    if document is not None and document.shape != target.shape:
        raise ValueError(f"document {tuple(document.shape)} must have the shape of target {tuple(target.shape)}")
    if importance is not None and (importance.shape != target.shape or not importance.is_floating_point()):
        raise ValueError(f"importance {tuple(importance.shape)} must hold one floating number per target")
    if importance is not None and importance.requires_grad:
        raise ValueError("importance is a constant factor and gets no gradient; pass importance.detach()")
    if not isinstance(readout, Readout):
        raise ValueError(f"readout {quoted(readout)} must be a Readout; for a softcap pass Readout(softcap=...)")
    if not hidden.is_floating_point():
        raise ValueError(f"hidden holds {hidden.dtype}; hidden states are floating numbers, pass hidden.float()")
    if reduction not in ("sum", "none"):
        raise ValueError(f"unknown reduction {quoted(reduction)}; choose 'sum' (and loss.mean()) or 'none'")


def require_finite(name: str, value: float, hint: str) -> None:
    """Refuses a setting that is negative, infinite or no number.

    Raises:
        ValueError: with the name, the value and a hint on what to choose.
    """
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 or more and finite, got {value}; {hint}")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a setting that is none of the choices.

    Raises:
        ValueError: with the name, the value and the choices.
    """
    if value not in choices:
        raise ValueError(f"unknown {name} {quoted(value)}; choose {', '.join(choices[:-1])} or {choices[-1]}")
