"""AdamW that leaves a row of a table alone while the row's gradient is exactly zero.

Turumtaev, "Stop Jostling", Separated Embeddings: every row of the table is a parameter of its own, and AdamW skips a
parameter without gradient. So each row has its own moments m, v and step count t, and takes a step only when its
gradient g is not zero:

    m = m + (1 - beta1) (g - m)        v = beta2 v + (1 - beta2) g^2        t = t + 1
    w = (1 - lr decay) w - lr  m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

Plain AdamW takes the zero for a gradient: it decays the row and carries it on along old momentum, about
1 / (1 - beta1 / sqrt(beta2)) steps' worth after each rare gradient. Stacking one parameter per row in the forward pass
does not help, because the gradient of a stack is a zero tensor, not None, for the rows that were not used.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, get_args

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from decone.files.foreign import quoted
from decone.optim.row_kernel import AdamWRule, AdamWTable, require_kernel
from decone.optim.row_update import step_rows

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Touched = Literal["gradient", "always"]
Decay = Literal["touched", "always"]
Momentum = Literal["frozen", "decay"]
POLICIES = {
    "touched": get_args(Touched),
    "decay": get_args(Decay),
    "momentum": get_args(Momentum),
    "compiled": (False, True),
}


class RowAdamW(torch.optim.AdamW):
    """AdamW whose tables are stepped row by row: a row with a zero gradient is left alone.

    A row's weight, moments and step count stay as they are until its gradient has an entry other than zero (NaN and
    infinity count). All other parameters take torch's AdamW step, bit for bit. The state is AdamW's, with one step
    count per row instead of one per table, and a state saved by `torch.optim.AdamW` can be loaded. On a table sharded
    by rows (FSDP2) each process steps its own rows.

    Source: Turumtaev, "Stop Jostling", section on Separated Embeddings; AdamW from Loshchilov and Hutter (2019).

    Args:
        params: Tensors, named tensors or parameter groups, as for `torch.optim.AdamW`.
        lr: Learning rate, >= 0.
        betas: Decay of the first and second moment, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Decoupled weight decay, >= 0.
        rows: The tables to step by rows, each [V, H] and among `params`. A table tied to the head is named once.
        touched: "gradient": a row is stepped when its gradient is not zero. "always": every row, plain AdamW.
        decay: "touched": weight decay only on rows that are stepped. "always": on every row at every step.
        momentum: "frozen": an untouched row keeps its moments. "decay": they decay as under a zero gradient, while the
            row stays where it is.
        compiled: Step the tables, contiguous float32 or float64 on the CPU, by a kernel in C. It needs a C compiler,
            which takes a fraction of a second here, and agrees with the methods without it to the last digits.
        maximize: Ascend instead of descend.
        fused: For other parameters as in torch. Tables use the fused kernel where their rows allow, unless False.
        foreach: For other parameters as in torch. True keeps the tables off the fused kernel.

    Raises:
        ValueError: If `rows` names a tensor that is not 2-D, not real or not among `params`, a policy is unknown, or
            `compiled` is asked for on a table that the kernel does not take.
        RuntimeError: If `compiled` is asked for and there is no C compiler.

    Example:
        >>> table = torch.nn.Parameter(torch.ones(3, 2))
        >>> optimizer = RowAdamW([table], lr=0.1, weight_decay=0.0, rows=[table])
        >>> table[1].sum().backward()
        >>> optimizer.step()
        >>> table.data
        tensor([[1.0000, 1.0000],
                [0.9000, 0.9000],
                [1.0000, 1.0000]])
        >>> optimizer.state[table]["step"].tolist()
        [0.0, 1.0, 0.0]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        rows: Iterable[Tensor] = (),
        touched: Touched = "gradient",
        decay: Decay = "touched",
        momentum: Momentum = "frozen",
        compiled: bool = False,
        maximize: bool = False,
        fused: bool | None = None,
        foreach: bool | None = None,
    ) -> None:
        if isinstance(params, Tensor) or isinstance(rows, Tensor):
            raise ValueError("params and rows are lists of tensors; write RowAdamW([table], rows=[table])")
        tables, groups = list(rows), list(params)
        if groups and not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        policies = {"touched": touched, "decay": decay, "momentum": momentum, "compiled": compiled, "rows": ()}
        groups = [policies | group | {"params": _members(group)} for group in groups]
        for group in groups:
            tensors = _tensors(group["params"])
            group["rows"] = [*_tables(group), *(table for table in tables if _among(table, tensors))]
        for table in tables:
            if not any(_among(table, group["rows"]) for group in groups):
                raise ValueError(
                    f"rows names a tensor of shape {list(table.shape)} that is not among params; "
                    "pass the parameter itself, such as model.lm_head.weight, to both"
                )
        super().__init__(groups, lr, betas, eps, weight_decay, maximize=maximize, foreach=foreach, fused=fused)
        self.defaults.update(policies)
        self._step_supports_amp_scaling = False  # GradScaler then unscales the gradients and decides whether to step

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters; its entry `rows` lists the tables in it that are stepped by rows.

        Args:
            param_group: `params` and any option of the constructor.

        Raises:
            ValueError: If `rows` names a tensor that is not a 2-D table of the group, or a policy is unknown.
        """
        group = self.defaults | param_group | {"params": _members(param_group)}
        for name, values in POLICIES.items():
            if group[name] not in values:
                raise ValueError(f"{name}={quoted(group[name])} is unknown; use {' or '.join(map(repr, values))}")
        tensors, tables = _tensors(group["params"]), _tables(group)
        for table in tables:
            if not _among(table, tensors) or table.dim() != 2 or not table.is_floating_point():
                raise ValueError(
                    f"rows names a {table.dtype} tensor of shape {list(table.shape)}; "
                    "a table is a real parameter of shape [V, H] in params, leave others out of rows"
                )
            if _is_split_by_columns(table):
                raise ValueError("a table in rows is split across its columns; shard it on dimension 0, by rows")
            if group["compiled"]:
                require_kernel(_local(table))
        group["rows"] = [_among(tensor, tables) for tensor in tensors]
        super().add_param_group(group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state of RowAdamW, or of torch.optim.AdamW, whose step count then holds for every row.

        Args:
            state_dict: What `state_dict()` returned; the rows and policies in it replace those of this optimiser.
        """
        names = ("rows", *POLICIES)
        saved = state_dict["param_groups"]
        if len(saved) == len(self.param_groups):  # else torch reports the difference
            present = [{name: group[name] for name in names} for group in self.param_groups]
            saved = [defaults | group for defaults, group in zip(present, saved, strict=True)]
        super().load_state_dict(state_dict | {"param_groups": saved})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step.

        Args:
            closure: Computes the loss again and returns it.

        Returns:
            The closure's loss, None without closure.

        Raises:
            RuntimeError: If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            plain = []
            for param, by_rows in zip(group["params"], group["rows"], strict=True):
                if param.grad is None:
                    continue
                # "always" on a table with per-row counts, from a state saved under "gradient", still has to honour them
                if by_rows and (group["touched"] == "gradient" or _counts_rows(self.state.get(param))):
                    self._step_rows(param, group)
                else:
                    plain.append(param)
            if plain:
                self._step_plain(plain, group)
        return loss

    def _step_rows(self, param: Tensor, group: dict[str, Any]) -> None:
        if param.grad is None or param.grad.is_sparse:
            raise RuntimeError("RowAdamW takes dense gradients; build the embedding with sparse=False")
        state = self.state[param]
        if not state:
            state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            state["step"] = torch.zeros_like(param[:, 0], dtype=torch.float32)
        elif not _counts_rows(state):  # the one count of torch's AdamW
            state["step"] = torch.zeros_like(param[:, 0], dtype=torch.float32).add_(state["step"].item())
        elif state["step"].device != param.device:
            state["step"] = state["step"].to(param.device)
        rule = AdamWRule(
            lr=float(group["lr"]),
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
            all_touched=group["touched"] == "always",
            decay_untouched=group["decay"] == "always",
            fade_untouched=group["momentum"] == "decay",
            fused=group["fused"] is not False and not group["foreach"],
            compiled=group["compiled"],
        )
        table = (_local(array) for array in (param, state["exp_avg"], state["exp_avg_sq"], state["step"]))
        step_rows(AdamWTable(*table), _local(param.grad), rule)

    def _step_plain(self, params: list[Tensor], group: dict[str, Any]) -> None:
        stepped: list[Tensor] = []
        grads: list[Tensor] = []
        exp_avgs: list[Tensor] = []
        exp_avg_sqs: list[Tensor] = []
        none: list[Tensor] = []
        steps: list[Tensor] = []
        subset = {**group, "params": params}
        has_complex = self._init_group(subset, stepped, grads, exp_avgs, exp_avg_sqs, none, steps)  # type: ignore[no-untyped-call]  # torch's
        adamw(
            stepped,
            grads,
            exp_avgs,
            exp_avg_sqs,
            none,
            steps,
            amsgrad=False,
            has_complex=has_complex,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
            foreach=group["foreach"],
            fused=group["fused"],
        )


def build(
    groups: list[dict[str, Any]],
    tables: Sequence[Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    fused: bool,
    touched: Touched = "gradient",
    decay: Decay = "touched",
    momentum: Momentum = "frozen",
    compiled: bool = False,
) -> RowAdamW:
    """Builds the optimiser of a method, `+row-adamw`; see `registry`."""
    policies: dict[str, Any] = {"touched": touched, "decay": decay, "momentum": momentum, "compiled": compiled}
    return RowAdamW(groups, lr=lr, betas=betas, fused=fused, rows=tables, **policies)


def _members(group: dict[str, Any]) -> list[Any]:
    return [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])


def _tensors(members: list[Any]) -> list[Tensor]:
    return [member[1] if isinstance(member, tuple) else member for member in members]


def _tables(group: dict[str, Any]) -> list[Tensor]:
    """The tables of a group; a group taken from another RowAdamW holds a flag for each of its params instead."""
    rows, tensors = list(group["rows"]), _tensors(group["params"])
    if rows and all(isinstance(flag, bool) for flag in rows):
        return [tensor for tensor, flag in zip(tensors, rows, strict=True) if flag]
    return rows


def _among(tensor: Tensor, tensors: Iterable[Tensor]) -> bool:
    return any(tensor is member for member in tensors)


def _counts_rows(state: dict[str, Any] | None) -> bool:
    return bool(state) and state is not None and state["step"].dim() == 1


def _is_distributed(tensor: Tensor) -> TypeGuard["DTensor"]:
    if type(tensor) in (Tensor, torch.nn.Parameter):  # isinstance is slow on tensors, the import takes a second
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if _is_distributed(tensor) else tensor


def _is_split_by_columns(table: Tensor) -> bool:
    placements = table.placements if _is_distributed(table) else ()
    return any(item.is_partial() or (item.is_shard() and not item.is_shard(0)) for item in placements)
