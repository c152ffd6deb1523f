"""What every test stands on: checked shapes, one thread, no network, a folder of its own, and real data where there is.

This file is loaded before any test imports `decone`, which the import hook needs.
"""

import os
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

# Shape annotations are checked at run time in tests only; in a training loop they cost nothing. The hook decorates
# method by method, where beartype cannot know what `Self` is.
_OVERRIDES = "beartype.FrozenDict({__import__('typing').Self: object})"
jaxtyping.install_import_hook("decone", f"beartype.beartype(conf=beartype.BeartypeConf(hint_overrides={_OVERRIDES}))")

torch.set_num_threads(1)

# Tests run in folders of their own, where a relative PYTHONPATH would mean nothing to the processes they start.
if "PYTHONPATH" in os.environ:
    os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, os.environ["PYTHONPATH"].split(os.pathsep)))

# Hubs are not reachable from a test: one that would download fails at once instead of hanging.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

_CALM = {
    "deadline": None,  # the first call pays for imports and allocations
    "max_examples": 25,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow],
}
hypothesis.settings.register_profile("work", **_CALM)
hypothesis.settings.register_profile("ci", **_CALM, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "work")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test marked `gpu` where there is no CUDA device."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs each test in an empty folder with caches of its own and a fixed torch seed."""
    monkeypatch.chdir(tmp_path)
    for name in ("DECONE_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / ".cache"))
    monkeypatch.delenv("COLUMNS", raising=False)  # processes that share the tests have one
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with real corpora: $DECONE_DATA, else `shared/data` beside the checkout; skips where neither is."""
    named = os.environ.get("DECONE_DATA")
    if named:
        folder = Path(named).absolute()
        if not folder.is_dir():
            raise ValueError(f"DECONE_DATA names {named}, which is no folder; point it at the corpora or unset it")
        return folder
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real corpora here; set DECONE_DATA to a folder that holds them")
    return folder
