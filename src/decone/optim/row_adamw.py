"""AdamW that leaves a table row alone while its gradient is exactly zero.

Turumtaev, "Stop Jostling" (section on Separated Embeddings): every row of the table is a parameter of its own, so a row without
gradient takes no step. Its own moments, its own step count t, its own bias correction:

    m = m + (1 - beta1) (g - m)        v = beta2 v + (1 - beta2) g^2
    w = w (1 - lr decay) - lr  m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

Plain AdamW instead sees a zero gradient: it decays the row and keeps moving it along old momentum.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.optimizer import ParamsT

BLOCK_BYTES = 1 << 18  # of one array; a block's weight, gradient, two moments and scratch stay in the L2/L3 cache

Touched = Literal["gradient", "always"]
Decay = Literal["touched", "always"]
Momentum = Literal["frozen", "decay"]
CHOICES = {"touched": ("gradient", "always"), "decay": ("touched", "always"), "momentum": ("frozen", "decay")}


class RowAdamW(torch.optim.AdamW):
    """AdamW whose named tables are stepped row by row: a row with a zero gradient is left alone."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        rows: Sequence[Tensor] = (),
        touched: Touched = "gradient",
        decay: Decay = "touched",
        momentum: Momentum = "frozen",
        maximize: bool = False,
        fused: bool | None = None,
        foreach: bool | None = None,
    ) -> None:
        options = {"rows": tuple(rows), "touched": touched, "decay": decay, "momentum": momentum}
        given = list(params)
        groups: list[dict[str, Any]] = (
            [{**options, **group} for group in given]  # type: ignore[dict-item]  # a group is a dict here
            if given and isinstance(given[0], dict)
            else [{**options, "params": given}]
        )
        super().__init__(
            groups, lr, betas, eps, weight_decay, maximize=maximize, foreach=foreach, fused=fused
        )
        self._step_supports_amp_scaling = False  # GradScaler unscales first and skips the step itself
        self.defaults.update(options, rows=())
        named = [p for group in self.param_groups for p, flag in zip(group["params"], group["rows"], strict=True) if flag]
        if any(all(table is not p for p in named) for table in rows):
            raise ValueError("a table in `rows` is not among `params`; pass the parameter itself (not .data, not a copy)")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; its `rows` name the tables in it that are stepped row by row."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name, allowed in CHOICES.items():
            if group[name] not in allowed:
                raise ValueError(f"{name}={group[name]!r} is unknown; choose one of {', '.join(map(repr, allowed))}")
        tables = group["rows"]
        group["rows"] = [any(p is table for table in tables) for p in group["params"]]
        for p, flag in zip(group["params"], group["rows"], strict=True):
            if flag and p.dim() != 2:
                raise ValueError(f"`rows` takes 2-D tables, one has shape {tuple(p.shape)}; take it out of `rows`")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state; one saved by torch.optim.AdamW is taken over, its step count given to every row."""
        own = ("rows", "touched", "decay", "momentum")
        groups = [
            {**{name: mine[name] for name in own}, **saved}
            for mine, saved in zip(self.param_groups, state_dict["param_groups"], strict=True)
        ]
        super().load_state_dict({**state_dict, "param_groups": groups})

    def _init_group(self, group: dict[str, Any], *collected: list[Tensor]) -> bool:
        # torch's AdamW.step asks this for the tensors to update: the tables are stepped here, the rest handed on
        plain = []
        for p, flag in zip(group["params"], group["rows"], strict=True):
            if not flag or group["touched"] == "always":
                plain.append(p)
            elif p.grad is not None:
                self._step_rows(p, group)
        return bool(super()._init_group({**group, "params": plain}, *collected))

    def _step_rows(self, table: Tensor, group: dict[str, Any]) -> None:
        grad = table.grad
        assert grad is not None
        if grad.is_sparse:
            raise RuntimeError("RowAdamW needs dense gradients; build the embedding with sparse=False")
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros(len(table), dtype=torch.float32, device=table.device)
            state["exp_avg"] = torch.zeros_like(table, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(table, memory_format=torch.preserve_format)
        elif state["step"].dim() == 0 or state["step"].device != table.device:
            state["step"] = state["step"].to(table.device, torch.float32).expand(len(table)).clone()
        step, exp_avg, exp_avg_sq = state["step"], state["exp_avg"], state["exp_avg_sq"]
        beta1, beta2 = group["betas"]
        shrink = 1 - group["lr"] * group["weight_decay"]

        moved = torch.linalg.vector_norm(grad, float("inf"), dim=1) != 0  # NaN != 0 is true
        if group["momentum"] == "decay":
            exp_avg.mul_(torch.where(moved, 1.0, beta1).to(exp_avg)[:, None])
            exp_avg_sq.mul_(torch.where(moved, 1.0, beta2).to(exp_avg)[:, None])
        if group["decay"] == "always":
            table.mul_(torch.where(moved, 1.0, shrink).to(table)[:, None])
        which = moved.nonzero().squeeze(1)
        step.index_add_(0, which, torch.ones_like(which, dtype=step.dtype))
        work = torch.promote_types(table.dtype, torch.float32)
        block = max(1, BLOCK_BYTES // (table.size(1) * work.itemsize))
        for part in which.split(block):
            t = step[part].double()
            correct1, correct2 = 1 - beta1**t, 1 - beta2**t
            g = grad[part].to(work)
            if group["maximize"]:
                g.neg_()
            m = exp_avg[part].to(work).lerp_(g, 1 - beta1)
            v = exp_avg_sq[part].to(work).mul_(beta2).addcmul_(g, g, value=1 - beta2)
            denominator = v.sqrt().mul_((correct1 / correct2.sqrt()).to(work)[:, None])
            denominator.add_((group["eps"] * correct1).to(work)[:, None])
            w = table[part].to(work).mul_(shrink).addcdiv_(m, denominator, value=-group["lr"])
            for whole, rows in ((table, w), (exp_avg, m), (exp_avg_sq, v)):
                whole.index_copy_(0, part, rows.to(whole.dtype))
