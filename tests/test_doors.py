"""Functions of the package: a script of some ten lines for each, on a tiny model."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import decone
from decone.cli import repair, scan, studies, train

TINY: dict[str, Any] = {
    "steps": 4,
    "corpus": {"name": "tiny.txt"},
    "model": {"width": 8, "layers": 1, "heads": 1, "context": 8},
    "batch": {"size": 8},
    "evaluation": {"every": 2, "batches": 1},
    "machine": {"threads": 1, "device": "cpu"},
}


def is_json(result: Any) -> dict[str, Any]:
    content: dict[str, Any] = result.to_dict()
    json.dumps(content)
    return content


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text named by a relative path."""
    path = tmp_path / "tiny.txt"
    path.write_text("the cat sat on the mat and then the dog ran over the hill.\n" * 60)
    return path


def test_every_door_is_a_function_with_types_and_words() -> None:
    names = [name for name in decone.__all__ if not name.startswith("_")]
    assert names == sorted(names)
    assert set(names) <= set(dir(decone))
    for name in names:
        function = getattr(decone, name)
        assert function.__name__ == name
        assert "return" in get_type_hints(function), name
        assert function.__doc__, name
        assert getattr(decone, name) is function, "imported once"


COMMANDS: dict[str, Callable[..., None]] = {
    "apply_delta": repair.apply,
    "compare": studies.compare,
    "count_text": scan.counts,
    "doctor": train.doctor,
    "draw_report": studies.report,
    "evaluate": train.evaluate,
    "grow": repair.grow,
    "lexicon_coverage": repair.lexicon,
    "methods": train.methods,
    "read_delta": repair.show,
    "rebuild_definitions": repair._repair_command("definitions"),
    "repair_directions": repair._repair_command("directions"),
    "repair_rows": repair._repair_command("rows"),
    "reproduce": studies.reproduce,
    "scan": scan.scan,
    "train": train.train,
    "trim": repair.trim,
    "undo_delta": repair.undo,
}
RENAMED = {"exhibit": "table", "settings": "sets", "checks": "limits", "path": "delta"}  # what a shell calls otherwise
OF_THE_DOOR = {"progress", "backwards"}  # `backwards` is a command of its own, undo
OF_THE_SHELL = {"as_json", "quiet", "schema", "every", "dry_run"}  # to print, and to make without a folder


@pytest.mark.parametrize("name", COMMANDS)
def test_a_door_and_its_command_have_the_same_options(name: str) -> None:
    door, command = (inspect.signature(function).parameters for function in (getattr(decone, name), COMMANDS[name]))
    options = command.keys() - OF_THE_SHELL
    expected = (
        {option if option in options else RENAMED.get(option, option) for option in door} - OF_THE_DOOR - OF_THE_SHELL
    )
    expected = {"repaired" if name == "undo_delta" and option == "folder" else option for option in expected}
    assert options == expected | ({"folder"} if name == "scan" else set())  # the command writes, the door does not


def _text(value: Any) -> str:
    return "" if value in (None, (), inspect.Parameter.empty) else str(value)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_door_and_its_command_have_the_same_defaults(name: str) -> None:
    door, command = (inspect.signature(function).parameters for function in (getattr(decone, name), COMMANDS[name]))
    for option in door.keys() & command.keys():
        assert _text(command[option].default) == _text(door[option].default), option


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'decone' has no attribute 'mend'"):
        decone.mend  # noqa: B018


def test_no_submodule_hides_a_door() -> None:
    names = [name for name in decone.__all__ if not name.startswith("_")]
    code = f"""
import pkgutil, importlib, decone
for module in pkgutil.iter_modules(decone.__path__):
    if module.name != "__main__":
        importlib.import_module(f"decone.{{module.name}}")
print([name for name in {names} if not callable(getattr(decone, name))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_train_and_evaluate(text: Path) -> None:
    result = decone.train(TINY, out="run", settings={"method": "threshold:margin=1"})
    assert is_json(result)["method"] == "threshold:margin=1"
    assert "threshold:margin=1" in result._repr_html_()
    evaluation = decone.evaluate(result, text, device="cpu")
    assert is_json(evaluation)["languages"].keys() == result.scores.keys()
    assert "tiny.txt" in evaluation._repr_html_()
    assert decone.scan(result, prompts=0).model.family == "decone"  # a result is taken where a path is


def test_compare_and_draw_report(text: Path) -> None:
    result = decone.compare("mle", seeds="7,", config=TINY, out="study", jobs=1)
    assert [run["seed"] for run in is_json(result)["mle"]] == [7]
    assert "1 methods, 1 seeds, 4 steps on tiny.txt" in result._repr_html_()
    assert Path("study/report.html").is_file()
    assert is_json(decone.draw_report("study")) == is_json(result)


def test_reproduce() -> None:
    result = decone.reproduce("stop-jostling:table1", rows="baseline", out=Path("none"), show=True)
    assert is_json(result) == {"Baseline": []}
    assert "Baseline" in result._repr_html_()


def test_methods() -> None:
    catalogue = decone.methods()
    assert "threshold" in [card["name"] for card in is_json(catalogue)["methods"]]
    assert "threshold" in catalogue._repr_html_()


def test_doctor() -> None:
    environment = decone.doctor()
    assert is_json(environment)["engine"]["name"] == "chunked"
    assert "chunked" in environment._repr_html_()


@pytest.fixture
def model() -> str:
    """A tiny encoder with a tokenizer, in a folder named by a relative path."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *letters, *(f"##{letter}" for letter in letters), "the", "cat", "sat", "mat", "ice", "sea"]
    inner = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained("tiny")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=32, **sizes)
    transformers.BertForMaskedLM(config).save_pretrained("tiny")
    return "tiny"


def test_scan(model: str) -> None:
    result = decone.scan(model, prompts=0)
    assert is_json(result)["model"]["name"] == "tiny"
    assert "tiny" in result._repr_html_()


def test_grow_and_trim(model: str, text: Path) -> None:
    growth = decone.grow(model, ["snow", "frost"], Path("grown"))
    assert is_json(growth)["added"] == 2
    assert "snow" in growth._repr_html_()
    reduction = decone.trim("grown", Path("trimmed"), text=text)
    assert is_json(reduction)["tokens_after"] < is_json(reduction)["tokens_before"]
    assert "grown" in reduction._repr_html_()


def test_deltas(model: str) -> None:
    report = decone.repair_directions(model, components=1, out=Path("delta.safetensors"))
    assert is_json(report)["delta"] == "delta.safetensors"
    assert "directions" in report._repr_html_()
    assert decone.read_delta(Path("delta.safetensors")).facts.method == "directions"
    repaired = decone.apply_delta(model, Path("delta.safetensors"), Path("repaired"))
    assert "model.safetensors" in is_json(repaired)["rewritten"]
    decone.undo_delta("repaired", Path("delta.safetensors"), Path("original"))
    assert Path("original/model.safetensors").read_bytes() == Path("tiny/model.safetensors").read_bytes()


def test_a_lexicon(model: str) -> None:
    Path("words.tsv").write_text("ice\tthe sea that sat\nsea\ta mat\ncat\tthe cat sat\n")
    coverage = decone.lexicon_coverage(model, Path("words.tsv"))
    assert is_json(coverage)["covered"] == 3
    assert "tiny" in coverage._repr_html_()
