"""The machine of a run: device, precision, engines of the loss, and the versions, date and commit of a result."""

import os
import platform
import subprocess
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict

from decone.document.blocks import Document, DocumentModel, Facts, Section, Title
from decone.engines.select import choose
from decone.files.foreign import quoted

PACKAGES = ("torch", "numpy", "accelerate", "safetensors", "tokenizers", "transformers", "scipy")


def resolve_device(name: str) -> torch.device:
    """Device of a name; nothing is started on it.

    Args:
        name: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:N or mps.

    Raises:
        ValueError: the name is unknown, or the machine has no such device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return torch.device(next(kind for kind, count in counts.items() if count))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {quoted(name)}; choose auto, cpu, cuda, cuda:N or mps") from None
    if device.type not in counts:
        raise ValueError(f"device {quoted(name)} is not supported; choose auto, cpu, cuda, cuda:N or mps")
    if (device.index or 0) >= counts[device.type]:
        raise ValueError(f"device {quoted(name)} is not available here; choose auto or cpu")
    return device


def require_memory(size: int, content: str, advice: str) -> None:
    """Refuses what takes more memory than this machine has, before it is made.

    Args:
        size: bytes.
        content: what takes them, for the message.
        advice: settings to lower.

    Raises:
        ValueError: it does not fit.

    Example:
        >>> require_memory(1 << 60, "a batch", "batch.size")
        Traceback (most recent call last):
        ValueError: a batch takes 1,073,741,824 GiB, more than the memory of this machine; lower batch.size
    """
    if "SC_PHYS_PAGES" in os.sysconf_names and size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        gib = f"{size >> 30:,}" if size < 1 << 100 else "very many"
        raise ValueError(f"{content} takes {gib} GiB, more than the memory of this machine; lower {advice}")


def accelerator(device: str, precision: str) -> Accelerator:
    """An Accelerator for a device and a precision, "auto" or by name; ValueError if the machine has no such device."""
    target = resolve_device(device)
    if target.index is not None and target.type == "cuda":
        torch.cuda.set_device(target)
    low = precision == "bfloat16" or (precision == "auto" and target.type == "cuda")
    # Set explicitly: without it Accelerate overlooks the other processes of a launch without CUDA.
    cpu = target.type == "cpu"
    return Accelerator(mixed_precision="bf16" if low else "no", cpu=cpu, step_scheduler_with_optimizer=False)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Context in which products are computed in bfloat16 if asked for; weights and sums stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def provenance() -> dict[str, Any]:
    """Versions, machine, date and commit of this process, ready for JSON.

    Example:
        >>> sorted(provenance())
        ['commit', 'date', 'machine', 'versions']
    """
    return {
        "versions": {"decone": version_of("decone"), "python": platform.python_version()}
        | {package: version_of(package) for package in PACKAGES},
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def version_of(package: str) -> str | None:
    """Version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of the checkout that this package runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


class DeviceEngine(BaseModel, frozen=True):
    """The engine that `auto` takes on a device, and one sentence that says why."""

    name: str
    reason: str


class Environment(DocumentModel):
    """This machine, as decone sees it.

    Attributes:
        versions: of Python and of the packages; None for one that is not installed.
        machine: system, processor, cores and accelerator.
        date: now.
        commit: of the checkout that this package runs from, None for an installed package.
        devices: names; the first one is the processor.
        threads: that torch uses.
        triton: its version, None where it is not installed.
        engine: the one on the processor.
        engines: by device.
    """

    model_config = ConfigDict(frozen=True)

    versions: dict[str, str | None]
    machine: dict[str, Any]
    date: str
    commit: str | None
    devices: list[str]
    threads: int
    triton: str | None
    engine: DeviceEngine
    engines: dict[str, DeviceEngine]

    def sentences(self) -> list[tuple[str, str]]:
        """Returns the same in words, each with its heading."""
        machine = self.machine
        name = f"{machine['system']}, {machine['processor']}, {machine['cores']} cores"
        triton = self.triton or "not installed; NVIDIA GPUs use it for the loss (pip install triton)"
        return [
            ("versions", ", ".join(f"{package} {version}" for package, version in self.versions.items() if version)),
            ("machine", f"{name}; torch uses {self.threads} threads"),
            ("devices", ", ".join(self.devices)),
            ("triton", triton),
            *((f"engine on {device}", f"{choice.name}; {choice.reason}") for device, choice in self.engines.items()),
        ]

    def to_document(self) -> Document:
        """Names and values of this machine."""
        facts = Facts(tuple(self.sentences()))
        return Document(Title("decone on this machine"), (Section("machine", "", (facts,)),))


def doctor() -> Environment:
    """Looks at what this machine offers and which engine evaluates the losses.

    Example:
        >>> doctor().engines["cpu"].name
        'chunked'
    """
    devices = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    engines = {device: DeviceEngine(**choose("auto", device)._asdict()) for device in devices}
    return Environment(
        **provenance(),
        devices=[torch.cuda.get_device_name(name) if name.startswith("cuda") else name for name in devices],
        threads=torch.get_num_threads(),
        triton=version_of("triton"),
        engine=engines[devices[0]],
        engines=engines,
    )
