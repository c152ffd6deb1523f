"""Ways to compute a loss: our engines, other packages, and naive forms; each says for itself why it cannot run here.

A way is a name and a loss, "chunked threshold:1" or "liger ce". Other packages know plain cross-entropy alone: beside
a loss that asks more, their times are those of less work.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from decone.training.config import Method

from . import naive
from .workloads import Inputs, Workload

Call = Callable[[Inputs], Tensor]

LOSSES = ("ce", "threshold", "agg", "scalegrad", "unlikelihood")
ENGINES = ("chunked", "triton", "reference")
PEERS = ("dense", "compiled", "lce", "lce-tuned", "liger", "cce", "cce-exact", "cce-compiled", "quack")
PRODUCT = "product"  # one matrix product alone: what floors are counted in
PACKAGES = ("triton", "liger-kernel", "cut-cross-entropy", "quack-kernels")
GAMMA, ALPHA, WINDOW = 0.2, 1.5, 100  # alpha in occurrences per step, so that there are rare targets too
SELDOM = 3  # far away: every third round says how far
COPIES = {"dense": 4, "compiled": 4, "cce-compiled": 6, "reference": 8, "naive": 8, "naive-compiled": 8}


class UnavailableError(Exception):
    """Why a way cannot run here, in one sentence."""


@dataclass(frozen=True)
class Way:
    """One way to compute one loss."""

    name: str
    loss: str

    def __str__(self) -> str:
        return f"{self.name} {self.loss}"

    @property
    def margin(self) -> float | None:
        return float(self.loss.partition(":")[2]) if self.loss.startswith("threshold") else None

    @property
    def peer(self) -> bool:
        return self.name in PEERS

    @property
    def ours(self) -> bool:
        return self.name in ENGINES

    @property
    def compiled(self) -> bool:
        return "compiled" in self.name

    @property
    def every(self) -> int:
        return SELDOM if self.name in ("lce", "reference", "naive", "naive-compiled") else 1

    def whole_logits(self, load: Workload) -> int:
        """Bytes of tensors over tokens x vocabulary that are alive at once, roughly; 0 where none is."""
        return 4 * COPIES.get(self.name, 0) * load.N * load.V

    def method(self) -> str:
        """The loss as one word of our command line."""
        return {
            "ce": "mle",
            "threshold": f"threshold:margin={self.margin}",
            "agg": f"agg:alpha={ALPHA},window={WINDOW}",
            "scalegrad": f"scalegrad:gamma={GAMMA}",
            "unlikelihood": "unlikelihood",
        }[self.loss.partition(":")[0]]


def losses(names: list[str], margins: list[float]) -> list[str]:
    """Names of losses with their margins: threshold becomes threshold:0, threshold:1 and so on."""
    for name in names:
        if name not in LOSSES:
            raise ValueError(f"unknown loss {name!r}; choose of {', '.join(LOSSES)}")
    return [
        full for name in names for full in ([f"threshold:{m:g}" for m in margins] if name == "threshold" else [name])
    ]


def ways(wanted: list[str], engines: list[str], peers: list[str], forms: list[str]) -> list[Way]:
    """All ways of a run: each engine with each loss, each peer with plain cross-entropy, each naive form."""
    for names, known in ((engines, ENGINES), (peers, PEERS)):
        for name in names:
            if name not in known:
                raise ValueError(f"unknown {name!r}; choose of {', '.join(known)}")
    found = [Way(PRODUCT, "ce")] + [Way(name, "ce") for name in peers]
    found += [Way(name, loss) for name in engines for loss in wanted]
    return found + [Way(name, loss) for name in forms for loss in wanted if loss != "ce"]  # naive ce is dense


def build(way: Way, device: str) -> Call:
    """The function that computes a loss, mean over targets; `UnavailableError` says why there is none."""
    if way.ours:
        return Ours(way, device)
    if way.name in ("naive", "naive-compiled"):
        call = _naive(way)
        return torch.compile(call, dynamic=False) if way.compiled else call
    if way.loss != "ce":
        raise UnavailableError(f"{way.name} computes plain cross-entropy alone")
    return _BUILDERS[way.name](device)


def objective(way: Way) -> Callable[..., Any]:
    """A fresh objective of ours for the loss, whatever computes it."""
    return Method.parse(way.method()).build_objective()


def versions() -> dict[str, str | None]:
    """Versions of the packages that are compared; None where one is not installed."""

    def found(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {package: found(package) for package in PACKAGES}


class Ours:
    """One of our engines at work on one of our objectives, bookkeeping of the objective included."""

    def __init__(self, way: Way, device: str) -> None:
        if way.name == "triton" and device != "cuda":
            raise UnavailableError("its kernels need a GPU; triton's interpreter times nothing")
        self.rule, self.engine = objective(way), way.name

    def __call__(self, inputs: Inputs) -> Tensor:
        mean: Tensor = self.rule(*inputs, engine=self.engine, nll=False).mean()
        return mean

    def live(self, inputs: Inputs) -> float | None:
        """Share of the table's rows that the gradient's products touch, as the engine itself says."""
        live = self.rule(*inputs.fresh(), engine=self.engine, nll=False, detail=True).live
        return None if live is None else float(live)


def _naive(way: Way) -> Call:
    kind = way.loss.partition(":")[0]
    if kind == "threshold":
        assert way.margin is not None
        return naive.threshold(way.margin)
    return {
        "ce": naive.plain,
        "agg": naive.agg(ALPHA, WINDOW),
        "scalegrad": naive.scalegrad(GAMMA),
        "unlikelihood": naive.unlikelihood,
    }[kind]


def _product(device: str) -> Call:
    def call(inputs: Inputs) -> Tensor:
        """Vocabulary-major and in chunks, as is fastest; the backward pass is not its business."""
        with torch.no_grad():
            hidden, weight = inputs.hidden.flatten(0, 1), inputs.weight
            rows = 256 if device == "cpu" else 4096
            room = weight.new_empty(len(weight), min(rows, len(hidden)))
            for part in hidden.split(rows):
                torch.mm(weight, part.T, out=room[:, : len(part)])
            return room[0, 0]

    return call


def _linear_cross_entropy(tuned: bool) -> Callable[[str], Call]:
    def build(device: str) -> Call:
        if not hasattr(F, "linear_cross_entropy"):
            raise UnavailableError(f"torch {torch.__version__} has no F.linear_cross_entropy; 2.13 has")
        # Left alone, 2.13 takes 8 rows at a time on W1; a few hundred are best on a CPU, some thousand on a GPU.
        rows = 256 if device == "cpu" else 2048
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows if tuned else None)

        def call(inputs: Inputs) -> Tensor:
            hidden, target = inputs.hidden.flatten(0, 1), inputs.target.flatten()
            return F.linear_cross_entropy(hidden, inputs.weight, target, options=options)

        return call

    return build


def _liger(device: str) -> Call:
    loss = _imported("liger_kernel.transformers", "LigerFusedLinearCrossEntropyLoss", "liger-kernel")()
    if device != "cuda":
        raise UnavailableError("its kernels need a GPU; in triton's interpreter they are right and far too slow")
    return lambda inputs: loss(inputs.weight, inputs.hidden.flatten(0, 1), inputs.target.flatten())


def _cut(kind: str) -> Callable[[str], Call]:
    def build(device: str) -> Call:
        function = _imported("cut_cross_entropy", "linear_cross_entropy", "cut-cross-entropy")
        settings: dict[str, Any] = {"impl": kind}
        if kind != "torch_compile" and device != "cuda":
            raise UnavailableError("its kernels need a GPU, and triton's interpreter cannot run them")
        if kind == "cce_exact" and "accum_c_fp32" not in inspect.signature(function).parameters:
            settings = {"impl": "cce", "filter_eps": None}  # the older releases' name for it
        return lambda inputs: function(inputs.hidden.flatten(0, 1), inputs.weight, inputs.target.flatten(), **settings)

    return build


def _quack(device: str) -> Call:
    if device != "cuda":
        raise UnavailableError("it has no CPU path")
    function = _imported("quack.linear_cross_entropy", "chunked_linear_cross_entropy", "quack-kernels")
    return lambda inputs: function(inputs.hidden.flatten(0, 1), inputs.weight, inputs.target.flatten())


def _imported(module: str, name: str, package: str) -> Any:
    try:
        return getattr(__import__(module, fromlist=[name]), name)
    except Exception as error:  # packages for GPUs fail in many ways where there is none
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise UnavailableError(f"{package} cannot be imported ({reason}); pip install --no-deps {package}") from None


_BUILDERS: dict[str, Callable[[str], Call]] = {
    PRODUCT: _product,
    "dense": lambda device: naive.plain,
    "compiled": lambda device: torch.compile(naive.plain, dynamic=False),
    "lce": _linear_cross_entropy(tuned=False),
    "lce-tuned": _linear_cross_entropy(tuned=True),
    "liger": _liger,
    "cce": _cut("cce"),
    "cce-exact": _cut("cce_exact"),
    "cce-compiled": _cut("torch_compile"),
    "quack": _quack,
}
