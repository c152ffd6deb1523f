"""Methods as one word: the grammar, what it builds, what it refuses."""

import math
from typing import Any

import pytest
import torch

from decone import optim
from decone.models.nano import Nano, NanoConfig
from decone.objectives import MLE, Threshold
from decone.training.method import Method


def test_the_parts_of_a_word() -> None:
    method = Method.parse(" threshold:margin=2, temperature=0.5+row-adamw:decay=always,momentum=decay ")
    assert method.text == "threshold:margin=2, temperature=0.5+row-adamw:decay=always,momentum=decay"
    assert method.terms == (("threshold", {"margin": "2", "temperature": "0.5"}),)
    assert (method.optimizer, method.optimizer_settings) == ("row-adamw", {"decay": "always", "momentum": "decay"})
    objective = method.build_objective()
    assert isinstance(objective, Threshold)
    assert (objective.margin, objective.temperature) == (2.0, 0.5)
    assert isinstance(Method.parse("mle").build_objective(), MLE)
    assert Method.parse("threshold:margin=inf").build_objective().margin == math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks a name"),
        (":margin=1", "lacks a name"),
        ("mle+", "lacks a name"),
        ("tresh", "did you mean 'threshold'"),
        ("threshold:margn=1", "did you mean 'margin'"),
        ("mle:margin=1", "no setting 'margin'; it knows no settings"),
        ("threshold:margin", "'margin' is not key=value"),
        ("threshold:margin=", "'margin=' is not key=value"),
        ("threshold:", "'' is not key=value"),
        ("threshold:margin=1,margin=2", "sets 'margin' twice"),
        ("threshold:margin=-1", "margin must be 0 or more"),
        ("threshold:margin=nan", "margin must be 0 or more, got nan"),
        ("threshold:margin=much", "margin=much"),
        ("threshold:norms=all", "norms=all"),
        ("mle+row-adam", "neither an objective nor an optimiser; did you mean 'row-adamw'"),
        ("mle+sgd", "'sgd' in 'mle+sgd' is neither an objective nor an optimiser"),
        ("mle+adamw+row-adamw", "name it last"),
        ("mle+adamw:decay=always", "optimiser 'adamw' has no setting 'decay'"),
        ("mle+row-adamw:lr=1", "has no setting 'lr'"),
        ("mle+row-adamw:decay=sometimes", "decay=sometimes"),
    ],
)
def test_a_word_that_cannot_be_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Method.parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("text", ["mle", "mle+row-adamw"])
def test_matrices_decay_and_gains_do_not(text: str, tied: bool) -> None:
    model = Nano(NanoConfig(vocabulary=9, context=4, layers=1, heads=1, width=8, tied=tied))
    optimizer = Method.parse(text).build_optimizer(model, 0.5, (0.8, 0.9), 0.1)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = dict(model.named_parameters())
    assert {name: decay[id(p)] for name, p in names.items()} == {name: 0.0 if "norm" in name else 0.1 for name in names}
    assert ("untied.weight" in names) is not tied
    assert all((group["lr"], group["betas"]) == (0.5, (0.8, 0.9)) for group in optimizer.param_groups)


@pytest.mark.parametrize("tied", [True, False])
def test_both_tables_go_by_rows(tied: bool) -> None:
    model = Nano(NanoConfig(vocabulary=9, context=4, layers=1, heads=1, width=8, tied=tied))
    optimizer = Method.parse("mle+row-adamw:touched=gradient").build_optimizer(model, 0.5, (0.9, 0.99), 0.1)
    assert isinstance(optimizer, optim.RowAdamW)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.embedding.weight.grad[3:] = 0
    model.head.grad[3:] = 0
    optimizer.step()
    tables = {"embedding.weight"} if tied else {"embedding.weight", "untied.weight"}
    for name, parameter in model.named_parameters():
        moved: Any = (parameter != before[name]).flatten(1).any(1) if parameter.dim() > 1 else parameter != before[name]
        assert moved.tolist() == [row < 3 or name not in tables for row in range(len(parameter))], name
