"""One chunk of logits as they are, token-major: for rules that need autograd, and for numbers that exp cannot take.

Declarative rules have a closed gradient here as well; they come here with a chunk in which a logit lies so far above
the target's that its exponential overflows, or is no number.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from decone.engines.contract import Tokens, apply_rule, position_costs, upcast
from decone.engines.sweep import SweepGradients, SweepLosses, TableInputs, low_product


def accumulate_dense(
    inputs: TableInputs,
    positions: slice,
    up: Tensor | None,
    factor: Tensor | None,
    losses: SweepLosses,
    gradients: SweepGradients | None,
) -> None:
    """Writes a chunk's losses and adds its gradients.

    Args:
        inputs: of the sweep.
        positions: of the chunk, n of them.
        up: gradient that came for each loss of the chunk, importance included, [n]; None for ones.
        factor: the gate's factor per row of the table, [V]; None without a gate.
        losses: written to.
        gradients: added to; None where none is requested.
    """
    slope = _logit_gradient(inputs, positions, up, losses, gradients)
    if gradients is not None and slope is not None:
        _add_products(inputs, positions, slope, factor, gradients)


def _logit_gradient(
    inputs: TableInputs, positions: slice, up: Tensor | None, losses: SweepLosses, gradients: SweepGradients | None
) -> Tensor | None:
    """Gradient of the logits of the large product; the logits themselves are gone when it returns."""
    logits = inputs.readout(upcast(F.linear(inputs.hidden[positions], inputs.weight, inputs.bias)))
    if losses.nll is not None:
        target = inputs.tokens.target[positions, None]
        losses.nll[positions] = logits.logsumexp(1) - logits.gather(1, target).squeeze(1)
    losses.touched += logits.numel()
    readout = None
    if gradients is not None and (inputs.readout.softcap is not None or inputs.readout.scale != 1.0):
        readout = inputs.readout.slope(logits)
    differentiate = _by_autograd if inputs.rule.general else _in_closed_form
    slope = differentiate(inputs, positions, logits, up, losses, gradients)
    return slope if slope is None or readout is None else slope.mul_(readout)


def _in_closed_form(
    inputs: TableInputs,
    positions: slice,
    logits: Tensor,
    up: Tensor | None,
    losses: SweepLosses,
    gradients: SweepGradients | None,
) -> Tensor | None:
    """Declarative rules: softmax over the logits that were kept, minus one at the target."""
    tokens = inputs.chunk_tokens(positions)
    target = tokens.target[:, None]
    logits = apply_rule(inputs.rule, logits, tokens, in_place=True)
    logprob = logits.log_softmax(1)
    _write(losses, positions, logits, -logprob.gather(1, target).squeeze(1))
    charge = None
    if inputs.rule.history:
        charge = _add_charge(inputs, positions, logprob, tokens, losses, gradients is not None)
    if gradients is None:
        return None
    dz = logprob.exp_()
    if charge is not None:
        # d sum_c f(log p_c) / dz = f'(log p_c) at each c, minus p times the sum of all f'.
        entry, slope, total = charge
        dz *= 1 - total[:, None]
        dz.view(-1).index_add_(0, entry, slope)
    dz.scatter_add_(1, target, dz.new_full((1, 1), -1.0).expand_as(target))
    if inputs.rule.scale() != 1.0:
        dz *= inputs.rule.scale()
    return dz if up is None else dz.mul_(up[:, None])


def _add_charge(
    inputs: TableInputs, positions: slice, logprob: Tensor, tokens: Tokens, losses: SweepLosses, learning: bool
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Adds the charge for earlier targets to the loss.

    Returns:
        The entry of each pair in `logprob`, its slope, and the sum of slopes per position; None if not `learning`, or
        without a charge.
    """
    pairs = tokens.pairs()
    entry = pairs.position * logprob.size(1) + pairs.token
    with torch.set_grad_enabled(learning):
        leaf = logprob.view(-1)[entry].requires_grad_(learning)
        cost = inputs.rule.charge(leaf, pairs)
    if cost is None:
        return None
    zeros = losses.loss.new_zeros(tokens.target.numel())
    losses.loss[positions] += zeros.index_add_(0, pairs.position, cost.detach())
    if not learning:
        return None
    (slope,) = torch.autograd.grad(cost, leaf, torch.ones_like(cost))
    return entry, slope, slope.new_zeros(tokens.target.numel()).index_add_(0, pairs.position, slope)


def _by_autograd(
    inputs: TableInputs,
    positions: slice,
    logits: Tensor,
    up: Tensor | None,
    losses: SweepLosses,
    gradients: SweepGradients | None,
) -> Tensor | None:
    """Any rule; gradients of vectors that the rule used beside the logits are added at once."""
    learning = gradients is not None
    with torch.set_grad_enabled(learning):
        tokens = inputs.chunk_tokens(positions, learning)
        leaves = [logits.detach().requires_grad_(learning)]
        leaves += [vectors for vectors in (tokens.hidden, tokens.target_row) if vectors is not None]
        ruled = apply_rule(inputs.rule, leaves[0], tokens)
        logprob = ruled.log_softmax(1)
        loss = -logprob.gather(1, tokens.target[:, None]).squeeze(1)
        _write(losses, positions, ruled.detach(), loss.detach())
        for cost in (position_costs(inputs.rule, logprob, tokens), inputs.rule.extra(logprob, tokens)):
            loss = loss if cost is None else loss + cost
    losses.loss[positions] = loss.detach()
    if gradients is None:
        return None
    weights = torch.ones_like(loss) if up is None else up.to(loss.dtype)
    dz, *past_logits = torch.autograd.grad(loss, leaves, weights, allow_unused=True)
    if past_logits:
        to_hidden, to_row = past_logits
        if to_hidden is not None and gradients.hidden is not None:
            gradients.hidden[positions] += to_hidden
        if to_row is not None and gradients.table is not None:
            gradients.table.index_add_(0, tokens.target, to_row)
    return dz if dz is not None else torch.zeros_like(logits)


def _write(losses: SweepLosses, positions: slice, logits: Tensor, loss: Tensor) -> None:
    losses.loss[positions] = loss
    if losses.lse is not None and losses.support is not None:
        losses.lse[positions] = logits.logsumexp(1)
        losses.support[positions] = (logits > -math.inf).sum(1)


def _add_products(
    inputs: TableInputs, positions: slice, slope: Tensor, factor: Tensor | None, gradients: SweepGradients
) -> None:
    """The two large products of a chunk."""
    hidden, target = inputs.hidden[positions], inputs.tokens.target[positions]
    if gradients.hidden is not None:
        gradients.hidden[positions] += low_product(slope, inputs.weight)
    if factor is None:
        if gradients.table is not None:
            gradients.table += low_product(slope.T, hidden)
        if gradients.bias is not None:
            gradients.bias += slope.sum(0)
        return
    # The target's own entry is never gated, so it is taken out of the products.
    factor = factor.to(slope.dtype)
    target_slope = slope.gather(1, target[:, None])
    slope.scatter_(1, target[:, None], 0.0)
    if gradients.table is not None:
        gradients.table.index_add_(0, target, target_slope * upcast(hidden))
        gradients.table.addcmul_(low_product(slope.T, hidden), factor[:, None])
    if gradients.bias is not None:
        gradients.bias.index_add_(0, target, target_slope.squeeze(1))
        gradients.bias.addcmul_(slope.sum(0), factor)
