"""`decone repair definitions` from the command line to a checkpoint that transformers loads, and back."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.repair.checkpoints import contents
from tests.repair.definitions.worlds import FAMILIES, TOLD, WORDS, glosses, saved, tokenizer, tsv

from decone.models.find_tables import find_tables
from decone.repair.result import DeltaFacts, RepairReport

transformers = pytest.importorskip("transformers")
Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)
TABLE = "bert.embeddings.word_embeddings.weight"
QUICK = ("--device", "cpu", "--quiet")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tsv(Path("words.tsv"), glosses())
    return saved("bert", Path("m"))


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("family", FAMILIES)
def test_from_repair_to_undo(decone: Decone, family: str) -> None:
    folder = saved(family, Path("m"))
    tsv(Path("words.tsv"), glosses())
    before = contents(folder)
    code, out, err = decone(
        "repair", "definitions", "m", "--lexicon", "words.tsv", "--out", "d.safetensors", "--rows", "rare", *QUICK
    )
    assert (code, err) == (0, "")
    assert contents(folder) == before
    assert "8 of" in out
    assert "rows that were not learned from" in out
    assert "R2 against the mean row" in out
    assert "rare is what has a high id" in words(out)
    assert "the output table is the input table" in words(out)
    code, out, _ = decone("repair", "show", "d.safetensors")
    assert code == 0
    assert "definitions for m" in out
    assert "words.tsv" in out
    assert decone("repair", "apply", "m", "d.safetensors", "--out", "n").code == 0
    rows = load_file("d.safetensors")
    old, new = (load_file(Path(name) / "model.safetensors") for name in ("m", "n"))
    (name,) = [name for name, part in old.items() if not torch.equal(part, new[name])]
    assert name == find_tables("m").embedding.name
    assert torch.equal(new[name][rows["0.ids"]], rows["0.new"])
    # The head is tied: what the model predicts of these tokens changes, and of a text without them of no others.
    made = [getattr(transformers, transformers.AutoConfig.from_pretrained(place).architectures[0]) for place in "mn"]
    ids = torch.arange(8)[None]
    more = {"decoder_input_ids": ids} if family in ("bart", "t5") else {}
    with torch.no_grad():
        one, two = (
            kind.from_pretrained(place).eval()(ids, **more).logits[0] for kind, place in zip(made, "mn", strict=True)
        )
    changed = (one - two).abs().amax(0) > 1e-5
    assert changed.nonzero().squeeze(1).tolist() == rows["0.ids"].tolist()
    assert decone("repair", "undo", "n", "d.safetensors", "--out", "b").code == 0
    assert contents(Path("b")) == before != contents(Path("n"))


def test_json_documents(decone: Decone, model: Path) -> None:
    arguments = ("--rows", "last:0.25", "--set", "ridge=10", "--set", "scale=spread", "--tokens", "3", "--seed", "4")
    code, out, err = decone(
        "repair", "definitions", "m", "-l", "words.tsv", "--out", "d.safetensors", *arguments, "--json", *QUICK
    )
    report = RepairReport.model_validate_json(out)
    assert (code, err) == (0, "")
    assert report.delta == "d.safetensors"
    assert report.method == "definitions"
    assert (report.settings["rows"], report.settings["lexicon"], report.settings["preset"]) == (
        "last:0.25",
        ["words.tsv"],
        "decone",
    )
    recipe = report.settings["recipe"]
    assert (recipe["ridge"], recipe["scale"], recipe["seed"]) == (10.0, "spread", 4)
    found = report.results["input"]
    assert (found["defined"], found["rebuilt"], found["learned_from"], found["ridge"]) == (40, 10, 30, 10.0)
    held = found["held_out"]
    assert held["tokens"] == 30
    assert held["r2"] < 1
    assert 1 <= held["median_rank"] <= 104
    for key in ("cosine", "nearest", "top10"):
        mean, low, high = held[key]
        assert low <= mean <= high
    assert 0 <= held["unrelated"] <= 1
    assert held["norm_ratio"] > 0
    assert 0 <= found["unrelated"] <= 1
    assert report.tables[0].changed == 10
    assert len(report.tables[0].tokens) == 3
    code, out, _ = decone("repair", "show", "d.safetensors", "--json")
    assert DeltaFacts.model_validate_json(out).results["input"]["held_out"]["r2"] == pytest.approx(held["r2"])


def test_one_held_out_token_makes_strict_json(decone: Decone, model: Path) -> None:
    """An interval of a single number has no ends: null, for strict readers have no NaN."""
    settings = ("solver=gradient", "read=slot", "epochs=1", "folds=2", "holdout=0.01")
    chosen = [part for pair in settings for part in ("--set", pair)]
    code, out, _ = decone(
        *("repair", "definitions", "m", "-l", "words.tsv", "--out", "d.safetensors", "--rows", "rare:0.5"),
        *(*chosen, "--json", *QUICK),
    )

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(out, parse_constant=refuse)["found"]["input"]
    assert code == 0
    assert found["held_out"]["tokens"] == 1
    assert found["held_out"]["cosine"][1:] == [None, None]
    assert set(found["frozen"]) == set(found["held_out"])
    assert len(found["errors"]) == 2
    assert found["best_epoch"] in (0, 1)
    assert decone("repair", "show", "d.safetensors", "--json").code == 0
    assert decone("repair", "show", "d.safetensors").code == 0


def test_the_paper_s_preset(decone: Decone, model: Path) -> None:
    chosen = ("--preset", "paper", "--set", "epochs=1", "--rows", "all")
    code, out, err = decone("repair", "definitions", "m", "-l", "words.tsv", "--dry-run", *chosen, "--json", *QUICK)
    assert (code, err) == (0, "")
    report = RepairReport.model_validate_json(out)
    assert report.results["input"]["rebuilt"] == 40 == report.results["input"]["learned_from"]
    assert report.settings["recipe"]["noise"] == [0.5, 0.25, 0.25]
    assert report.delta is None
    assert not Path("d.safetensors").exists()
    assert "100% of the defined rows are replaced" in " ".join(report.notes)


def test_the_same_command_twice(decone: Decone, model: Path) -> None:
    for name in ("one", "two"):
        arguments = ("--rows", "rare", "--set", "solver=gradient", "--set", "epochs=1", "--out", f"{name}.safetensors")
        assert decone("repair", "definitions", "m", "-l", "words.tsv", *arguments, *QUICK).code == 0
    one, two = (load_file(f"{name}.safetensors") for name in ("one", "two"))
    assert torch.equal(one["0.ids"], two["0.ids"])
    assert float((one["0.new"] - two["0.new"]).abs().max()) < 1e-6


def test_choices_of_rows(decone: Decone, model: Path) -> None:
    ids = [
        id
        for id, token in sorted((id, token) for token, id in tokenizer("bert")[0].get_vocab().items())
        if token in WORDS
    ]
    Path("ids").write_text(f"{ids[2]} {ids[2]}, {ids[0]}")
    Path("counts").write_text("".join(f"{word}\t{place % 10}\n" for place, word in enumerate(WORDS)))
    for place, (rows, counts, expected) in enumerate(
        (
            ("ids", (), [ids[0], ids[2]]),
            ("rare:0.1", (), ids[-4:]),
            ("rare:0.1", ("--counts", "counts"), ids[0::10]),
            ("seen:0.2", ("--counts", "counts"), sorted([*ids[1::10], *ids[22::10], ids[12]])),
        )
    ):
        out = f"{place}.safetensors"
        code, said, _ = decone(
            "repair", "definitions", "m", "-l", "words.tsv", "--rows", rows, *counts, "--out", out, *QUICK
        )
        assert code == 0
        assert load_file(out)["0.ids"].tolist() == expected
        assert ("rare is what has a high id" in words(said)) is (rows == "rare:0.1" and not counts)


def test_rows_in_doubt_of_a_healthy_table(decone: Decone, model: Path) -> None:
    """The default changes nothing that is not worse than the rest."""
    code, out, err = decone("repair", "definitions", "m", "-l", "words.tsv", "--out", "d.safetensors", *QUICK)
    assert (code, out) == (2, "")
    assert "nothing seems lost: the 8 rarest defined rows" in err
    assert not Path("d.safetensors").exists()


def test_several_lexicons_and_ways(decone: Decone, model: Path) -> None:
    tsv(Path("more.tsv"), {"lona": "kali deko", "dulelona": "lona"})
    more = ("-l", "more.tsv", "--pieces", "--numbers", "--inflections", "--set", "senses=mean", "--set", "mention=drop")
    code, out, _ = decone(
        "repair", "definitions", "m", "-l", "words.tsv", *more, "--rows", "rare", "--dry-run", "--json", *QUICK
    )
    report = RepairReport.model_validate_json(out)
    assert code == 0
    assert report.settings["lexicon"] == ["words.tsv", "more.tsv"]
    assert report.settings["alignment"]["pieces"] is True
    assert report.results["input"]["defined"] > 41


def test_an_untied_head_stays(decone: Decone) -> None:
    tsv(Path("words.tsv"), glosses())
    saved("bert", Path("m"), tie_word_embeddings=False)
    code, out, _ = decone(
        "repair", "definitions", "m", "-l", "words.tsv", "--rows", "rare", "--out", "d.safetensors", *QUICK
    )
    assert code == 0
    assert "the output table is one of its own and stays as it is" in words(out)
    assert decone("repair", "apply", "m", "d.safetensors", "--out", "n").code == 0
    old, new = (load_file(Path(name) / "model.safetensors") for name in ("m", "n"))
    assert [name for name, part in old.items() if not torch.equal(part, new[name])] == [TABLE]


def test_a_tied_table_that_is_stored_twice(decone: Decone, model: Path) -> None:
    """What is stored decides, not what the configuration says."""
    weights = load_file("m/model.safetensors")
    weights["cls.predictions.decoder.weight"] = weights[TABLE].clone()
    save_file(weights, "m/model.safetensors", metadata={"format": "pt"})
    code, out, _ = decone(
        "repair", "definitions", "m", "-l", "words.tsv", "--rows", "rare", "--out", "d.safetensors", "--json", *QUICK
    )
    assert code == 0
    assert set(RepairReport.model_validate_json(out).tables[0].tensors) == {TABLE, "cls.predictions.decoder.weight"}
    assert decone("repair", "apply", "m", "d.safetensors", "--out", "n").code == 0
    new = load_file("n/model.safetensors")
    assert torch.equal(new[TABLE], new["cls.predictions.decoder.weight"])
    assert not torch.equal(new[TABLE], weights[TABLE])


def test_a_half_precision_table(decone: Decone) -> None:
    tsv(Path("words.tsv"), glosses())
    saved("t5", Path("m"), dtype=torch.bfloat16)
    code, _, _ = decone(
        "repair", "definitions", "m", "-l", "words.tsv", "--rows", "rare", "--out", "d.safetensors", *QUICK
    )
    assert code == 0
    assert load_file("d.safetensors")["0.new"].dtype == torch.bfloat16


def test_another_model_s_delta(decone: Decone, model: Path) -> None:
    rows = ("--rows", "rare", "--out", "d.safetensors")
    assert decone("repair", "definitions", "m", "-l", "words.tsv", *rows, *QUICK).code == 0
    saved("bert", Path("other"))
    weights = load_file("other/model.safetensors")
    weights[TABLE][0, 0] += 1
    save_file(weights, "other/model.safetensors", metadata={"format": "pt"})
    code, out, err = decone("repair", "apply", "other", "d.safetensors", "--out", "n")
    assert (code, out) == (2, "")
    assert "is for another model" in err
    assert not Path("n").exists()
    assert decone("repair", "apply", "m", "d.safetensors", "--out", "n").code == 0
    code, _, err = decone("repair", "definitions", "m", "-l", "words.tsv", *rows, *QUICK)
    assert code == 2
    assert "d.safetensors exists" in err
    weights = load_file("n/model.safetensors")
    weights[TABLE][1] += 1  # training after the repair
    save_file(weights, "n/model.safetensors", metadata={"format": "pt"})
    code, _, err = decone("repair", "undo", "n", "d.safetensors", "--out", "b")
    assert code == 2
    assert "was trained or changed" in err
    assert not Path("b").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("absent", "-l", "words.tsv"), "there is no"),
        (("m", "-l", "absent.tsv"), "no file absent.tsv"),
        (("m", "-l", "words.tsv", "--format", "xml"), "there is no format 'xml'"),
        (("m", "-l", "words.tsv", "--case", "lower"), "case cannot be 'lower'"),
        (("m", "-l", "words.tsv", "--forms", "drop"), "--forms 'drop' is not one of"),
        (("m", "-l", "german.tsv"), "none of the lexicon's 1 senses defines one of the 104 tokens, such as"),
        (("m", "-l", "words.tsv", "--set", "colour=red"), "definitions have no setting 'colour'"),
        (("m", "-l", "words.tsv", "--set", "ridge"), "ridge"),
        (("m", "-l", "words.tsv", "--set", "folds=1"), "folds: "),
        (("m", "-l", "words.tsv", "--preset", "released"), "there is no preset 'released'"),
        (("m", "-l", "words.tsv", "--device", "cuda:99"), "choose auto"),
        (("m", "-l", "words.tsv", "--mask", "<hole>"), "the tokenizer has no <hole> token"),
        (("m", "-l", "words.tsv", "--embedding", "no.such"), "no.such"),
        (("m", "-l", "words.tsv", "--rows", "rarest"), "no file rarest; --rows takes doubtful"),
        (("m", "-l", "words.tsv", "--rows", "seen:0.5"), "by task, tokens are chosen by counts"),
        (("m", "-l", "words.tsv", "--rows", "rare:0"), "chooses none of 40"),
        (("m", "-l", "words.tsv", "--rows", "special"), "2 (special), 5 (unused), 101 (padding); leave them out"),
        (
            ("m", "-l", "words.tsv", "--rows", "undefined"),
            f"1 tokens have no definition in the lexicon: 37 '{TOLD[0]}'",
        ),
        (("m", "-l", "words.tsv", "--rows", "beyond"), "id 104 is beyond the table's 104 rows"),
        (
            ("m", "-l", "words.tsv", "--rows", "all"),
            "none is left to learn from; replace fewer, or set train_on=others",
        ),
        (("m", "-l", "words.tsv", "--rows", "last:0.99"), "1 tokens to learn from cannot be cut into 5 folds"),
        (("m", "-l", "words.tsv", "--rows", "rare", "--counts", "absent"), "no file absent"),
        (("m", "-l", "few.tsv", "--rows", "rare:0.5"), "2 tokens to learn from cannot be cut into 5 folds"),
        (
            ("m", "-l", "words.tsv", "--set", "train_on=others", "--set", "solver=gradient", "--rows", "rare"),
            "solver=ridge",
        ),
        (("m", "-l", "words.tsv", "--rows", "x" * 300), "x"),
        (("m/model.safetensors", "-l", "words.tsv"), "has no tokenizer"),
    ],
)
def test_mistakes_are_one_sentence(decone: Decone, model: Path, arguments: tuple[str, ...], said: str) -> None:
    for name, content in (
        ("german.tsv", "Kegel\tein Körper\n"),
        ("special", "2 5 101"),
        ("undefined", "37 61"),
        ("beyond", "104"),
    ):
        Path(name).write_text(content)
    tsv(Path("few.tsv"), dict(list(glosses().items())[:4]))
    before = contents(Path())
    code, out, err = decone("repair", "definitions", *arguments, "--out", "d.safetensors", "--quiet")
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("decone: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert contents(Path()) == before


def test_options_that_are_missing(decone: Decone, model: Path) -> None:
    code, _, err = decone("repair", "definitions", "m", "--out", "d.safetensors")
    assert code == 2
    assert "--lexicon" in err
    code, _, err = decone("repair", "definitions", "m", "-l", "words.tsv", "--rows", "rare")
    assert code == 2
    assert "say where the delta goes" in err
    for place in ("m/d.safetensors", "d"):
        code, _, err = decone("repair", "definitions", "m", "-l", "words.tsv", "--rows", "rare", "--out", place)
        assert code == 2
        assert "own folder" in err or "end in .safetensors" in err


def test_models_that_cannot_read_a_definition(decone: Decone) -> None:
    inner, roles = tokenizer("bert")
    tsv(Path("words.tsv"), glosses())
    size = {"vocab_size": inner.get_vocab_size(), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**size)).save_pretrained("gpt")
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **roles).save_pretrained("gpt")
    code, out, err = decone(
        "repair", "definitions", "gpt", "-l", "words.tsv", "--rows", "rare", "--out", "d.safetensors", *QUICK
    )
    assert (code, out) == (2, "")
    assert "in both directions (it is causal); repair an encoder" in err
    assert not Path("d.safetensors").exists()


def test_a_damaged_table(decone: Decone, model: Path) -> None:
    weights = load_file("m/model.safetensors")
    weights[TABLE][[5, 70]] = math.nan
    save_file(weights, "m/model.safetensors", metadata={"format": "pt"})
    before = contents(Path())
    code, out, err = decone(
        "repair", "definitions", "m", "-l", "words.tsv", "--rows", "rare", "--out", "d.safetensors", *QUICK
    )
    assert (code, out) == (2, "")
    assert "are not finite (2: 5, 70); give them a value first" in err
    assert contents(Path()) == before


def test_two_input_tables_want_a_name(decone: Decone) -> None:
    """T5Gemma: encoder and decoder have a table each, and a repair is of one."""
    inner, roles = tokenizer("t5")
    tsv(Path("words.tsv"), glosses())
    part = {"vocab_size": inner.get_vocab_size(), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    part |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8}
    part |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "max_position_embeddings": 64}
    config = transformers.T5GemmaConfig(encoder=part, decoder=part, is_encoder_decoder=True)
    transformers.T5GemmaForConditionalGeneration(config).save_pretrained("m")
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **roles).save_pretrained("m")
    asked = ("repair", "definitions", "m", "-l", "words.tsv", "--rows", "rare", *QUICK)
    code, out, err = decone(*asked, "--out", "d.safetensors")
    names = [f"model.{side}.embed_tokens.weight" for side in ("decoder", "encoder")]
    assert (code, out) == (2, "")
    assert f"--embedding {names[0]} or --embedding {names[1]}" in words(err)
    before = load_file("m/model.safetensors")
    for place, name in enumerate(names):
        code, _, _ = decone(*asked, "--embedding", name, "--out", f"{place}.safetensors")
        assert code == 0
        assert decone("repair", "apply", "m", f"{place}.safetensors", "--out", f"{place}").code == 0
        after = load_file(f"{place}/model.safetensors")
        assert [key for key, value in before.items() if not torch.equal(value, after[key])] == [name]
        ids = load_file(f"{place}.safetensors")["0.ids"]
        assert (before[name] != after[name]).any(1).nonzero().squeeze(1).tolist() == ids.tolist()


def test_what_is_foreign_does_not_reach_the_terminal(decone: Decone, model: Path) -> None:
    tsv(Path("words.tsv"), glosses() | {WORDS[0]: "\x1b[31m[bold]lona[/bold]\u202e kali"})
    code, out, err = decone(
        "repair", "definitions", "m", "-l", "words.tsv", "--rows", "all", "--set", "train_on=others", "--dry-run"
    )
    assert code == 0
    assert not {"\x1b", "\u202e"} & set(out + err)
    code, out, err = decone("repair", "definitions", "m", "-l", "words.tsv", "--set", "\x1b[31m=1", "--dry-run")
    assert code == 2
    assert "\x1b" not in err


def test_control_c_says_that_nothing_is_there(decone: Decone, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("decone.repair.definitions.rebuild.rebuild_rows", stop)
    code, _, err = decone(
        "repair", "definitions", "m", "-l", "words.tsv", "--rows", "rare", "--out", "d.safetensors", *QUICK
    )
    assert code == 130
    assert "nothing was written, and the same command begins anew" in words(err)
    assert not Path("d.safetensors").exists()
