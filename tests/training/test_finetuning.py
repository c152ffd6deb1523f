"""The loop really learns a tiny task, the same from the same seed, and stops when it must."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.tiny import SCORES, TASK, bert, examples, pairs

from decone.training.finetuning import (
    FinetuneConfig,
    batch_count,
    finetune,
    length_batches,
    parameter_groups,
    schedule,
    shuffled_batches,
)
from decone.training.interrupt import Interrupted
from decone.training.run import read_log
from decone.training.tasks.glue import Classification, load_classifier


def config(**values: Any) -> FinetuneConfig:
    settings = {"model": "tiny", "task": "TINY", "epochs": 3, "lr": 3e-3, "batch": 16, "seed": 5}
    return FinetuneConfig.build({**settings, **values})


def trained(folder: Path, settings: FinetuneConfig, name: str = "log") -> tuple[Classification, list[dict[str, Any]]]:
    model, tokenizer = load_classifier(str(folder), TASK.outputs, settings.seed)
    learner = Classification(model, tokenizer, TASK, examples(160), examples(60, seed=1), settings)
    Path(name).mkdir(exist_ok=True)
    return learner, finetune(learner, settings, Path(name), "cpu", lambda: False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("tiny") / "model")


def test_a_tiny_model_learns_a_tiny_task_the_same_from_the_same_seed(model: Path) -> None:
    learner, epochs = trained(model, config(epochs=6))
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1]["measured"]["accuracy"] > 0.9 > epochs[0]["measured"]["accuracy"]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert not learner.model.training
    again, same = trained(model, config(epochs=6), "again")
    strip = [[epoch[key] for key in ("loss", "measured")] for epoch in (*epochs, *same)]
    assert strip[:6] == strip[6:]
    for one, other in zip(learner.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    lines = list(read_log(Path("log")))
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [10, 20, 30, 40, 50, 60]
    assert lines[-2]["kind"] == "train"
    assert lines[-2]["step"] == 60


def test_another_seed_is_another_run_and_the_table_is_trained(model: Path) -> None:
    before = load_classifier(str(model), 2, 0)[0].bert.embeddings.word_embeddings.weight.clone()
    one, _ = trained(model, config(epochs=1))
    other, _ = trained(model, config(epochs=1, seed=6))
    tables = [learner.model.bert.embeddings.word_embeddings.weight for learner in (one, other)]  # type: ignore[union-attr]
    assert not torch.equal(tables[0], tables[1])
    assert not torch.allclose(tables[0], before, atol=1e-3)


def test_parts_of_a_batch_add_up_to_it(model: Path) -> None:
    """Without dropout, for that is drawn anew for every part."""
    found = []
    for parts in (1, 3):
        settings = config(epochs=1, accumulate=parts, batch=10)
        network, tokenizer = load_classifier(str(model), 2, 1)
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        learner = Classification(network, tokenizer, TASK, examples(35), examples(10), settings)
        folder = Path(f"parts-{parts}")
        folder.mkdir()
        found.append((finetune(learner, settings, folder, "cpu", lambda: False)[0]["loss"], network.classifier.weight))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-4)


def test_scores_are_learned_too(model: Path) -> None:
    settings = config(task="STS-B", epochs=2)
    network, tokenizer = load_classifier(str(model), SCORES.outputs, 1)
    learner = Classification(network, tokenizer, SCORES, pairs(100), pairs(40, seed=1), settings)
    Path("log").mkdir()
    epochs = finetune(learner, settings, Path("log"), "cpu", lambda: False)
    assert set(epochs[0]["measured"]) == {"pearson", "spearman"}
    assert epochs[-1]["loss"] < epochs[0]["loss"]


def test_low_precision_is_another_computation_with_whole_weights(model: Path) -> None:
    _, first = trained(model, config(epochs=1))
    low, second = trained(model, config(epochs=1, precision="bfloat16"))
    assert {parameter.dtype for parameter in low.model.parameters()} == {torch.float32}
    assert first[0]["loss"] != second[0]["loss"] == pytest.approx(first[0]["loss"], rel=0.05)


def test_a_wish_to_stop_ends_it_between_steps(model: Path) -> None:
    settings = config(epochs=1)
    network, tokenizer = load_classifier(str(model), 2, 1)
    learner = Classification(network, tokenizer, TASK, examples(160), examples(10), settings)
    Path("log").mkdir()
    asked = iter([False, False, True])
    with pytest.raises(Interrupted) as stopped:
        finetune(learner, settings, Path("log"), "cpu", lambda: next(asked))
    assert stopped.value.step == 2


def test_a_loss_that_is_no_number_is_told(model: Path) -> None:
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step \d+; lower lr, or take precision float32"):
        trained(model, config(lr=1e30, clip=0, epochs=3))


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    shares = [schedule(step, 20, 0.1) for step in range(21)]
    assert shares[:2] == [0.5, 1.0]
    assert shares[2] == 1.0
    assert shares[20] == 0.0
    assert all(high - low == pytest.approx(1 / 18) for low, high in zip(shares[3:], shares[2:], strict=False))
    assert schedule(0, 10, 0.0) == 1.0
    assert schedule(9, 10, 1.0) == 1.0


def test_biases_and_gains_do_not_decay(model: Path) -> None:
    network, _ = load_classifier(str(model), 2, 1)
    decaying, constant = parameter_groups(network, 0.5)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(one)].split(".")[-1] for one in constant["params"]} == {"bias", "weight"}
    assert all("LayerNorm" in names[id(one)] or names[id(one)].endswith("bias") for one in constant["params"])
    assert "bert.embeddings.word_embeddings.weight" in {names[id(one)] for one in decaying["params"]}
    assert len(decaying["params"]) + len(constant["params"]) == len(names)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300), st.integers(1, 40))
def test_every_example_is_in_one_batch(lengths: list[int], size: int) -> None:
    for batches in (shuffled_batches(lengths, size, (1, 2)), length_batches(lengths, size)):
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        assert max(map(len, batches)) <= size
        assert len(batches) == batch_count(len(lengths), size)


def test_the_seed_and_the_epoch_decide_the_order() -> None:
    lengths = list(range(1, 101))
    first = shuffled_batches(lengths, 8, (1, 0))
    assert first == shuffled_batches(lengths, 8, (1, 0))
    assert first != shuffled_batches(lengths, 8, (1, 1)) != shuffled_batches(lengths, 8, (2, 0)) != first
    assert [batch[0] for batch in first] != sorted(batch[0] for batch in first), "batches are not in order of length"


def test_little_is_padded() -> None:
    lengths = [1, 100] * 32
    assert all(len({lengths[index] for index in batch}) == 1 for batch in shuffled_batches(lengths, 8, (0, 0)))
    assert [lengths[batch[0]] for batch in length_batches(lengths, 32)] == [100, 1]
