"""`decone repair` from the command line to a checkpoint that transformers loads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.repair.checkpoints import INPUT, V, cone, contents, llama, minilm

from decone.repair.result import DeltaFacts, RepairReport, WrittenCheckpoint

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)
WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture
def model() -> Path:
    return llama(Path("m"), head=cone(seed=1))


def test_from_repair_to_undo(decone: Decone, model: Path) -> None:
    before = contents(model)
    code, out, err = decone("repair", "directions", "m", "--out", "d.safetensors", "--components", "2")
    assert (code, err) == (0, "")
    assert "120 of 120 rows" in out
    assert "control" in out
    assert "I(W)" in out
    assert "neighbours before" in out
    code, out, _ = decone("repair", "show", "d.safetensors")
    assert code == 0
    assert INPUT in out
    assert "components 2" in out
    assert "centre mean" in out
    code, out, _ = decone("repair", "apply", "m", "d.safetensors", "--out", "n")
    assert code == 0
    assert "rewritten: model-00001-of-00002.safetensors" in out
    code, out, _ = decone("repair", "undo", "n", "d.safetensors", "--out", "b", "--link")
    assert code == 0
    assert "linked: README.md" in out
    assert contents(Path("b")) == contents(model) == before != contents(Path("n"))


def test_json_documents(decone: Decone, model: Path) -> None:
    arguments = ("--table", "both", "--rows", "last:0.25", "--centre", "kept", "--tokens", "4", "--json")
    code, out, _ = decone("repair", "directions", "m", "--out", "sub/d.safetensors", *arguments)
    report = RepairReport.model_validate_json(out)
    assert code == 0
    assert report.delta == "sub/d.safetensors"
    assert report.bytes == Path(report.delta).stat().st_size
    assert [(table.role, table.changed, len(table.tokens)) for table in report.tables] == [
        ("input", 30, 4),
        ("output", 30, 4),
    ]
    assert set(report.tables[0].groups) == {"all", "changed"}
    assert report.settings["rows"] == "last:0.25"
    code, out, _ = decone("repair", "show", "sub/d.safetensors", "--json")
    assert DeltaFacts.model_validate_json(out).tables[1].role == "output"
    for verb, source, target in (("apply", "m", "n"), ("undo", "n", "b")):
        code, out, _ = decone("repair", verb, source, "sub/d.safetensors", "--out", target, "--json")
        assert len(WrittenCheckpoint.model_validate_json(out).rewritten) == 2
    assert contents(Path("b")) == contents(model)


def test_a_dry_run_writes_nothing(decone: Decone, model: Path) -> None:
    before = contents(Path())
    code, out, _ = decone("repair", "directions", "m", "--dry-run", "--out", "d.safetensors")
    assert code == 0
    assert "a dry run: nothing was written" in out
    code, out, _ = decone("repair", "directions", "m", "--dry-run", "--json")
    assert code == 0
    assert RepairReport.model_validate_json(out).delta is None
    assert contents(Path()) == before


def test_choices_of_rows(decone: Decone, model: Path) -> None:
    Path("ids.txt").write_text("5\n9\n")
    Path("counts.tsv").write_text("".join(f"{row}\t{V - row}\n" for row in range(V)))
    chosen = {"ids.txt": [5, 9], "last:0.05": list(range(114, 120)), "all": list(range(V))}
    for place, (rows, expected) in enumerate(chosen.items()):
        assert decone("repair", "directions", "m", "--out", f"{place}.safetensors", "--rows", rows).code == 0
        assert load_file(f"{place}.safetensors")["0.ids"].tolist() == expected
    code, out, _ = decone(
        "repair", "directions", "m", "--out", "r.safetensors", "--rows", "rare", "--counts", "counts.tsv"
    )
    assert code == 0
    assert load_file("r.safetensors")["0.ids"].tolist() == list(range(96, 120))
    assert "moves them away" in " ".join(out.split())
    code, out, _ = decone("repair", "directions", "m", "--dry-run", "--rows", "rare")
    assert code == 0
    assert "ids stand for frequency ranks" in " ".join(out.split())  # said, for it is a guess


def test_rows_of_chat_tokens(decone: Decone) -> None:
    head = cone(seed=1)
    head[[4, 5]] = 0
    folder = llama(Path("m"), head=head)
    before = contents(folder)
    code, out, err = decone("repair", "rows", "m", "--out", "d.safetensors", "--json")
    assert (code, err) == (0, "")
    report = RepairReport.model_validate_json(out)
    assert [(table.role, table.changed) for table in report.tables] == [("output", 2)]
    assert decone("repair", "apply", "m", "d.safetensors", "--out", "n").code == 0
    code, out, err = decone("repair", "rows", "n", "--dry-run")
    assert (code, out) == (2, "")
    assert "no token of n has an untrained row" in " ".join(err.split())
    code, out, _ = decone("repair", "rows", "n", "--ids", "4-6,9", "--init", "like=7", "--dry-run")
    assert code == 0
    assert "ids 4-6,9, init like=7" in out
    assert "4 of 120 rows" in out
    assert decone("repair", "undo", "n", "d.safetensors", "--out", "b").code == 0
    assert contents(Path("b")) == contents(folder) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("directions", "m"), "say where the delta goes"),
        (("directions", "absent", "--dry-run"), "there is no"),
        (("directions", "m", "--out", "m/d.safetensors"), "own folder"),
        (("directions", "m", "--out", "d"), "end in .safetensors"),
        (("directions", "m", "--dry-run", "--components", "8"), "take from 0 to 7"),
        (("directions", "m", "--dry-run", "--components", "0", "--centre", "origin"), "change nothing"),
        (("directions", "m", "--dry-run", "--rows", "rarest"), "no file rarest"),
        (("directions", "m", "--dry-run", "--rows", "last:x"), "last:0.2"),
        (("directions", "m", "--dry-run", "--counts", "c.tsv"), "--rows rare"),
        (("directions", "m", "--dry-run", "--centre", "median"), "median"),
        (("directions", "m", "--dry-run", "--embedding", "no.such"), "no.such"),
        (("show", "m/config.json"), "safetensors"),
        (("apply", "m", "absent.safetensors", "--out", "n"), "no file"),
        (("apply", "m", "m/model-00001-of-00002.safetensors", "--out", "n"), "no delta"),
        (("undo", "m", "absent.safetensors", "--out", "n"), "no file"),
    ],
)
def test_mistakes_are_one_sentence(decone: Decone, model: Path, arguments: tuple[str, ...], said: str) -> None:
    before = contents(Path())
    code, out, err = decone("repair", *arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert contents(Path()) == before


def test_strange_tokens_do_not_reach_the_terminal(decone: Decone) -> None:
    folder = llama(Path("m"))
    vocabulary = {f"\x1b[31m[bold]{row}\u202e": row for row in range(V)}
    tokenizer = {"version": "1.0", "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    code, out, err = decone("repair", "directions", "m", "--dry-run")
    assert code == 0
    assert "\x1b" not in out + err
    assert "\u202e" not in out + err
    assert "[bold]" in out


def test_a_run_of_ours(decone: Decone, tiny: Path) -> None:
    assert decone("train", "tiny.toml", "--out", "run", "--quiet").code == 0
    before = contents(Path("run"))
    code, out, _ = decone("repair", "directions", "run", "--out", "d.safetensors", "--rows", "rare", "--centre", "kept")
    assert code == 0
    assert "embedding.weight" in out
    assert decone("repair", "apply", "run", "d.safetensors", "--out", "n").code == 0
    assert decone("scan", "n", "--out", "scan").code == 0
    assert decone("repair", "undo", "n", "d.safetensors", "--out", "b").code == 0
    assert contents(Path("b")) == contents(Path("run")) == before


def test_a_real_encoder(decone: Decone) -> None:
    """I(W) as measured, and every byte back."""
    source = minilm()
    before = contents(source)
    code, out, _ = decone("repair", "directions", str(source), "--out", "d.safetensors", "--tokens", "2", "--json")
    assert code == 0
    (table,) = RepairReport.model_validate_json(out).tables
    found = table.groups["all"]
    assert (table.shape, table.changed, table.tensors) == ((30522, 384), 30522, [WORDS])
    assert found.before.isotropy_plus_minus == pytest.approx(0.8434, abs=5e-4)
    assert found.after.isotropy_plus_minus == pytest.approx(0.9935, abs=5e-4)
    assert found.control.isotropy_plus_minus == pytest.approx(0.8777, abs=5e-4)
    assert decone("repair", "apply", str(source), "d.safetensors", "--out", "n").code == 0
    assert [name for name, digest in contents(Path("n")).items() if digest != before[name]] == ["model.safetensors"]
    assert decone("repair", "undo", "n", "d.safetensors", "--out", "b").code == 0
    assert contents(Path("b")) == contents(source) == before


@pytest.mark.slow
def test_transformers_loads_it_and_hidden_states_differ_through_the_table_alone(decone: Decone) -> None:
    transformers = pytest.importorskip("transformers")
    source = minilm()
    arguments = ("--rows", "last:0.2", "--tokens", "0", "--json")
    assert decone("repair", "directions", str(source), "--out", "d.safetensors", *arguments).code == 0
    assert decone("repair", "apply", str(source), "d.safetensors", "--out", "n").code == 0
    old = transformers.AutoModel.from_pretrained(source).eval()
    new = transformers.AutoModel.from_pretrained("n").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("n")
    touched = tokenizer(["adultery in ks"], return_tensors="pt")
    other = tokenizer(["the cat is here"], return_tensors="pt")
    rows = load_file("d.safetensors")
    assert int(other.input_ids.max()) < int(rows["0.ids"][0]) <= int(touched.input_ids.max())
    with torch.no_grad():
        assert torch.equal(old(**other).last_hidden_state, new(**other).last_hidden_state)
        assert not torch.allclose(old(**touched).last_hidden_state, new(**touched).last_hidden_state, atol=1e-2)
        old.get_input_embeddings().weight[rows["0.ids"]] = rows["0.new"]
        assert torch.equal(old(**touched).last_hidden_state, new(**touched).last_hidden_state)
    for (name, one), (_, two) in zip(old.state_dict().items(), new.state_dict().items(), strict=True):
        assert torch.equal(one, two), name
