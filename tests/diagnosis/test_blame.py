"""The gradient microscope: parts add up to what autograd gives the tables, for our runs and for Hugging Face models."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as kinds
from torch import Tensor
from torch.nn import functional as F

from decone import objectives
from decone.data.tokens import Languages, random_batch
from decone.diagnosis import blame as module
from decone.diagnosis.blame import (
    STREAM,
    ForwardPass,
    GradientModel,
    hugging_face_subject,
    measure,
    measure_blame,
    run_subject,
    slopes,
)
from decone.metrics.gradients import pull_push_rows
from decone.models.nano import Nano, NanoConfig
from decone.objectives.agg import AGG
from decone.training import checkpoint
from decone.training.config import RunConfig
from decone.training.loop import Trainer
from decone.training.run import Run

CPU = torch.device("cpu")
WORDS = ("the", "a", "cat", "dog", "sat", "on", "mat", "and", "then", "ran", "over", "hill", "by", "sea", "home")
V = 13


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(3)
    path = tmp_path_factory.mktemp("text") / "tiny.txt"
    path.write_text("".join(draw.choice(WORDS) + draw.choice((" ", " ", ".\n")) for _ in range(800)))
    return path


def trained(folder: Path, text: Path, **sections: Any) -> Run:
    config: dict[str, Any] = {
        "steps": 12,
        "corpus": {"name": str(text)},
        "language": {"low_resource": 0.25},
        "model": {"width": 16, "layers": 1, "heads": 2, "context": 16},
        "batch": {"size": 6},
        "optimizer": {"lr": 0.02, "warmup": 2},
        "machine": {"threads": 1, "device": "cpu"},
    }
    run = Run.create(folder, RunConfig.build(config | sections))
    Trainer(run.config, run).train()
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Run:
    return trained(tmp_path_factory.mktemp("runs") / "threshold", text, method="threshold:margin=0.5")


def subject(objective: objectives.Objective, tied: bool) -> tuple[GradientModel, Nano]:
    nano = Nano(NanoConfig(vocabulary=V, context=6, layers=2, heads=2, width=8, tied=tied)).double()
    with torch.no_grad():
        for parameter in nano.parameters():
            parameter.mul_(10 if parameter.dim() == 2 else 1)  # far from uniform predictions

    def send(inputs: Tensor) -> ForwardPass:
        hidden = nano(inputs)
        product = F.linear(hidden, nano.head)
        return ForwardPass(hidden, product, product)

    table, languages = nano.embedding.weight, Languages(V, 0.0)
    return GradientModel(table, nano.head, send, objective, torch.arange(99) * 7 % V, 6, 3, languages), nano


def whole(found: GradientModel, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient through the input table, and the sum of all parts of the output table's."""
    back = slopes(found, batch)
    classes = torch.arange(len(found.table)) % 4
    pull, push = pull_push_rows(back.product, back.hidden, batch[:, 1:].flatten(), classes, 4)
    return back.input, pull + push.sum(0)


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("mle", {}),
    ("threshold", {"margin": 0.05}),
    ("threshold", {"margin": 0.3, "temperature": 0.5}),
    ("threshold", {"alpha": 0.3}),
    ("threshold", {"margin": 0.1, "softminus": 0.5}),
    ("agg", {"alpha": 5.0}),
    ("scalegrad", {"gamma": 0.3}),
    ("unlikelihood", {}),
    ("label_smoothing", {}),
]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("name", "settings"), METHODS)
def test_the_parts_add_up(name: str, settings: dict[str, Any], tied: bool) -> None:
    objective = objectives.get(name, **settings)
    objective.prepare(V)
    objective.observe(torch.randint(6, (30,)))  # counters, where there are any
    found, nano = subject(objective.eval(), tied)
    batch = torch.randint(V, (3, 7))
    through, rest = whole(found, batch)
    nano.zero_grad()
    hidden = nano(batch[:, :-1])
    objective(hidden, nano.head, batch[:, 1:], engine="reference").mean().backward()
    expected = nano.embedding.weight.grad
    assert expected is not None
    assert expected.abs().max() > 0.01
    if tied:
        torch.testing.assert_close(through + rest, expected, rtol=0, atol=1e-10)
    else:
        torch.testing.assert_close(through, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(rest, nano.head.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "settings"), [("adversarial", {}), ("threshold", {"alpha": 0.1, "softminus": 0.5})])
def test_gradient_past_the_logits_is_refused(name: str, settings: dict[str, Any]) -> None:
    found, _ = subject(objectives.get(name, **settings).eval(), True)
    with pytest.raises(ValueError, match=r"past the logits, which cannot be split into pull and push; look at a run"):
        slopes(found, torch.randint(V, (3, 7)))


def test_norms_by_step_against_masks() -> None:
    """Each part by itself: the loss of the positions concerned alone, through autograd."""
    found, nano = subject(objectives.MLE().eval(), True)
    groups = {"frequent": torch.tensor([0, 1, 2]), "medium": torch.tensor([3, 4, 5, 6]), "rare": torch.tensor([7, 8])}
    norms = measure(found, groups, steps=2, seed=5)
    pushes = torch.zeros(3, V, dtype=torch.float64)
    for step in range(2):
        batch = random_batch(found.ids, 6, 3, found.languages, (5, STREAM, step))
        hidden, target = nano(batch[:, :-1]).flatten(0, 1).detach(), batch[:, 1:].flatten()

        def row(positions: Tensor, id: int, hidden: Tensor = hidden, target: Tensor = target) -> float:
            table = nano.head.detach().clone().requires_grad_()
            each = F.cross_entropy(hidden @ table.T, target, reduction="none")
            (gradient,) = torch.autograd.grad(each[positions].sum() / len(target), table)
            return float(gradient[id].norm())

        for id in range(V):
            assert float(norms.pull[step, id]) == pytest.approx(row(target == id, id), abs=1e-12)
            assert float(norms.push[step, id]) == pytest.approx(row(target != id, id), abs=1e-12)
            for place, members in enumerate(groups.values()):
                pushes[place, id] += row((target != id) & torch.isin(target, members), id) / 2
    torch.testing.assert_close(norms.by_class, pushes, rtol=0, atol=1e-12)
    assert int(norms.targets.sum()) == 2 * 3 * 6


def test_a_run_of_ours(run: Run, text: Path) -> None:
    found = measure_blame(str(run.path), text, steps=20, device="cpu")
    size = run.model().vocabulary
    assert (found.steps, found.tokens) == (20, 20 * 6 * 16)
    assert len(found.rows) == len({row.id for row in found.rows}) == size
    assert sum(row.count for row in found.rows) == found.tokens
    assert {row.token for row in found.rows} >= {"a", "a (LR)"}
    assert found.ratio_of_average["all"] is not None
    assert found.average_of_ratio["all"] is not None
    for row in found.rows:
        assert (row.pull > 0) == (row.count > 0)
        assert row.push <= row.push_frequent + row.push_medium + row.push_rare + 1e-7
    # The second language is spoken in a quarter of the windows, as in training.
    low = sum(row.count for row in found.rows if row.token.endswith(" (LR)"))
    assert 0.15 < low / found.tokens < 0.4
    assert low % 16 == 0


def test_ratios_are_those_of_the_rows(run: Run, text: Path) -> None:
    """One step: the ratio of averages follows from the rows, the average of ratios too."""
    found = measure_blame(str(run.path), text, steps=1, device="cpu")
    for name in ("all", "frequent", "rare"):
        rows = [row for row in found.rows if name in ("all", row.group)]
        pull, push = sum(row.pull + row.input for row in rows), sum(row.push for row in rows)
        assert found.ratio_of_average[name] == pytest.approx(pull / push, rel=1e-5)
        each = [(row.pull + row.input) / row.push for row in rows if row.push > 0]
        assert found.average_of_ratio[name] == pytest.approx(sum(each) / len(each), rel=1e-5)


def test_the_objective_is_that_of_the_run(run: Run, text: Path) -> None:
    ours = run_subject(str(run.path), text.read_text(), CPU)
    assert isinstance(ours.objective, objectives.Threshold)
    assert ours.objective.margin == 0.5
    batch = random_batch(ours.ids, ours.context, ours.windows, ours.languages, (0, STREAM, 0))
    dropped = slopes(ours, batch).product
    plain = slopes(GradientModel(**{**vars(ours), "objective": objectives.MLE().eval()}), batch).product
    assert (dropped == 0).float().mean() > 0.2
    assert not (plain == 0).any()


def test_seed_and_limit(run: Run, text: Path) -> None:
    first, same, other = (measure_blame(str(run.path), text, steps=1, device="cpu", seed=s, limit=9) for s in (1, 1, 2))
    assert first == same
    assert first.ratio_of_average != other.ratio_of_average
    assert len(first.rows) == 9
    assert [row.group for row in first.rows] == ["frequent"] * 3 + ["medium"] * 3 + ["rare"] * 3
    assert measure_blame(str(run.path), text, steps=1, device="cpu", limit=0).rows == []


def test_what_is_listed_goes_evenly_over_the_frequencies() -> None:
    groups = {
        "frequent": torch.tensor([5, 6, 7, 8, 9]),
        "rare": torch.tensor([0]),
        "special": torch.tensor([], dtype=torch.long),
    }
    rank = torch.tensor([10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    assert module._listed(groups, rank, 4) == {"frequent": [9, 7, 5], "rare": [0], "special": []}


def test_counters_come_from_the_checkpoint(tmp_path: Path, text: Path) -> None:
    run = trained(tmp_path / "agg", text, method="agg:alpha=2")
    ours = run_subject(str(run.path), text.read_text(), CPU)
    gate = ours.objective.gate()
    assert gate is not None
    assert gate.rare.any()
    assert not gate.rare.all()
    folder = checkpoint.latest(run.path)
    assert folder is not None
    saved = checkpoint.load(folder)[2]["objective"]
    counter = AGG()
    counter.load_state_dict(saved)
    assert counter.recent.total is not None
    assert int(counter.recent.total.sum()) == 12 * 6 * 16
    (folder / "state.json").unlink()
    with pytest.raises(ValueError, match="damaged or foreign"):
        run_subject(str(run.path), text.read_text(), CPU)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="holds no checkpoint with the counters of its method"):
        run_subject(str(run.path), text.read_text(), CPU)


def test_an_objective_that_evaluates_itself_is_refused(tmp_path: Path, text: Path) -> None:
    run = trained(tmp_path / "own", text, method="contrastive_tying", steps=2)
    with pytest.raises(ValueError, match="ContrastiveTying evaluates the loss in its own way"):
        measure_blame(str(run.path), text, device="cpu")


def test_a_text_that_will_not_do_is_refused(run: Run, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("the cat")
    with pytest.raises(ValueError, match="has 7 tokens, one window needs 17; give a longer text"):
        measure_blame(str(run.path), short, device="cpu")
    short.write_text("ÄÖÜ" * 99)
    with pytest.raises(ValueError, match="characters the tokenizer does not know"):
        measure_blame(str(run.path), short, device="cpu")
    with pytest.raises(ValueError, match="no file"):
        measure_blame(str(run.path), tmp_path / "absent", device="cpu")
    for settings in ({"steps": 0}, {"limit": -1}):
        with pytest.raises(ValueError, match="steps must be 1 or more"):
            measure_blame(str(run.path), short, device="cpu", **settings)


def test_broken_weights_are_refused() -> None:
    found, nano = subject(objectives.MLE().eval(), True)
    with torch.no_grad():
        nano.embedding.weight[3, 0] = math.nan
    groups = {name: torch.arange(place, place + 2) for place, name in enumerate(module.PUSHERS)}
    with pytest.raises(ValueError, match="gradients are not finite"):
        measure(found, groups, steps=1, seed=0)


LETTERS = [*"abcdefgh", " ", "\n", "<unk>", "i", "j"]
SMALL = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 16,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "GPT2Config": {"n_positions": 16, "n_embd": 12, "n_layer": 1, "n_head": 2},
    "LlamaConfig": {"tie_word_embeddings": False},
    "Gemma2Config": {"final_logit_softcapping": 0.5},  # and an embedding that is scaled on the way in
    "CohereConfig": {"logit_scale": 0.3},
    "GraniteConfig": {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "tie_word_embeddings": True},
    "PhiConfig": {},  # has a bias on the output
}


def saved(folder: Path, family: str, dtype: torch.dtype) -> Path:
    transformers = pytest.importorskip("transformers")
    inner = Tokenizer(kinds.WordLevel({token: id for id, token in enumerate(LETTERS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(folder)
    small = {key: SMALL[key] for key in SMALL if family != "PhiConfig" or key != "head_dim"}
    config = getattr(transformers, family)(**(small | FAMILIES[family]))
    transformers.AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_a_hugging_face_model_add_up(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", family, dtype)
    found = hugging_face_subject(str(folder), "abc def gh\nij" * 9, CPU)
    assert found.table.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    batch = random_batch(found.ids, found.context, 3, found.languages, (0, STREAM, 0))
    through, rest = whole(found, batch)
    transformers = pytest.importorskip("transformers")
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=found.table.dtype).eval()
    F.cross_entropy(plain(input_ids=batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
    table, head = plain.get_input_embeddings().weight, plain.get_output_embeddings().weight
    assert (table is head) == (family not in ("LlamaConfig", "PhiConfig"))
    near = {"rtol": 0, "atol": 1e-10 if dtype == torch.float64 else 1e-6}
    assert head.grad.abs().max() > 0.01
    if table is head:
        torch.testing.assert_close(through + rest, table.grad, **near)
    else:
        torch.testing.assert_close(through, table.grad, **near)
        torch.testing.assert_close(rest, head.grad, **near)


def test_a_hugging_face_model_as_a_whole(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "GPT2Config", torch.float32)
    text = tmp_path / "text.txt"
    text.write_text("abacabadabacabae" * 20 + "fgh\n")
    found = measure_blame(str(folder), text, steps=2, device="cpu")
    assert found.tokens == 2 * 8 * 16
    assert {row.token for row in found.rows} >= set("abcdefgh")
    count = {row.token: row.count for row in found.rows}
    assert count["a"] > count["b"] > count["d"]
    assert count["j"] == 0
    never = next(row for row in found.rows if row.token == "j")
    assert never.pull == never.input == 0.0
    assert never.push > 0


def test_many_tokens_make_smaller_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "model", "GPT2Config", torch.float32)
    for entries, windows in ((1 << 27, 8), (3 * V * 16, 3), (1, 1)):
        monkeypatch.setattr(module, "LOGITS", entries)
        assert hugging_face_subject(str(folder), "abc" * 20, CPU).windows == windows
    assert hugging_face_subject(str(folder), "abc" * 20, CPU).context == 16
