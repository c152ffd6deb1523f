"""The readable engine: whole logits, plain autograd, any floating type. The oracle of every other engine."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from decone.engines.contract import LOSS, Evaluation, Request, Rule, Tokens, apply_rule, position_costs, upcast


def reference(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Tokens,
    rule: Rule,
    request: Request = LOSS,
) -> Evaluation:
    """Evaluates a rule on all logits at once; the arguments are those of `Engine`.

    Example:
        >>> from decone.objectives import MLE
        >>> tokens = Tokens(torch.tensor([1]), torch.tensor([0]), torch.tensor([0]))
        >>> reference(torch.zeros(1, 2), torch.zeros(4, 2), None, tokens, MLE()).loss
        tensor(1.3863)
    """
    if rule.history:
        tokens = tokens.with_earlier(weight.size(0))
    target_row = upcast(weight[tokens.target]) if rule.vectors else None
    tokens = tokens.select(slice(None), upcast(hidden) if rule.vectors else None, target_row)
    plain = request.readout(upcast(F.linear(hidden, weight, bias)))
    target, gate = tokens.target[:, None], rule.gate()
    if gate is None:
        logits = plain
    else:
        # The same values twice: hidden states get the true gradient, the table the gated one.
        to_hidden = request.readout(upcast(F.linear(hidden, weight.detach(), None if bias is None else bias.detach())))
        to_table = request.readout(upcast(F.linear(hidden.detach(), weight, bias)))
        factor = torch.where(gate.rare[target], gate.on_rare, gate.on_common).to(to_table.dtype)
        # A logit of -inf less itself is NaN; it carries no gradient, so zero is right.
        zero = torch.nan_to_num(to_table - to_table.detach())
        logits = to_hidden + factor.scatter(1, target, 1.0) * zero
    ruled = apply_rule(rule, logits, tokens)
    logprob = ruled.log_softmax(1)
    loss = -logprob.gather(1, target).squeeze(1)
    extra = rule.extra(logprob, tokens) if rule.general else None
    for cost in (position_costs(rule, logprob, tokens), extra):
        loss = loss if cost is None else loss + cost
    plain_nll = -plain.detach().log_softmax(1).gather(1, target).squeeze(1) if request.nll else None
    if tokens.importance is not None:
        loss = loss * tokens.importance.to(loss.dtype)
    total = loss if request.per_token else loss.sum()
    if not request.detail:
        return Evaluation(total, plain_nll)
    lse, live = ruled.detach().logsumexp(1), loss.detach().new_ones(())
    return Evaluation(total, plain_nll, lse, (ruled > -math.inf).sum(1), live)
