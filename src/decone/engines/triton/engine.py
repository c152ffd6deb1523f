"""The engine as everybody calls it: the contract's function, and the gradients handed to autograd."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from decone.engines.contract import LOSS, Evaluation, Request, Rule, Tokens
from decone.engines.triton.evaluation import Job, Outcome, Wanted, evaluate
from decone.engines.triton.language import check

CHUNK_BYTES = 512 * 2**20  # one chunk of exponentials in the inputs' precision
_ROWS = 16384  # rows of a gradient that are multiplied at a time


def triton(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Tokens,
    rule: Rule,
    request: Request = LOSS,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> Evaluation:
    """Evaluates a rule on an NVIDIA GPU; same arguments and values as `reference`.

    Sums have one order for one choice of tiles: two runs in one process give the same bits. The choice is made by
    timing, once per process; DECONE_TRITON_TILES=0 in the environment (or the place of another candidate) fixes it, and
    the bits with it, for every process on the same kind of GPU.

    The host waits for the device where a rule looks back (sizes of lists), where it charges (pairs of each piece), and
    while tiles are tried at the first call with new sizes; nowhere else.

    Args:
        hidden: hidden states of the counted positions, [N, H].
        weight: output table, [V, H].
        bias: output bias, [V], or None.
        tokens: targets and their places, N of them.
        rule: the objective.
        request: see `Request`.
        chunk_bytes: size of one chunk of exponentials in bytes; the float32 sum of the table's gradient comes on top.

    Returns:
        See `Evaluation`.

    Raises:
        ValueError: the device, the precision or the rule is none for these kernels, or `chunk_bytes` is too small, or
            (in the interpreter; a GPU stops with an assertion, later) a target is no row of the table.
    """
    check(hidden.device)
    if rule.general:
        raise ValueError(
            f"the triton engine has no kernel for {type(rule).__name__} with these settings: its hooks `adjust` and "
            "`extra` see whole rows of logits; pass engine='chunked'"
        )
    _within(tokens.target, weight.size(0))
    result = _Triton.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        hidden,
        weight,
        bias,
        tokens,
        rule,
        request,
        chunk_bytes,
        torch.is_grad_enabled(),
    )
    loss, plain, lse, kept, live = result
    return Evaluation(loss, plain if request.nll else None, *((lse, kept, live) if request.detail else ()))


class _Triton(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tokens,
        rule: Rule,
        request: Request,
        chunk_bytes: int,
        learning: bool,
    ) -> tuple[Tensor, ...]:
        ctx.types = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        hidden, weight, bias = _prepared(hidden, weight, bias)
        N, device = hidden.size(0), hidden.device
        importance = None if tokens.importance is None else tokens.importance.float()
        ctx.importance, ctx.job, ctx.wanted = importance, None, None
        asked = ctx.needs_input_grad[:3] if learning else (False,) * 3
        if N == 0:
            empty = torch.zeros(0, device=device)
            ctx.save_for_backward(*(torch.zeros_like(t) if t is not None else None for t in (hidden, weight, bias)))
            outcome: tuple[Tensor, ...] = (
                empty,
                empty.clone(),
                empty.clone(),
                empty.long(),
                torch.ones((), device=device),
            )
        else:
            prepare = partial(
                Job, tokens=tokens, rule=rule, readout=request.readout, chunk_bytes=chunk_bytes, gate=rule.gate()
            )
            up = torch.ones(N, device=device) if importance is None else importance
            now = Wanted(asked[0], asked[1], asked[2], up) if any(asked) and not request.per_token else None
            with _on(hidden):
                found = evaluate(prepare(hidden, weight, bias), now, request.nll)
            if found.gradients is not None:
                ctx.save_for_backward(*(_waiting(*pair) for pair in zip(found.gradients, ctx.types, strict=True)))
            elif any(asked):
                ctx.job, ctx.wanted = prepare, partial(Wanted, *asked)
                ctx.save_for_backward(hidden, weight, bias)
            outcome = found.loss if importance is None else found.loss * importance, *_beside(found)
        loss = outcome[0]
        ctx.mark_non_differentiable(*outcome[1:])
        return loss if request.per_token else loss.sum(), *outcome[1:]

    @staticmethod
    def backward(ctx: Any, up: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # Gradients made by hand carry no graph: a penalty on them would be left out without a word.
            raise RuntimeError("the triton engine gives no second derivative (create_graph); use engine='reference'")
        if ctx.job is None:
            # An empty batch has no losses to weigh.
            factor = up if up.dim() == 0 else up.sum()
            grads = tuple(map(partial(_times, factor=factor), ctx.saved_tensors, ctx.types))
        else:
            up = up.float() if ctx.importance is None else up.float() * ctx.importance
            with _on(up):
                grads = evaluate(ctx.job(*ctx.saved_tensors), ctx.wanted(up=up.contiguous()), False).gradients or ()
        cast = (None if g is None else g.to(kind) for g, kind in zip(grads, ctx.types, strict=True))
        return (*cast, *[None] * 5)


def _within(target: Tensor, vocabulary: int) -> None:
    """Stops at targets that are no row of the table, on a GPU without waiting for it."""
    inside = ((target >= 0) & (target < vocabulary)).all()
    if target.is_cuda:
        torch._assert_async(inside)
    elif not inside:
        raise ValueError(
            f"targets must be ids from 0 to {vocabulary - 1}, got {int(target.min())} to {int(target.max())}; "
            "leave ignored positions out before the engine is called"
        )


def _beside(found: Outcome) -> tuple[Tensor, ...]:
    return found.nll, found.lse, found.kept, found.live


def _waiting(gradient: Tensor | None, kind: torch.dtype | None) -> Tensor | None:
    """A gradient as it waits for the backward pass; in float16 it would overflow before anybody divides it."""
    return gradient if gradient is None or kind is None or kind == torch.float16 else gradient.to(kind)


def _on(tensor: Tensor) -> AbstractContextManager[None]:
    """Kernels go to the device where torch stands, which need not be that of their tensors."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _times(gradient: Tensor | None, kind: torch.dtype | None, factor: Tensor) -> Tensor | None:
    """The product in float32, rounded once, without a float32 copy of a whole table."""
    if gradient is None:
        return None
    product = torch.empty_like(gradient, dtype=kind)
    for start in range(0, gradient.size(0), _ROWS):
        part = slice(start, start + _ROWS)
        product[part] = gradient[part].float() * factor
    return product


def _prepared(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs as the kernels read them: cast as autocast casts for a product, of one type, contiguous."""
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if hidden.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        name = str(hidden.dtype).removeprefix("torch.")
        raise ValueError(f"the triton engine has no kernels for {name}; cast to float32, or pass engine='chunked'")
    if weight.dtype != hidden.dtype:
        raise ValueError(f"hidden is {hidden.dtype} and weight {weight.dtype}; cast one, or call in torch.autocast")
    return hidden.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
