"""One chunk of logits as they are, token-major: for rules that need autograd, and for numbers that exp cannot take.

Declarative rules have a closed gradient here as well; what sends them here is a chunk in which a logit lies so far
above the target's that its exponential overflows, or is no number.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from decone.engines.contract import Tokens, apply_rule, position_costs, upcast
from decone.engines.job import Found, Job, Sums, low_product, tokens_of


def absolute(job: Job, part: slice, up: Tensor | None, found: Found, sums: Sums | None) -> None:
    """Writes a chunk's losses and adds its gradients.

    Args:
        job: the call.
        part: positions of the chunk, n of them.
        up: gradient that came for each loss of the chunk, importance included, [n]; None for ones.
        found: where losses go.
        sums: where gradients go, None if there are none to make.
    """
    slope = _slope(job, part, up, found, sums)
    if sums is not None and slope is not None:
        _multiply(job, part, slope, sums)


def _slope(job: Job, part: slice, up: Tensor | None, found: Found, sums: Sums | None) -> Tensor | None:
    """Gradient of the logits of the large product; the logits themselves are gone when it returns."""
    logits = job.readout(upcast(F.linear(job.hidden[part], job.weight, job.bias)))
    if found.nll is not None:
        found.nll[part] = logits.logsumexp(1) - logits.gather(1, job.tokens.target[part, None]).squeeze(1)
    found.touched += logits.numel()
    readout = None
    if sums is not None and (job.readout.softcap is not None or job.readout.scale != 1.0):
        readout = job.readout.slope(logits)
    slope = (_general if job.rule.general else _closed)(job, part, logits, up, found, sums)
    return slope if slope is None or readout is None else slope.mul_(readout)


def _closed(job: Job, part: slice, logits: Tensor, up: Tensor | None, found: Found, sums: Sums | None) -> Tensor | None:
    """Declarative rules: softmax over what is kept, minus one at the target."""
    tokens = tokens_of(job, part)
    target = tokens.target[:, None]
    logits = apply_rule(job.rule, logits, tokens, in_place=True)
    logprob = logits.log_softmax(1)
    _write(found, part, logits, -logprob.gather(1, target).squeeze(1))
    charge = _charge(job, part, logprob, tokens, found, sums is not None) if job.rule.history else None
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
    return dz if up is None else dz.mul_(up[:, None])


def _charge(
    job: Job, part: slice, logprob: Tensor, tokens: Tokens, found: Found, learning: bool
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Adds the charge for earlier tokens to the loss; gives its slope per pair and the sum of slopes per position."""
    pairs = tokens.pairs()
    entry = pairs.position * logprob.size(1) + pairs.token
    with torch.set_grad_enabled(learning):
        leaf = logprob.view(-1)[entry].requires_grad_(learning)
        cost = job.rule.charge(leaf, pairs)
    if cost is None:
        return None
    found.loss[part] += found.loss.new_zeros(tokens.target.numel()).index_add_(0, pairs.position, cost.detach())
    if not learning:
        return None
    (slope,) = torch.autograd.grad(cost, leaf, torch.ones_like(cost))
    return entry, slope, slope.new_zeros(tokens.target.numel()).index_add_(0, pairs.position, slope)


def _general(
    job: Job, part: slice, logits: Tensor, up: Tensor | None, found: Found, sums: Sums | None
) -> Tensor | None:
    """Any rule, by autograd on the chunk; what flows past the logits goes straight to the sums."""
    learning = sums is not None
    with torch.set_grad_enabled(learning):
        tokens = tokens_of(job, part, learning)
        leaves = [logits.detach().requires_grad_(learning)]
        leaves += [v for v in (tokens.hidden, tokens.target_row) if v is not None]
        kept = apply_rule(job.rule, leaves[0], tokens)
        logprob = kept.log_softmax(1)
        each = -logprob.gather(1, tokens.target[:, None]).squeeze(1)
        _write(found, part, kept.detach(), each.detach())
        for cost in (position_costs(job.rule, logprob, tokens), job.rule.extra(logprob, tokens)):
            each = each if cost is None else each + cost
    found.loss[part] = each.detach()
    if sums is None:
        return None
    weights = torch.ones_like(each) if up is None else up.to(each.dtype)
    grads = torch.autograd.grad(each, leaves, weights, allow_unused=True)
    if len(grads) == 3 and grads[1] is not None and sums.hidden is not None:
        sums.hidden[part] += grads[1]
    if len(grads) == 3 and grads[2] is not None and sums.table is not None:
        sums.table.index_add_(0, tokens.target, grads[2])
    return grads[0] if grads[0] is not None else torch.zeros_like(logits)


def _write(found: Found, part: slice, logits: Tensor, loss: Tensor) -> None:
    found.loss[part] = loss
    if found.lse is not None and found.kept is not None:
        found.lse[part] = logits.logsumexp(1)
        found.kept[part] = (logits > -math.inf).sum(1)


def _multiply(job: Job, part: slice, slope: Tensor, sums: Sums) -> None:
    """The two large products of a chunk."""
    hidden, target = job.hidden[part], job.tokens.target[part]
    if sums.hidden is not None:
        sums.hidden[part] += low_product(slope, job.weight)
    if job.gate is None:
        if sums.table is not None:
            sums.table += low_product(slope.T, hidden)
        if sums.bias is not None:
            sums.bias += slope.sum(0)
        return
    # A gate factor depends only on the row and on the class of the target, which is one for the whole chunk. The
    # target's own entry is never gated, so it takes the direct way.
    own = slope.gather(1, target[:, None])
    factor = (job.gate.on_rare if job.gate.rare[target[0]] else job.gate.on_common).to(slope.dtype)
    slope.scatter_(1, target[:, None], 0.0)
    if sums.table is not None:
        sums.table.index_add_(0, target, own * upcast(hidden))
        sums.table.addcmul_(low_product(slope.T, hidden), factor[:, None])
    if sums.bias is not None:
        sums.bias.index_add_(0, target, own.squeeze(1))
        sums.bias.addcmul_(slope.sum(0), factor)
