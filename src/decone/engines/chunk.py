"""One chunk of logits: its losses and the gradient of its logits, by a closed form or by autograd on the chunk."""

from dataclasses import dataclass

import torch
from torch import Tensor

from decone.engines.contract import Gate, Rule, Tokens, charged, ruled, wide


@dataclass
class Sums:
    """Gradients under construction."""

    hidden: Tensor
    table: Tensor
    bias: Tensor | None


@dataclass
class Job:
    """One call's inputs, in the precision of the large products."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    tokens: Tokens
    rule: Rule
    chunk: int
    gate: Gate | None


def closed(job: Job, part: slice, logits: Tensor, loss: Tensor, up: Tensor | None, sums: Sums | None) -> Tensor | None:
    """Loss and logit gradient of declarative rules: softmax over what is kept, minus one at the target."""
    tokens = _tokens(job, part)
    target = tokens.target[:, None]
    logprob = ruled(job.rule, logits, tokens, own=True).log_softmax(1)
    loss[part] = -logprob.gather(1, target).squeeze(1)
    charge = _charge(job, part, logprob, tokens, loss, sums is not None) if job.rule.history else None
    if sums is None:
        return None
    dz = logprob.exp_()
    if charge is not None:
        # d sum_c f(log p_c) / dz = f'(log p_c) at each c, minus p times the sum of all f'.
        entry, slope, total = charge
        dz *= 1 - total[:, None]
        dz.view(-1).index_add_(0, entry, slope)
    dz.scatter_add_(1, target, dz.new_full((1, 1), -1.0).expand_as(target))
    if job.rule.scale() != 1.0:
        dz *= job.rule.scale()
    return dz if up is None else dz.mul_(up[part, None])


def _charge(
    job: Job, part: slice, logprob: Tensor, tokens: Tokens, loss: Tensor, learning: bool
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Adds the charge for earlier tokens to the loss; gives its slope per pair and the sum of slopes per position."""
    pairs = tokens.pairs()
    entry = pairs.position * logprob.size(1) + pairs.token
    with torch.set_grad_enabled(learning):
        leaf = logprob.view(-1)[entry].requires_grad_(learning)
        cost = job.rule.charge(leaf, pairs)
    if cost is None:
        return None
    loss[part] += loss.new_zeros(tokens.target.numel()).index_add_(0, pairs.position, cost.detach())
    if not learning:
        return None
    (slope,) = torch.autograd.grad(cost, leaf, torch.ones_like(cost))
    return entry, slope, slope.new_zeros(tokens.target.numel()).index_add_(0, pairs.position, slope)


def general(job: Job, part: slice, logits: Tensor, loss: Tensor, up: Tensor | None, sums: Sums | None) -> Tensor | None:
    """Loss and logit gradient by autograd on the chunk; what flows past the logits goes straight to the sums."""
    learning = sums is not None
    with torch.set_grad_enabled(learning):
        tokens = _tokens(job, part, learning)
        leaves = [logits.detach().requires_grad_(learning)]
        leaves += [v for v in (tokens.hidden, tokens.target_row) if v is not None]
        logprob = ruled(job.rule, leaves[0], tokens).log_softmax(1)
        each = -logprob.gather(1, tokens.target[:, None]).squeeze(1)
        for cost in (charged(job.rule, logprob, tokens), job.rule.extra(logprob, tokens)):
            each = each if cost is None else each + cost
    loss[part] = each.detach()
    if sums is None:
        return None
    weights = torch.ones_like(each) if up is None else up[part].to(each.dtype)
    grads = torch.autograd.grad(each, leaves, weights, allow_unused=True)
    if len(grads) == 3 and grads[1] is not None:
        sums.hidden[part] += grads[1]
    if len(grads) == 3 and grads[2] is not None:
        sums.table.index_add_(0, tokens.target, grads[2])
    return grads[0] if grads[0] is not None else torch.zeros_like(logits)


def _tokens(job: Job, part: slice, learning: bool = False) -> Tokens:
    if not job.rule.vectors:
        return job.tokens.part(part)
    hidden, row = wide(job.hidden[part]).detach(), wide(job.weight[job.tokens.target[part]]).detach()
    return job.tokens.part(part, hidden.requires_grad_(learning), row.requires_grad_(learning))
