"""The readable engine: whole logits, plain autograd, any floating type. The oracle of every other engine."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from decone.engines.contract import Evaluation, Rule, Tokens, charged, ruled, wide


def reference(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"] | None,
    tokens: Tokens,
    rule: Rule,
    *,
    each: bool = False,
    nll: bool = True,
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

    Returns:
        Loss (scalar, or [N] with `each`) and the plain NLL of each target, [N], or None.

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
    plain = wide(F.linear(hidden, weight, bias))
    target, gate = tokens.target[:, None], rule.gate()
    if gate is None:
        logits = plain
    else:
        # The same values twice: hidden states get the true gradient, the table the gated one.
        to_hidden = wide(F.linear(hidden, weight.detach(), None if bias is None else bias.detach()))
        to_table = wide(F.linear(hidden.detach(), weight, bias))
        factor = torch.where(gate.rare[target], gate.on_rare, gate.on_common).to(to_table.dtype)
        # A logit of -inf less itself is NaN; it carries no gradient, so zero is right.
        zero = torch.nan_to_num(to_table - to_table.detach())
        logits = to_hidden + factor.scatter(1, target, 1.0) * zero
    logprob = ruled(rule, logits, tokens).log_softmax(1)
    loss = -logprob.gather(1, target).squeeze(1)
    extra = rule.extra(logprob, tokens) if rule.general else None
    for cost in (charged(rule, logprob, tokens), extra):
        loss = loss if cost is None else loss + cost
    plain_nll = -plain.detach().log_softmax(1).gather(1, target).squeeze(1) if nll else None
    return Evaluation(loss if each else loss.sum(), plain_nll)
