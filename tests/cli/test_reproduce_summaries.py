"""`decone reproduce definitionemb:summarization` from files to a table, with tiny models and a file of our own."""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.training.tiny import bart, bert, gpt2, t5, texts

from decone.data.published import Published
from decone.studies import downstream
from decone.studies.downstream import FinetuneJob
from decone.training.tasks.summarization import SOURCES

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)

TABLE = "definitionemb:summarization"
HOME = Path("results/definitionemb/summarization")
SETTINGS = ("epochs=1", "lr=3e-3", "batch=8", "length=32", "target=16", "beams=2", "shortest=2", "longest=6")
OPTIONS = ("--rows", "original,directions", "--device", "cpu", *(word for one in SETTINGS for word in ("--set", one)))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both sets as small files in DECONE_DATA, and one process; gives the names of what is run."""
    monkeypatch.setenv("DECONE_DATA", "data")
    for name, source in list(SOURCES.items()):
        rows = [{source.document: pair.document, source.summary: pair.summary} for pair in texts(30, len(name))]
        path = Path("data") / source.file.path
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        file = Published(source.file.path, None, hashlib.sha256(path.read_bytes()).hexdigest())
        monkeypatch.setitem(SOURCES, name, replace(source, file=file))
    names: list[str] = []

    def serial(pieces: Sequence[FinetuneJob], work: Any, keep: Any, processes: int, watch: Any) -> None:
        for piece in pieces:
            names.append(piece.name)
            keep(piece, work(piece, 1, lambda: False))

    monkeypatch.setattr(downstream, "work_off", serial)
    return names


def test_a_table_is_filled_bit_by_bit(decone: Decone, ran: list[str]) -> None:
    bart(Path("model"))
    options = (*OPTIONS, "--model", "model")
    code, out, err = decone("reproduce", TABLE, *options, "--tasks", "dialogsum", "--seeds", "1")
    assert (code, err) == (0, f"the table is {HOME}/model.md\n")
    assert ran == ["original dialogsum seed 1337", "directions dialogsum seed 1337"]
    assert "DialogSum R-1" in out
    assert "DialogSum R-L" in out
    assert "CNN/DM R" not in out
    assert "paper: none found" in out
    ran.clear()
    code, out, err = decone("reproduce", TABLE, *options, "--seeds", "2")
    assert code == 0
    assert "CNN/DM R-2" in out
    assert "Average" in out
    assert len(ran) == 6, "what is there is not made again"
    assert "original dialogsum seed 1337" not in ran, "what is there is not made again"
    assert decone("reproduce", TABLE, *options, "--seeds", "2").code == 0
    assert len(ran) == 6
    assert decone("reproduce", TABLE, *options, "--show") == (0, out, "")
    result = json.loads((HOME / "model/directions-cnn_dailymail-seed-1.json").read_text())
    assert result["examples"] == {"train": 24, "dev": 6}
    assert set(result["epochs"][0]["measured"]) == {"rouge1", "rouge2", "rougeL"}
    decoding = ("beams", "shortest", "longest", "length_penalty", "no_repeat")
    assert [result["config"][key] for key in decoding] == [2, 2, 6, 2.0, 3], "of the task where the user says nothing"
    other = decone("reproduce", TABLE, *options, "--set", "beams=3", "--show")
    assert other.code == 2
    assert "was made with beams=2, not 3; choose another --out" in other.err


def test_t5_goes_the_same_way(decone: Decone, ran: list[str]) -> None:
    t5(Path("model"))
    options = (*OPTIONS, "--model", "model", "--tasks", "dialogsum", "--seeds", "1")
    code, out, _ = decone("reproduce", TABLE, *options, "--set", "prefix=the film")
    assert code == 0
    assert "DialogSum R-2" in out
    assert len(ran) == 2
    assert json.loads((HOME / "model/original-dialogsum-seed-1337.json").read_text())["config"]["prefix"] == "the film"


def test_what_cannot_be_is_told_in_a_sentence(decone: Decone, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = (*OPTIONS, "--rows", "original", "--seeds", "1")
    for make, kind in ((bert, "bert"), (gpt2, "gpt2")):
        make(Path(kind))
        code, out, err = decone("reproduce", TABLE, *options, "--model", kind)
        assert (code, out) == (2, "")
        assert err.startswith(f"decone: {kind} is no encoder-decoder")
        assert err.count("\n") == 1
    assert "no task 'xsum'; its tasks" in decone("reproduce", TABLE, *options, "--tasks", "xsum").err.replace(TABLE, "")
    assert "unknown key 'beam'; did you mean 'beams'?" in decone("reproduce", TABLE, *options, "--set", "beam=2").err
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    runs = list(ran)
    code, _, err = decone("reproduce", TABLE, *options, "--model", "bert")
    assert code == 2
    assert err == 'decone: ROUGE needs the package rouge-score: pip install "decone[eval]"\n'
    assert ran == runs, "told before anything is run"
