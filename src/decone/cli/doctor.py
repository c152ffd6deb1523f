"""`decone doctor`: versions, devices, and which engine would be taken, and why."""

import torch

from decone.cli.console import print_json, say
from decone.cli.options import Json
from decone.engines.select import choose
from decone.training.machine import provenance, version_of


def command(as_json: Json = False) -> None:
    """Print what this machine offers and which engine evaluates the losses."""
    devices = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    choices = {device: choose("auto", device) for device in devices}
    facts = {
        **provenance(),
        "devices": [torch.cuda.get_device_name(name) if name.startswith("cuda") else name for name in devices],
        "threads": torch.get_num_threads(),
        "triton": version_of("triton"),
        "engine": choices[devices[0]]._asdict(),
        "engines": {device: choice._asdict() for device, choice in choices.items()},
    }
    if as_json:
        print_json(facts)
        return
    say(", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version))
    machine = facts["machine"]
    say(f"{machine['system']}, {machine['processor']}, {machine['cores']} cores; torch uses {facts['threads']} threads")
    say(f"devices: {', '.join(facts['devices'])}")
    say(f"triton: {facts['triton'] or 'not installed; NVIDIA GPUs use it for the loss (pip install triton)'}")
    for device, choice in choices.items():
        say(f"engine on {device}: {choice.name}; {choice.reason}")
