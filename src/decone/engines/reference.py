"""The readable engine: whole logits, plain autograd, any floating type. The oracle of every other engine."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from decone.engines.contract import PLAIN, Evaluation, Readout, Rule, Tokens, charged, ruled, wide


def reference(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Tokens,
    rule: Rule,
    *,
    each: bool = False,
    nll: bool = True,
    detail: bool = False,
    readout: Readout = PLAIN,
) -> Evaluation:
    """Evaluates a rule on all logits at once.

    Args:
        hidden: hidden states of the counted positions, [N, H].
        weight: output table, [V, H].
        bias: output bias, [V], or None.
        tokens: targets and their places, N of them.
        rule: the objective.
        each: one loss per target instead of their sum.
        nll: also return the plain negative log-likelihood, detached.
        detail: also return the log-sum-exp, the number of kept logits and the live share, detached.
        readout: what the model does to its logits before anything else.

    Returns:
        See `Evaluation`.

    Example:
        >>> from decone.objectives import MLE
        >>> tokens = Tokens(torch.tensor([1]), torch.tensor([0]), torch.tensor([0]))
        >>> reference(torch.zeros(1, 2), torch.zeros(4, 2), None, tokens, MLE()).loss
        tensor(1.3863)
    """
    if rule.history:
        tokens = tokens.remembering(weight.size(0))
    target_row = wide(weight[tokens.target]) if rule.vectors else None
    tokens = tokens.part(slice(None), wide(hidden) if rule.vectors else None, target_row)
    plain = readout(wide(F.linear(hidden, weight, bias)))
    target, gate = tokens.target[:, None], rule.gate()
    if gate is None:
        logits = plain
    else:
        # The same values twice: hidden states get the true gradient, the table the gated one.
        to_hidden = readout(wide(F.linear(hidden, weight.detach(), None if bias is None else bias.detach())))
        to_table = readout(wide(F.linear(hidden.detach(), weight, bias)))
        factor = torch.where(gate.rare[target], gate.on_rare, gate.on_common).to(to_table.dtype)
        # A logit of -inf less itself is NaN; it carries no gradient, so zero is right.
        zero = torch.nan_to_num(to_table - to_table.detach())
        logits = to_hidden + factor.scatter(1, target, 1.0) * zero
    kept = ruled(rule, logits, tokens)
    logprob = kept.log_softmax(1)
    loss = -logprob.gather(1, target).squeeze(1)
    extra = rule.extra(logprob, tokens) if rule.general else None
    for cost in (charged(rule, logprob, tokens), extra):
        loss = loss if cost is None else loss + cost
    plain_nll = -plain.detach().log_softmax(1).gather(1, target).squeeze(1) if nll else None
    if tokens.importance is not None:
        loss = loss * tokens.importance.to(loss.dtype)
    if not detail:
        return Evaluation(loss if each else loss.sum(), plain_nll)
    lse, live = kept.detach().logsumexp(1), loss.detach().new_ones(())
    return Evaluation(loss if each else loss.sum(), plain_nll, lse, (kept > -math.inf).sum(1), live)
