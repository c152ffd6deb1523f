"""Configurations: every key written out and read back, every mistake answered in one sentence; methods as one word."""

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone import optim
from decone.files.settings import merge_settings, parse_pairs
from decone.models.nano import Nano, NanoConfig
from decone.objectives import MLE, Threshold
from decone.training.config import MachineConfig, Method, RunConfig


def leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


def test_defaults_are_written_out() -> None:
    written = tomllib.loads(RunConfig().dump())
    assert leaves(written) == leaves(RunConfig().model_dump())
    assert written["optimizer"]["beta2"] == 0.99
    assert written["machine"]["checkpoint_every"] == 250


@given(
    lr=st.floats(1e-9, 1e3),
    seed=st.integers(0, 2**63 - 1),
    share=st.floats(0, 1),
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    tied=st.booleans(),
)
def test_what_is_written_is_read(lr: float, seed: int, share: float, name: str, tied: bool) -> None:
    values = {"optimizer": {"lr": lr}, "seed": seed, "language": {"low_resource": share}, "corpus": {"name": name}}
    config = RunConfig.build({**values, "model": {"tied": tied}, "method": "threshold:margin=0.5+row-adamw"})
    path = Path("config.toml")
    path.write_text(config.dump(), encoding="utf-8")
    again = RunConfig.read(path)
    assert again == config
    assert again.identity() == config.identity()


def test_the_identity_of_the_defaults_is_what_committed_results_carry() -> None:
    """A new key, another default or another form of the digest would orphan every result there is."""
    assert RunConfig().identity() == "f89d3abf73470167"


@pytest.mark.parametrize("key", sorted(leaves(RunConfig().model_dump(exclude={"machine"}))))
def test_every_key_but_the_machines_is_part_of_the_identity(key: str) -> None:
    value = leaves(RunConfig().model_dump())[key]
    other: dict[str, Any] = {
        "method": "threshold",
        "corpus.name": "shakespeare",
        "tokenizer.kind": "bpe",
        "evaluation.select": "last",
        "model.heads": 8,
        "model.width": 64,
        "model.dropout": 0.5,
    }
    if key in other:
        changed = other[key]
    elif isinstance(value, bool):
        changed = not value
    else:
        changed = value / 2 if isinstance(value, float) else value + 1
    config = RunConfig.build(merge_settings({}, {key: changed}))
    assert leaves(config.model_dump())[key] == changed != value
    assert config.identity() != RunConfig().identity()


def test_the_machine_is_no_part_of_the_identity() -> None:
    machine = {"device": "cpu", "precision": "float32", "engine": "reference", "threads": 2, "checkpoint_every": 7}
    assert machine.keys() | {"tensorboard"} == MachineConfig.model_fields.keys()
    assert RunConfig.build({"machine": {**machine, "tensorboard": True}}).identity() == RunConfig().identity()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"stps": "3"}, "unknown key 'stps'; did you mean 'steps'?"),
        ({"optimizer.learning_rate": "3"}, "unknown key 'optimizer.learning_rate'; known keys: lr, lr_min,"),
        ({"optimizer.lr_mn": "3"}, "unknown key 'optimizer.lr_mn'; did you mean 'lr_min'?"),
        ({"modle.width": "3"}, "unknown key 'modle'; did you mean 'model'?"),
        ({"model.width.x": "3"}, "model.width = {'x': '3'}: input should be a valid integer"),
        ({"steps": "3", "steps.x": "3"}, "steps.x does not exist: steps is a value, not a section"),
        ({"model.wdth": "3"}, "unknown key 'model.wdth'; did you mean 'width'?"),
        ({"steps": "0"}, "steps = '0': input should be greater than or equal to 1"),
        ({"steps": "many"}, "steps = 'many': input should be a valid integer"),
        ({"optimizer.lr": "nan"}, "optimizer.lr = 'nan': input should be a finite number"),
        ({"optimizer.lr": "inf"}, "optimizer.lr = 'inf': input should be a finite number"),
        ({"optimizer.lr": "-1"}, "optimizer.lr = '-1': input should be greater than 0"),
        ({"language.low_resource": "2"}, "language.low_resource = '2': input should be less than or equal to 1"),
        ({"corpus.validation": "1"}, "corpus.validation = '1': input should be less than 1"),
        ({"model.heads": "3"}, "width 128 is not a multiple of heads 3; choose one that is"),
        ({"model.tied": "perhaps"}, "model.tied = 'perhaps': input should be a valid boolean"),
        ({"model": "3"}, "model = '3': input should be a valid dictionary"),
        ({"seed": "-1"}, "seed = '-1': input should be greater than or equal to 0"),
        ({"tokenizer.kind": "words"}, "tokenizer.kind = 'words': input should be 'characters' or 'bpe'"),
        ({"method": "tresh"}, "unknown method 'tresh'; did you mean 'threshold'?"),
        ({"method": "threshold:margin=nan"}, "margin must be 0 or more, got nan"),
    ],
)
def test_a_mistake_is_one_sentence(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        RunConfig.build(merge_settings({}, overrides))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("steps = 'ten'", "steps = 'ten': input should be a valid integer"),
        ("steps = [1]", "steps = [1]: input should be a valid integer"),
        ("steps = 2.5", "steps = 2.5: input should be a valid integer"),
        ("model = 3", "model = 3: input should be a valid dictionary"),
        ("[optimizer]\nlr = 1979-05-27", "optimizer.lr = '1979-05-27': input should be a valid number"),
        ("[optimizer]\nlr = nan", "optimizer.lr = nan: input should be a finite number"),
        ("[optimizer]\nmargin = 1", "unknown key 'optimizer.margin'; known keys: lr"),
        ("[[model]]\nwidth = 1", "model = [{'width': 1}]: input should be a valid dictionary"),
        ("method = 5", "method = 5: input should be a valid string"),
        ("steps = ", "is not TOML"),
        ("steps = 1\nsteps = 2", "is not TOML"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence(content: str, message: str) -> None:
    Path("config.toml").write_text(content)
    with pytest.raises(ValueError) as error:
        RunConfig.read(Path("config.toml"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"no file nowhere\.toml; name a TOML configuration"):
        RunConfig.read(Path("nowhere.toml"))
    Path("folder.toml").mkdir()
    with pytest.raises(ValueError, match=r"cannot read folder\.toml"):
        RunConfig.read(Path("folder.toml"))
    Path("latin.toml").write_bytes("# Grüße".encode("latin-1"))
    with pytest.raises(ValueError, match=r"cannot read latin\.toml"):
        RunConfig.read(Path("latin.toml"))


def test_overrides_win_over_the_file() -> None:
    Path("config.toml").write_text("steps = 5\n[model]\nwidth = 32\nheads = 2\n")
    config = RunConfig.read(Path("config.toml"), {"model.width": "64", "seed": "7"})
    assert (config.steps, config.model.width, config.model.heads, config.seed) == (5, 64, 2, 7)


def test_merge_leaves_what_it_is_given() -> None:
    values = {"model": {"width": 64, "heads": 2}, "steps": 3}
    assert merge_settings(values, {"model.width": 8, "batch.size": 1}) == {
        "model": {"width": 8, "heads": 2},
        "steps": 3,
        "batch": {"size": 1},
    }
    assert values == {"model": {"width": 64, "heads": 2}, "steps": 3}
    assert merge_settings(values, {}) == values
    assert merge_settings(values, {}) is not values


def test_pairs() -> None:
    assert parse_pairs([]) == {}
    assert parse_pairs(["a.b = c=d ", "e=", "a.b=f"]) == {"a.b": "f", "e": ""}
    for text in ("steps", "=3", " = "):
        with pytest.raises(ValueError, match="is not key=value; write"):
            parse_pairs([text])


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().steps = 3
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().model.width = 3


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
