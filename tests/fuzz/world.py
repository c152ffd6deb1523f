"""Tiny files of every kind that decone reads, made once, and the commands that read them."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cli.conftest import TINY
from tests.data.test_lexicons_wordnet import database
from tests.repair.definitions.worlds import glosses, saved
from tests.repair.vocabularies import build

from decone.repair.api import apply_delta, repair_directions
from decone.studies.compare import Comparison
from decone.training.config import RunConfig
from decone.training.loop import Interrupted, Trainer
from decone.training.run import Run

RESULTS = Path(__file__).parents[2] / "results" / "stop-jostling"
SENTENCES = "the cat sat on the mat and then the dog ran over the hill by the sea.\n"
METHODS = ("mle", "threshold:margin=1")
METHOD = "threshold:margin=1+scalegrad:gamma=0.5+row-adamw"
SHORT = [f"--set {key}" for key in ("steps=2", "evaluation.every=2", "evaluation.batches=1", "batch.accumulate=1")]


class Door(NamedTuple):
    """A command, and what may become of its input.

    Attributes:
        command: its words; a word after "~" may be mutated.
        inputs: files and folders of the world that it reads, mutated as well; after "=" those that stay as they are.
        writes: names that it may write or change.
        weight: how often it is tried.
    """

    command: str
    inputs: str
    writes: tuple[str, ...] = ("out",)
    weight: int = 1


MODELS = ("bert", "roberta", "gpt2", "t5", "pairs", "pieces", "run", "bare.safetensors")
SCAN = "scan {} --prompts 0 --out out --json --quiet"
DOORS = [
    *(Door(SCAN.format(model), model, weight=4) for model in MODELS),
    Door(f"{SCAN.format('gpt2')} --text tiny.txt --limit 40", "gpt2 tiny.txt", weight=3),
    Door("scan gpt2 --text tiny.txt --limit 40 --prompts 1 --blame -o out -q", "gpt2 tiny.txt"),
    Door(f"{SCAN.format('run')} --text tiny.txt --limit 40", "run tiny.txt"),
    Door(f"{SCAN.format('bert')} --counts counts.tsv", "=bert counts.tsv", weight=3),
    Door(f"{SCAN.format('bert')} --counts counts.json", "=bert counts.json", weight=2),
    Door(f"{SCAN.format('bert')} --words similar.tsv", "=bert similar.tsv", weight=2),
    Door(f"{SCAN.format('gpt2')} --against repaired", "=gpt2 repaired", weight=2),
    Door("scan bert --prompts 0 -o out -q --check ~cone=0.2,undertrained=50", "=bert"),
    Door("scan bert --prompts 0 -o out -q --embedding ~bert.embeddings.word_embeddings.weight --device ~cpu", "=bert"),
    Door("repair directions gpt2 --components 1 --out out.safetensors -q", "gpt2", ("out.safetensors",), 3),
    Door("repair directions run --components 1 --out out.safetensors -q", "run", ("out.safetensors",)),
    Door("repair directions gpt2 --rows rows.txt --out out.safetensors -q", "=gpt2 rows.txt", ("out.safetensors",)),
    Door("repair directions gpt2 --rows ~last:0.25 --components ~2 --out ~out.safetensors -q", "=gpt2", (".",)),
    Door(
        "repair definitions words -l words.tsv --device cpu --out out.safetensors -q --rows rare",
        "words words.tsv",
        ("out.safetensors",),
        2,
    ),
    Door(
        "repair definitions words -l words.tsv --device cpu --dry-run -q --rows ~rare --set ~ridge=10 --preset ~decone",
        "=words =words.tsv",
        (),
    ),
    Door("repair show delta.safetensors", "delta.safetensors", (), 6),
    Door("repair apply gpt2 delta.safetensors --out out", "gpt2 delta.safetensors", weight=4),
    Door("repair undo repaired delta.safetensors --out out", "repaired delta.safetensors", weight=4),
    Door("grow bert tokens.txt --out out -q", "bert tokens.txt", weight=4),
    Door("grow gpt2 tokens.txt --out out -q --init mean", "gpt2 tokens.txt", weight=3),
    Door("grow t5 snow,frost --out out -q --init neighbours", "t5", weight=3),
    Door("grow roberta ~snow,frost --out ~out -q --init ~sample --multiple ~8 --match ~word", "=roberta", (".",), 2),
    *(
        Door(f"trim {model} --text tiny.txt --out out -q", f"{model} tiny.txt", weight=3)
        for model in ("bert", "roberta", "gpt2", "t5")
    ),
    Door("trim bert --keep keep.txt --out out -q", "=bert keep.txt", weight=2),
    Door("trim gpt2 --unreachable --out out -q", "gpt2"),
    Door("eval gpt2 --text tiny.txt --json", "gpt2 tiny.txt", (), 3),
    Door("eval run --text tiny.txt --json", "run tiny.txt", (), 4),
    Door("eval run --text tiny.txt --batch ~4 --device ~cpu", "=run =tiny.txt", ()),
    Door("report study -q", "study =tiny.txt", ("study/table.md", "study/report.html"), 5),
    Door("reproduce stop-jostling:table1 --rows baseline --seeds 1337, --out results --show --json", "results", (), 3),
    Door("reproduce ~stop-jostling:table1 --rows ~baseline,margin-1 --seeds ~1337,1 --select ~best --show", "", ()),
    Door(f"train tiny.toml {' '.join(SHORT)} --out out -q --json", "tiny.toml =tiny.txt", weight=5),
    Door(f"train tiny.toml {' '.join(SHORT)} --out out -q --json", "=tiny.toml tiny.txt", weight=2),
    Door(
        f"train tiny.toml {' '.join(SHORT)} --set ~method={METHOD} --out ~out -q",
        "=tiny.toml =tiny.txt",
        (".",),
        4,
    ),
    Door(
        f"train tiny.toml {' '.join(SHORT)} --set ~optimizer.lr=0.01 --seed ~3 --device ~cpu --out out -q",
        "=tiny.toml =tiny.txt",
        weight=2,
    ),
    Door("train --resume stopped -q", "stopped =tiny.txt", ("stopped",), 3),
    Door(
        "compare --methods ~mle,threshold:margin=1+row-adamw --seeds ~2 --config tiny.toml --out ~out -q",
        "=tiny.toml =tiny.txt",
        (".",),
        2,
    ),
    Door(
        "compare --methods mle --seeds 1 --config tiny.toml --set steps=4 --out study -q",
        "=tiny.toml =tiny.txt study",
        ("study",),
    ),
    Door("methods ~threshold --json", "", ()),
    *(
        Door(f"lexicon bert {lexicon} --json -q --out out.json", f"=bert {lexicon}", ("out.json",), 2)
        for lexicon in ("words.tsv", "entries.jsonl", "table.tsv", "dict", "packed.gz")
    ),
    Door(
        "lexicon bert words.tsv --format ~tsv --case ~auto --senses ~all --forms ~follow --language ~en",
        "=bert =words.tsv",
        (),
    ),
    Door("lexicon bert words.tsv --counts counts.tsv -q", "bert =words.tsv counts.tsv", ()),
]


def make(folder: Path) -> None:
    """Makes the world in the current folder, which must be `folder`."""
    shards: dict[str, Any] = {"shards": True}
    for kind in ("bert", "roberta", "gpt2", "t5"):
        build(kind, folder / kind, padding=3, **(shards if kind == "gpt2" else {}))
    _old_files(folder)
    save_file({"weight": torch.randn(60, 8), "bias": torch.randn(60)}, folder / "bare.safetensors")
    _texts(folder)
    saved("bert", folder / "words")
    repair_directions("gpt2", components=1, out="delta.safetensors")
    apply_delta("gpt2", "delta.safetensors", "repaired")
    _runs(folder)
    (folder / "results").mkdir()
    shutil.copytree(
        RESULTS,
        folder / "results/stop-jostling",
        ignore=lambda _, names: {name for name in names if name != "baseline-seed-1337.json"},
    )


def _old_files(folder: Path) -> None:
    """Models with the files of older tokenizers alone."""
    for name, source in (("pairs", "roberta"), ("pieces", "bert")):
        shutil.copytree(folder / source, folder / name)
        (folder / name / "tokenizer.json").unlink()
        model = json.loads((folder / source / "tokenizer.json").read_text())["model"]
        if name == "pairs":
            (folder / name / "vocab.json").write_text(json.dumps(model["vocab"]))
            merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
            (folder / name / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
        else:
            (folder / name / "vocab.txt").write_text("\n".join(sorted(model["vocab"], key=model["vocab"].get)) + "\n")
        (folder / name / "added_tokens.json").write_text(json.dumps({"<new>": len(model["vocab"])}))


def _texts(folder: Path) -> None:
    (folder / "tiny.txt").write_text(SENTENCES * 30)
    (folder / "tiny.toml").write_text(TINY.replace("every = 10", "every = 2"))
    (folder / "counts.tsv").write_text("the\t50\ncat\t7\nsat\t3\n[UNK]\t0\n")
    (folder / "counts.json").write_text(json.dumps({"the": 50, "cat": 7, "sat": 3}))
    (folder / "similar.tsv").write_text("cat\tdog\t7.5\nsea\thill\t4\nmat\thome\t2.5\nthe\ta\t1\n")
    (folder / "tokens.txt").write_text("snow\nfrost\n<|mark|>\nweiß\n")
    (folder / "keep.txt").write_text("the\ncat\nsat\n##s\n")
    (folder / "rows.txt").write_text("3\n4\n9\n20\n")
    defined = {**glosses(), "cat": "an animal that sat", "sea": "a lot of water"}
    (folder / "words.tsv").write_text("".join(f"{word}\t{gloss}\n" for word, gloss in defined.items()))
    senses = [{"glosses": ["frozen water"]}, {"glosses": ["plural of cat"], "form_of": [{"word": "cat"}]}]
    entries = [{"word": word, "lang_code": "en", "pos": "noun", "senses": senses} for word in ("cat", "dog", "sea")]
    (folder / "entries.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    rows = "".join(f"{word}\tn\t1\t{index:08d}-n\tsome {word}\t\n" for index, word in enumerate(("cat", "dog", "sea")))
    (folder / "table.tsv").write_text("lemma\tpos\tsense\tsynset\tgloss\texamples\n" + rows)
    (folder / "packed.gz").write_bytes(gzip.compress((folder / "words.tsv").read_bytes()))
    nouns = [("05 n 02 ice 0 cat 1 001 @ 00000000 n 0000", "water frozen"), ("15 n 01 sea 0 000", "a lot of water")]
    database(folder / "dict", "noun", nouns, {"cat": [0], "ice": [0], "sea": [1]})


def _runs(folder: Path) -> None:
    """A finished run, one that was stopped, and a comparison."""
    config = RunConfig.read(folder / "tiny.toml", {"steps": 4, "machine.checkpoint_every": 2})
    plan = Comparison(config, METHODS, (1, 2), folder / "study")
    plan.claim()
    for job in plan.jobs():
        Trainer(job.config, Run.create(job.path, job.config)).train()
    shutil.copytree(plan.folder("mle", 1), folder / "run")
    steps = iter(range(1, 9))
    with pytest.raises(Interrupted):
        Trainer(config, Run.create(folder / "stopped", config)).train(stop=lambda: next(steps) == 2)
    for path in folder.glob("*/*.safetensors"):
        load_file(path)  # the world itself is sound
