"""What a run tells while it trains: JSON lines, and TensorBoard if asked for."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FILE = "metrics.jsonl"


class Log:
    """Appends to `metrics.jsonl`; lines later than the step resumed from are removed, so that no step stands twice.

    Args:
        run: the run's folder.
        step: optimiser steps already done.
        tensorboard: also write TensorBoard events under `tensorboard/`.
    """

    def __init__(self, run: Path, step: int, tensorboard: bool = False) -> None:
        self.path = run / FILE
        kept = [json.dumps(line) for line in read(run) if line["step"] <= step]
        beside = self.path.with_name(f"{FILE}.{os.getpid()}.writing")
        beside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        beside.replace(self.path)
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ValueError('machine.tensorboard needs the package: pip install "decone[report]"') from None
            self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Self:
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def write(self, kind: str, step: int, fields: dict[str, float]) -> None:
        """Writes one line, e.g. kind "train" or "validation"."""
        self._file.write(json.dumps({"kind": kind, "step": step, **fields}) + "\n")
        if self._writer is not None:
            for name, value in fields.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)


def read(run: Path) -> Iterator[dict[str, Any]]:
    """The log's lines up to the first that is damaged; a kill may have cut the last one short."""
    path = run / FILE
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            return
        if not isinstance(fields, dict) or not isinstance(fields.get("step"), int):
            return
        yield fields
