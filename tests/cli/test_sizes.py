"""Sizes and types that a stranger chooses: one sentence before anything is made of them, and values are cut."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("tiny")

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)
TRAIN = ("train", "tiny.toml", "--out", "out", "--quiet")
EVAL = ("eval", "out", "--text", "tiny.txt")
BILLION = 1_000_000_000


@pytest.mark.parametrize("setting", ["model.width=1000000000", "model.layers=1000000000", "batch.size=1000000000000"])
def test_a_run_larger_than_the_machine(setting: str, decone: Decone) -> None:
    code, _, err = decone(*TRAIN, "--set", setting)
    assert code == 2
    assert "more than the memory of this machine; lower " in err
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["layers", "width", "context"])
def test_a_configuration_larger_than_its_weights(name: str, decone: Decone) -> None:
    assert decone(*TRAIN, "--set", "steps=1").code == 0
    path = Path("out/config.toml")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{name} = {BILLION}" if line.startswith(f"{name} =") else line for line in lines))
    code, _, err = decone(*EVAL)
    assert code == 2
    assert "out/model.safetensors does not fit its config.toml: it holds" in err


@pytest.mark.parametrize("depth", [600, 100_000])
def test_nested_toml(depth: int, decone: Decone) -> None:
    Path("deep.toml").write_text(f"x = {'[' * depth}{']' * depth}\n")
    code, _, err = decone("train", "deep.toml", "--out", "out")
    assert (code, err) == (2, "decone: deep.toml is not TOML: it is nested too deeply\n")


RESULTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "history": lambda result: result["history"].append({"step": "soon"}),
    "curve": lambda result: result["measured"]["best"]["languages"]["HR"]["curve"].append([1.0]),
    "groups": lambda result: result["measured"]["last"]["languages"]["HR"]["groups"].update(rare=3),
    "recall": lambda result: result["measured"]["last"]["languages"]["HR"]["recall"].clear(),
    "best_temperature": lambda result: result["measured"]["best"]["languages"]["HR"].update(best_temperature=0),
    "cores": lambda result: result["machine"].update(cores=[2]),
    "vocabulary": lambda result: result.update(vocabulary=10**400),
}


@pytest.fixture
def study(decone: Decone) -> Path:
    """The folder of a comparison of one run, and the run's result."""
    from decone.studies.compare import Comparison
    from decone.training.config import RunConfig
    from decone.training.loop import Trainer
    from decone.training.run import Run

    plan = Comparison(RunConfig.read(Path("tiny.toml"), {"steps": 2}), ["mle"], [1], Path("study"))
    plan.claim()
    (job,) = plan.jobs()
    Trainer(job.config, Run.create(job.path, job.config)).train()
    return job.path / "result.json"


def test_results_of_wrong_types(study: Path, decone: Decone) -> None:
    sound = study.read_text()
    for name, damage in RESULTS.items():
        content = json.loads(sound)
        damage(content)
        study.write_text(json.dumps(content))
        code, _, err = decone("report", "study")
        assert code == 2, (name, err)
        assert f"{study} is damaged (" in err, name
    study.write_text("[" * 100_000)
    assert "is damaged (it is nested too deeply)" in decone("report", "study").err


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_labels", "num_local_experts"])
def test_a_model_that_repeats_more_than_its_weights_hold(key: str, decone: Decone) -> None:
    pytest.importorskip("transformers")
    Path("model").mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 9, "hidden_size": 4}
    Path("model/config.json").write_text(json.dumps(config | {key: BILLION}))
    save_file({"model.embed_tokens.weight": torch.zeros(9, 4)}, "model/model.safetensors")
    code, _, err = decone("eval", "model", "--text", "tiny.txt")
    assert code == 2
    assert f"{key} is {BILLION}, more than the weights beside it hold; correct it" in err


@pytest.mark.parametrize(
    "arguments",
    [
        (*TRAIN, "--set", f"method={'x' * 5000}"),
        (*TRAIN, "--set", f"steps={'9' * 5000}"),
        (*TRAIN, "--set", "x" * 5000),
        ("compare", "--seeds", "9" * 4000),
        ("compare", "--seeds", f"{BILLION}"),
        ("methods", "x" * 5000),
        ("scan", "tiny.txt", "--check", f"{'x' * 5000}=1"),
    ],
)
def test_values_in_messages_are_cut(arguments: tuple[str, ...], decone: Decone) -> None:
    code, _, err = decone(*arguments)
    assert code == 2
    assert len(err) < 500
