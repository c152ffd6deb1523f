"""Where a run is carried out: a device by name, and the Accelerator for it."""

import torch
from accelerate import Accelerator


def resolve(name: str) -> torch.device:
    """The device of a name; nothing is started on it.

    Args:
        name: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:N or mps.

    Raises:
        ValueError: the name is unknown, or the device is not here.

    Example:
        >>> resolve("cpu")
        device(type='cpu')
    """
    here = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return torch.device(next(kind for kind, count in here.items() if count))
    try:
        wanted = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; choose auto, cpu, cuda, cuda:N or mps") from None
    if wanted.type not in here:
        raise ValueError(f"device {name!r} is not supported; choose auto, cpu, cuda, cuda:N or mps")
    if (wanted.index or 0) >= here[wanted.type]:
        raise ValueError(f"device {name!r} is not available here; choose auto or cpu")
    return wanted


def accelerator(device: str, precision: str) -> Accelerator:
    """An Accelerator for a device and a precision, both "auto" or by name; ValueError for a device that is not here."""
    wanted = resolve(device)
    if wanted.index is not None and wanted.type == "cuda":
        torch.cuda.set_device(wanted)
    low = precision == "bfloat16" or (precision == "auto" and wanted.type == "cuda")
    # Said outright, for left alone Accelerate overlooks the other processes of a launch without CUDA.
    cpu = wanted.type == "cpu"
    return Accelerator(mixed_precision="bf16" if low else "no", cpu=cpu, step_scheduler_with_optimizer=False)
