"""`decone doctor`: versions, devices, and which engine would be taken, and why."""

import torch

from decone.cli.console import print_json, say
from decone.cli.options import Json
from decone.engines.select import choose
from decone.training.provenance import provenance


def command(as_json: Json = False) -> None:
    """Print what this machine offers and which engine evaluates the losses."""
    choice = choose("auto")
    facts = {
        **provenance(),
        "devices": ["cpu"]
        + [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        + (["mps"] if torch.backends.mps.is_available() else []),
        "threads": torch.get_num_threads(),
        "engine": choice._asdict(),
    }
    if as_json:
        print_json(facts)
        return
    say(", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version))
    machine = facts["machine"]
    say(f"{machine['system']}, {machine['processor']}, {machine['cores']} cores; torch uses {facts['threads']} threads")
    say(f"devices: {', '.join(facts['devices'])}")
    say(f"engine: {choice.name}, because it is {choice.reason}")
