"""What a model does on a text: every number against another way to get it, for a run of ours and a GPT-2."""

import json
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decone.diagnosis import behaviour as module
from decone.diagnosis.behaviour import labels, measure_behaviour, windows
from decone.diagnosis.result import Behaviour
from decone.models.huggingface import HuggingFaceModel
from decone.models.nano import Nano
from decone.training.config import RunConfig
from decone.training.loop import Trainer
from decone.training.run import Run

transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402

from decone.diagnosis.behaviour import load_evaluated_text  # noqa: E402
from decone.models.generation import DECODINGS  # noqa: E402

CONTEXT, BASIC = 16, ("greedy", "beam", "top-k", "top-p", "human")


def story(size: int, seed: int = 3) -> str:
    draw = random.Random(seed)
    names = ("the", "a", "cat", "dog", "sat", "on", "mat", "and", "then", "ran", "Жил", "ä", "12", "home")
    return "".join(draw.choice(names) + draw.choice((" ", " ", " ", ".\n")) for _ in range(size))[:size]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps with a simulated second language."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "story.txt").write_text(story(3000), encoding="utf-8")
    config = RunConfig.build(
        {
            "steps": 15,
            "corpus": {"name": str(folder / "story.txt")},
            "language": {"low_resource": 0.25},
            "model": {"width": 16, "layers": 1, "heads": 2, "context": CONTEXT},
            "batch": {"size": 6},
            "optimizer": {"lr": 0.01, "lr_min": 0.001, "warmup": 5},
            "evaluation": {"every": 15, "batches": 2},
            "machine": {"threads": 1, "device": "cpu"},
        }
    )
    Trainer(config, Run.create(folder / "run", config)).train()
    return folder / "run"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 with a tokenizer of one id per character, and two ids that no text holds."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("gpt2")
    known = [*sorted(set(story(3000))), "<unk>", "<script>"]
    inner = Tokenizer(models.WordLevel({token: index for index, token in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"n_positions": 256, "n_embd": 12, "n_layer": 1, "n_head": 2, "initializer_range": 0.4}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=len(known), **shape)).save_pretrained(folder)
    return folder


def expected(model: Nano | HuggingFaceModel, ids: Tensor, context: int, groups: dict[str, list[int]]) -> dict[str, Any]:
    """All numbers of the scoring, position by position in plain Python."""
    logprob: list[list[float]] = []
    blocks: list[list[int]] = []
    for start in range(0, len(ids) - 1, context):
        window = ids[start : start + context + 1]
        logprob += model.logits(window[None, :-1])[0].double().log_softmax(1).tolist()
        blocks.append(window[1:].tolist())
    target = [index for block in blocks for index in block]
    loss = [-row[index] for row, index in zip(logprob, target, strict=True)]
    rank = [1 + sum(value > row[index] for value in row) for row, index in zip(logprob, target, strict=True)]
    guess = [max(range(len(row)), key=row.__getitem__) for row in logprob]

    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values)

    def rep(tokens: list[int], length: int) -> float:
        hits, place = 0, 0
        for block in blocks:
            for inside in range(len(block)):
                hits += tokens[place] in block[max(0, inside - length) : inside]
                place += 1
        return hits / place

    found: dict[str, Any] = {
        "tokens": len(target),
        "perplexity": math.exp(mean(loss)),
        "total": math.fsum(loss),
        "accuracy": mean([place == 1 for place in rank]),
        "recall5": mean([place <= 5 for place in rank]),
        "mrr": mean([1 / place for place in rank]),
        "rep_at": {str(length): rep(guess, length) for length in (16, 32, 128)},
        "rep_at_human": {str(length): rep(target, length) for length in (16, 32, 128)},
        "uniq": {"all": len(set(guess))},
        "uniq_human": {"all": len(set(target))},
        "groups": {},
    }
    for name, members in groups.items():
        inside = [place for place, index in enumerate(target) if index in members]
        found["groups"][name] = {
            "tokens": len(inside),
            "share": len(inside) / len(target),
            "perplexity": math.exp(mean([loss[place] for place in inside])) if inside else None,
            "accuracy": mean([rank[place] == 1 for place in inside]) if inside else None,
        }
        found["uniq"][name] = len(set(guess) & set(members))
        found["uniq_human"][name] = len(set(target) & set(members))
    return found


def check(found: Behaviour, wanted: dict[str, Any], text: str) -> None:
    dumped = found.model_dump()
    for name in ("tokens", "accuracy", "recall5", "rep_at", "rep_at_human", "uniq", "uniq_human"):
        assert dumped[name] == wanted[name], name
    assert found.perplexity == pytest.approx(wanted["perplexity"], rel=1e-5)
    assert found.mrr == pytest.approx(wanted["mrr"], rel=1e-9)
    assert list(dumped["groups"]) == list(wanted["groups"])
    for name, group in wanted["groups"].items():
        for measure, value in group.items():
            close = value if value is None else pytest.approx(value, rel=1e-5)
            assert dumped["groups"][name][measure] == close, (name, measure)
    assert found.bytes == len(text[1:].encode())
    assert found.bits_per_byte == pytest.approx(wanted["total"] / math.log(2) / found.bytes, rel=1e-5)
    assert found.best_perplexity <= found.perplexity
    assert 0.01 <= found.best_temperature <= 2
    for parts in (found.groups, found.scripts):
        assert sum(part.tokens for part in parts.values()) == found.tokens
        total = math.fsum(part.share * math.log(part.perplexity) for part in parts.values() if part.perplexity)
        assert math.exp(total) == pytest.approx(found.perplexity, rel=1e-12)
    assert Behaviour.model_validate(json.loads(found.model_dump_json())) == found


@pytest.mark.parametrize("size", [700, 17, 5, 2])
def test_a_run_of_ours(run: Path, size: int) -> None:
    text = story(size, seed=8)
    Path("text.txt").write_text(text, encoding="utf-8")
    opened = Run.open(run)
    model, tokenizer = opened.model(), opened.tokenizer()
    assert tokenizer is not None
    ids = tokenizer.encode(text)
    order = sorted(range(tokenizer.size), key=lambda index: (-ids.tolist().count(index), index))
    low, high = round(0.3 * len(order)), round(0.8 * len(order))
    groups = {"frequent": order[:low], "medium": order[low:high], "rare": order[high:]}
    wanted = expected(model, ids, CONTEXT, groups)
    second = expected(model, ids, CONTEXT, {"other": list(range(tokenizer.size, model.vocabulary))})
    if second["uniq"]["other"]:  # it slipped into the second language
        wanted = expected(model, ids, CONTEXT, groups | {"other": list(range(tokenizer.size, model.vocabulary))})
    check(measure_behaviour(str(run), Path("text.txt"), device="cpu", prompts=0), wanted, text)


def test_a_model_of_transformers(gpt2: Path) -> None:
    text = story(900, seed=5)
    Path("text.txt").write_text(text, encoding="utf-8")
    model = HuggingFaceModel(str(gpt2), torch.device("cpu"))
    ids = model.encode(text)
    groups = {"frequent": [0, 1, 5, 9], "medium": [*range(10, 20)], "rare": [2, 3], "special": [model.vocabulary - 2]}
    outside = set(range(model.vocabulary)) - {index for members in groups.values() for index in members}
    found = measure_behaviour(
        str(gpt2), Path("text.txt"), {name: torch.tensor(members) for name, members in groups.items()},
        device="cpu", prompts=3,
    )  # fmt: skip
    check(found, expected(model, ids, 256, groups | {"other": sorted(outside)}), text)
    scripts = {"Latin", "Cyrillic", "digits", "punctuation", "space"}
    assert set(found.scripts) == scripts
    cyrillic = sum(character in "Жил" for character in text[1:])
    assert found.scripts["Cyrillic"].tokens == cyrillic
    assert found.scripts["digits"].tokens > 0
    assert found.text == "text.txt"
    assert set(found.decoding) == set(BASIC)
    assert found.decoding["greedy"].samples[0][0] == text[:50]
    assert found.decoding["human"].samples[0] == (text[:50], text[50:150])
    assert [given for given, _ in found.decoding["human"].samples] == [text[300 * i : 300 * i + 50] for i in range(3)]


def test_greedy_continuations_are_the_argmax_loop(run: Path) -> None:
    text = story(400, seed=8)
    Path("text.txt").write_text(text, encoding="utf-8")
    found = measure_behaviour(str(run), Path("text.txt"), device="cpu")
    model, tokenizer = Run.open(run).model(), Run.open(run).tokenizer()
    assert tokenizer is not None
    for place, (given, written) in enumerate(found.decoding["greedy"].samples):
        assert given == text[place * 150 : place * 150 + 50]
        ids = tokenizer.encode(given).tolist()
        for _ in range(100):
            ids.append(int(model.logits(torch.tensor([ids[-CONTEXT:]]))[0, -1].argmax()))
        assert written == tokenizer.decode([index % tokenizer.size for index in ids[50:]])
    assert found.decoding["greedy"].continuations == 2


def test_a_seed_decides_the_draws_and_nothing_else(gpt2: Path) -> None:
    Path("text.txt").write_text(story(400, seed=8), encoding="utf-8")
    first, again, other = (
        measure_behaviour(str(gpt2), Path("text.txt"), device="cpu", seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.decoding["top-p"] != other.decoding["top-p"]
    assert first.decoding["top-k"] != other.decoding["top-k"]
    for name in ("greedy", "beam", "human"):
        assert first.decoding[name] == other.decoding[name]
    assert first.model_copy(update={"decoding": {}}) == other.model_copy(update={"decoding": {}})


def test_logits_that_are_not_kept_give_the_same(gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One reading with everything in memory, or two with a window at a time."""
    Path("text.txt").write_text(story(900, seed=8), encoding="utf-8")
    seen: list[tuple[str, int, int]] = []

    def measured() -> Behaviour:
        seen.clear()
        return measure_behaviour(
            str(gpt2), Path("text.txt"), device="cpu", prompts=0, progress=lambda *step: seen.append(step)
        )

    once = measured()
    assert seen == [("scoring", 768, 899), ("scoring", 899, 899)]
    monkeypatch.setattr(module, "CACHE_BYTES", 0)
    monkeypatch.setattr(module, "TOKENS", 1)
    twice = measured().model_dump()
    assert seen == [(stage, done, 899) for stage in ("scoring", "temperature") for done in (256, 512, 768, 899)]
    for name, value in once.model_dump().items():
        if isinstance(value, float):
            assert twice[name] == pytest.approx(value, rel=1e-6), name
    assert twice["tokens"] == once.tokens
    assert twice["uniq_human"] == once.uniq_human


def test_a_limit_scores_the_beginning(gpt2: Path) -> None:
    text = story(900, seed=8)
    Path("text.txt").write_text(text, encoding="utf-8")
    Path("part.txt").write_text(text[:301], encoding="utf-8")
    limited, part = (
        measure_behaviour(str(gpt2), Path(name), device="cpu", limit=limit)
        for name, limit in (("text.txt", 300), ("part.txt", None))
    )
    assert limited.tokens == 300
    assert limited.decoding["greedy"].continuations == 2
    assert limited.model_copy(update={"text": "part.txt"}) == part


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_weights_are_one_sentence(gpt2: Path, value: float, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(gpt2, tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wte.weight"][3] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    Path("text.txt").write_text(story(100), encoding="utf-8")
    with pytest.raises(ValueError, match=r"scores are not numbers \(NaN or infinite\); scan its weights"):
        measure_behaviour(str(folder), Path("text.txt"), device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": -1}, "prompts is -1; 0 leaves the writing out"),
        ({"limit": 0}, "limit is 0; score at least one token"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available here"),
    ],
)
def test_impossible_wishes_are_one_sentence(gpt2: Path, options: dict[str, Any], message: str) -> None:
    Path("text.txt").write_text(story(100), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        measure_behaviour(str(gpt2), Path("text.txt"), **options)
    assert "\n" not in str(error.value)


def test_a_character_the_run_does_not_know_is_named(run: Path) -> None:
    Path("text.txt").write_text("the cat Ω", encoding="utf-8")
    with pytest.raises(ValueError, match=r"characters the tokenizer does not know, e\.g\. \['Ω'\]"):
        measure_behaviour(str(run), Path("text.txt"), device="cpu")


def test_groups_label_every_token_once() -> None:
    names, label = labels({"rare": torch.tensor([4, 1, 9]), "other": torch.tensor([0])}, 6)
    assert names == ["rare", "other"], "9 has no column"
    assert label.tolist() == [1, 0, 1, 1, 0, 1], "9 has no column"
    with pytest.raises(ValueError, match="the group medium shares tokens with another"):
        labels({"rare": torch.tensor([1]), "medium": torch.tensor([2, 1])}, 3)


@pytest.mark.parametrize(("size", "context"), [(2, 5), (6, 5), (7, 5), (11, 5), (23, 5), (23, 1)])
def test_windows_hold_every_target_once(size: int, context: int) -> None:
    found = [row for group in windows(torch.arange(size), context, 2) for row in group.tolist()]
    assert [index for row in found for index in row[1:]] == list(range(1, size))
    assert all(len(row) == context + 1 for row in found[:-1])


TEXT = "the cat sat on the mat  and\n\nЖил ä sat \n the cat\n" * 5


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "trimmed"])
def llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer puts a mark before every text, and cuts white space from places or not."""
    folder: Path = tmp_path_factory.mktemp("llama")
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"])
    inner.train_from_iterator([TEXT], trainer)
    mark = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=request.param), mark])
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **tokens).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"vocab_size": 290, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**shape, intermediate_size=8, max_position_embeddings=16, initializer_range=0.5)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_model_reads_every_window_after_its_mark(llama: Path) -> None:
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    about = load_evaluated_text(str(llama), Path("text.txt"), "cpu")
    assert (about.context, about.vocabulary, about.types) == (15, 290, 290)
    plain = transformers.LlamaForCausalLM.from_pretrained(llama, use_safetensors=True).eval()
    rows = about.ids[:30].view(2, 15)
    marked = torch.cat((torch.zeros(2, 1, dtype=torch.long), rows), 1)
    with torch.no_grad():
        torch.testing.assert_close(about.logits(rows), plain(input_ids=marked).logits[:, 1:])
    assert about.extend(rows, 3, DECODINGS["greedy"], 0).shape == (2, 3)
    assert about.decode(about.ids.tolist()) == TEXT


def test_tokens_together_are_the_text(llama: Path) -> None:
    """White space that places leave out belongs to the token after it; parts of a character show it whole."""
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    about = load_evaluated_text(str(llama), Path("text.txt"), "cpu")
    for token, index in zip(about.token_texts(), about.ids.tolist(), strict=True):
        alone = about.decode([index])
        assert token in ("Ж", "и", "л", "ä", " ä", " Ж") if "\ufffd" in alone else token == alone
    assert int(about.ends[-1]) == len(TEXT)


def test_a_large_vocabulary_makes_windows_shorter(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr(module, "WINDOW_BYTES", 290 * 4 * 7 + 3)
    assert load_evaluated_text(str(llama), Path("text.txt"), "cpu").context == 7
    monkeypatch.setattr(module, "WINDOW_BYTES", 1)
    assert load_evaluated_text(str(llama), Path("text.txt"), "cpu").context == 1


def test_a_limit_reads_only_the_beginning(llama: Path) -> None:
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    whole, part = (load_evaluated_text(str(llama), Path("text.txt"), "cpu", limit) for limit in (None, 12))
    assert len(part.ids) == len(part.starts) == len(part.ends) == 13
    assert torch.equal(part.ids, whole.ids[:13])
    assert torch.equal(part.ends, whole.ends[:13])
    with pytest.raises(ValueError, match="limit is 0; score at least one token"):
        load_evaluated_text(str(llama), Path("text.txt"), "cpu", 0)


def test_one_token_predicts_nothing(llama: Path) -> None:
    Path("text.txt").write_text("t", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.txt has 1 tokens, nothing can be predicted in it; give a longer text"):
        load_evaluated_text(str(llama), Path("text.txt"), "cpu")


def test_a_tokenizer_that_knows_more_than_the_model_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "more"))
    inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.add_tokens([f"<{index}>" for index in range(inner.get_vocab_size(), 290)])
    inner.add_tokens(["cat sat"])
    inner.save(str(folder / "tokenizer.json"))
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    with pytest.raises(ValueError, match="gives the id 290 but the model scores 290 tokens only; give the tokenizer"):
        load_evaluated_text(str(folder), Path("text.txt"), "cpu")
