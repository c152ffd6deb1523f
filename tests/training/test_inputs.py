"""What a run reads, and what is refused before anything is written."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from decone.data.tokens import TextTokenizer
from decone.training import inputs
from decone.training.config import RunConfig
from decone.training.machine import accelerator, resolve_device

Build = Callable[..., RunConfig]


def test_the_text_is_cut_by_position(build: Build, text: Path) -> None:
    content = text.read_text()
    found = inputs.check(build())
    assert (found.tokenizer.decode(found.train.tolist()), found.tokenizer.decode(found.validation.tolist())) == (
        content[:2700],
        content[2700:],
    )
    assert found.languages.vocabulary == 2 * len(set(content))
    assert found.corpus.text == content


def test_a_run_keeps_its_tokenizer(build: Build, text: Path) -> None:
    tokenizer = TextTokenizer.characters(text.read_text() + "ÄÖÜ")
    found = inputs.read(build(), tokenizer)
    assert found.tokenizer is tokenizer
    assert found.languages.size == len(set(text.read_text())) + 3


def test_bpe_makes_fewer_tokens(build: Build) -> None:
    found = inputs.read(build(tokenizer__kind="bpe", tokenizer__size=300))
    assert 256 < found.languages.size <= 300
    assert len(found.train) + len(found.validation) < 2000


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"corpus__name": "nowhere.txt"}, "no file nowhere.txt"),
        ({"model__context": 300}, "the text is too short: 2700 training and 300 validation tokens"),
        ({"tokenizer__kind": "bpe", "model__context": 200}, "the text is too short"),
        ({"machine__device": "cuda:99"}, "device 'cuda:99' is not available here; choose auto or cpu"),
        ({"machine__device": "gpu"}, "unknown device 'gpu'; choose auto, cpu, cuda, cuda:N or mps"),
        ({"machine__device": "meta"}, "device 'meta' is not supported"),
        ({"machine__engine": "fast"}, "unknown engine 'fast'"),
        ({"model__vocabulary": 7}, "model.vocabulary is 7 but the text makes"),
    ],
)
def test_what_would_stop_a_run_is_refused(overrides: dict[str, Any], message: str, build: Build) -> None:
    before = sorted(Path().iterdir())
    with pytest.raises(ValueError) as error:
        inputs.check(build(**overrides))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(Path().iterdir()) == before


def test_a_missing_tensorboard_is_noticed_at_once(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"machine\.tensorboard needs the package"):
        inputs.check(build(machine__tensorboard=True))


def test_the_right_vocabulary_may_be_named(build: Build) -> None:
    size = inputs.check(build()).languages.vocabulary
    assert inputs.check(build(model__vocabulary=size)).languages.vocabulary == size


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(ValueError, match=f"device '{name}' is not available here; choose auto or cpu"):
            resolve_device(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="device 'cuda:2' is not available here"):
        resolve_device("cuda:2")


def test_an_accelerator_on_the_cpu() -> None:
    made = accelerator("cpu", "auto")
    assert made.device == torch.device("cpu")
    assert made.mixed_precision == "no"
    with pytest.raises(ValueError, match="unknown device"):
        accelerator("nowhere", "auto")
