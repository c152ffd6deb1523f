"""Versions, devices, and the engine that evaluates a loss on each of them."""

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from decone.document.blocks import Document, DocumentModel, Facts, Section, Title
from decone.engines.select import choose
from decone.training.machine import provenance, version_of


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
