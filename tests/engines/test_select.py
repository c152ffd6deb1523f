"""Which engine is taken, by name, device, precision and objective."""

from typing import Any

import pytest
import torch

from decone.engines import select
from decone.engines.chunked import chunked
from decone.engines.contract import Engine, Rule, reference
from decone.objectives import MLE, Threshold

GPU = torch.device("cuda", 0)


def test_an_engine_is_chosen_by_name() -> None:
    assert select.get("reference") is reference
    assert select.get("chunked") is chunked
    assert select.get() is chunked
    for name in ("auto", "chunked", "reference", "triton", "vocab_parallel"):
        assert select.choose(name).name in select.ENGINES
        assert select.choose(name).reason
    with pytest.raises(ValueError, match="unknown engine 'whole'; choose one of auto, chunked, reference, triton, voc"):
        select.get("whole")
    assert all(isinstance(engine, Engine) for engine in select.ENGINES.values())
    assert isinstance(MLE(), Rule)
    assert isinstance(Threshold(), Rule)


def test_an_engine_may_be_given_itself() -> None:
    assert select.get(reference) is reference
    hidden, weight, target = torch.randn(2, 3), torch.randn(4, 3), torch.tensor([1, 2])
    assert (
        MLE()(hidden, weight, target, engine=reference).mean()
        == MLE()(hidden, weight, target, engine="reference").mean()
    )


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 6))
    monkeypatch.setattr(select, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(select, "TRUSTED", True)
    select._no_kernels.cache_clear()
    yield monkeypatch
    select._no_kernels.cache_clear()


def test_a_gpu_takes_its_kernels_where_they_can_do_the_work(ampere: pytest.MonkeyPatch) -> None:
    assert select.choose("auto", GPU, torch.bfloat16, Threshold()).name == "triton"
    assert select.choose("auto", GPU, torch.float64, Threshold()).name == "chunked"
    softminus = Threshold(margin=1.0, softminus=1.0)
    choice = select.choose("auto", GPU, torch.bfloat16, softminus)
    assert choice.name == "chunked"
    assert "whole rows of logits" in choice.reason
    assert select.choose("auto", "cpu", torch.bfloat16, Threshold()).name == "chunked"
    ampere.setattr(select, "TRUSTED", False)
    assert "ask for them by name" in select.choose("auto", GPU).reason


@pytest.mark.parametrize(
    ("where", "name", "value", "reason"),
    [
        (torch.cuda, "get_device_capability", lambda index: (7, 5), "Ampere"),
        (select, "find_spec", lambda name: None, "pip install triton"),
        (torch.version, "hip", "6.0", "NVIDIA"),
    ],
)
def test_a_gpu_that_cannot_says_why(where: Any, name: str, value: Any, reason: str, ampere: pytest.MonkeyPatch) -> None:
    ampere.setattr(where, name, value)
    choice = select.choose("auto", GPU)
    assert choice.name == "chunked"
    assert reason in choice.reason


def test_a_cut_table_is_not_guessed_about() -> None:
    class Cut(torch.Tensor):
        placements = ()

    weight = torch.randn(4, 3).as_subclass(Cut)
    for engine in ("auto", "chunked", "reference"):
        with pytest.raises(
            ValueError, match=r"pass engine='vocab_parallel', if they differ pass weight.full_tensor.*Partial..avg"
        ):
            MLE()(torch.randn(2, 3), weight, torch.tensor([1, 2]), engine=engine)
