"""Every mistake of a user: exit code 2, one sentence on stderr, nothing on stdout, nothing left behind."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.usefixtures("tiny")

Decone = Callable[..., Any]  # of conftest: a command line to (code, out, err)

TRAIN = ("train", "tiny.toml", "--out", "out")
COMPARE = ("compare", "--config", "tiny.toml", "--seeds", "1", "--out", "out")
REPRODUCE = ("reproduce", "stop-jostling:table1", "--seeds", "1", "--rows", "baseline")


def tree() -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


def refused(decone: Decone, arguments: tuple[str, ...], message: str) -> None:
    before = tree()
    code, out, err = decone(*arguments)
    assert code == 2, err
    assert out == ""
    assert err.startswith("decone: "), err
    assert err.count("\n") == 1, err
    assert err.endswith("\n"), err
    assert message in err
    after = tree()
    assert after.keys() == before.keys(), "nothing is left behind"
    assert after == before, "nothing is changed"


def text_of(content: bytes) -> Callable[[], None]:
    return lambda: Path("text.txt").write_bytes(content) and None


TEXTS: dict[str, tuple[Callable[[], object], str]] = {
    "missing": (lambda: None, "no file text.txt; name a UTF-8 text file, or one of default,"),
    "folder": (lambda: Path("text.txt").mkdir(), "text.txt is a folder; name a text file in it"),
    "binary": (text_of(bytes(range(256)) * 9), "text.txt is a binary file; give plain text in UTF-8"),
    "empty": (text_of(b""), "text.txt is empty; give a text of some thousand characters or more"),
    "blank": (text_of(b" \n" * 999), "text.txt is empty"),
    "short": (text_of(b"to be or not"), "the text is too short: 10 training and 2 validation tokens"),
    "latin": (text_of(("Grüße aus Köln. " * 99).encode("latin-1")), "text.txt is not UTF-8 (byte 2); convert it"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("command", ["train", "compare", "eval"])
def test_a_text_that_will_not_do(command: str, name: str, decone: Decone) -> None:
    make, message = TEXTS[name]
    make()
    if command == "eval":
        assert decone("train", "tiny.toml", "--out", "run", "--set", "steps=1", "--quiet").code == 0
        message = message.replace("the text is too short: 10 training and 2 validation", "text.txt has 12")
        message = message.removesuffix(", or one of default,")  # only training reads texts by name
        refused(decone, ("eval", "run", "--text", "text.txt"), message)
    elif command == "compare":
        refused(decone, (*COMPARE, "--corpus", "text.txt"), message)
    else:
        refused(decone, (*TRAIN, "--set", "corpus.name=text.txt"), message)


SETTINGS = [
    ("stps=3", "unknown key 'stps'; did you mean 'steps'?"),
    ("model.wdth=3", "unknown key 'model.wdth'; did you mean 'width'?"),
    ("steps=0", "steps = '0': input should be greater than or equal to 1"),
    ("steps=many", "steps = 'many': input should be a valid integer"),
    ("steps", "--set 'steps' is not key=value; write e.g. --set optimizer.lr=3e-4"),
    ("optimizer.lr=nan", "optimizer.lr = 'nan': input should be a finite number"),
    ("optimizer.lr=0", "optimizer.lr = '0': input should be greater than 0"),
    ("model.heads=3", "width 16 is not a multiple of heads 3; choose one that is"),
    ("model.context=4000", "the text is too short"),
    ("machine.device=cuda:99", "device 'cuda:99' is not available here; choose auto or cpu"),
    ("machine.device=gpu", "unknown device 'gpu'; choose auto, cpu, cuda, cuda:N or mps"),
    ("machine.engine=fast", "unknown engine 'fast'"),
    ("batch.size=0", "batch.size = '0': input should be greater than or equal to 1"),
    ("tokenizer.kind=words", "tokenizer.kind = 'words': input should be 'characters' or 'bpe'"),
    ("seed=-1", "seed = '-1': input should be greater than or equal to 0"),
]


@pytest.mark.parametrize(("setting", "message"), SETTINGS)
@pytest.mark.parametrize("command", [TRAIN, COMPARE], ids=["train", "compare"])
def test_a_setting_that_cannot_be(command: tuple[str, ...], setting: str, message: str, decone: Decone) -> None:
    refused(decone, (*command, "--set", setting), message)


METHODS = [
    ("tresh", "unknown method 'tresh'; did you mean 'threshold'?"),
    ("threshold:margn=1", "method 'threshold' has no setting 'margn'; did you mean 'margin'?"),
    ("threshold:margin=-1", "margin must be 0 or more, got -1.0; inf is plain cross-entropy"),
    ("threshold:margin=nan", "margin must be 0 or more, got nan"),
    ("threshold:margin=", "is not key=value"),
    ("mle+row-adam", "neither an objective nor an optimiser; did you mean 'row-adamw'?"),
    ("mle+row-adamw:decay=no", "row-adamw setting decay=no"),
    ("", "--methods is empty"),
]


@pytest.mark.parametrize(("method", "message"), METHODS)
def test_a_method_that_cannot_be(method: str, message: str, decone: Decone) -> None:
    refused(decone, (*COMPARE, "--methods", method), message)
    if method:
        refused(decone, (*COMPARE, "--methods", f"mle,{method}"), message)
        refused(decone, (*TRAIN, "--set", f"method={method}"), message)


@pytest.mark.parametrize("seeds", ["0", "x", "-3", "1,1", ",", ""])
def test_seeds_that_cannot_be(seeds: str, decone: Decone) -> None:
    refused(decone, ("compare", "--config", "tiny.toml", "--out", "out", "--seeds", seeds), f"--seeds {seeds!r}")
    refused(decone, ("reproduce", "stop-jostling:table1", "--seeds", seeds), f"--seeds {seeds!r}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stps = 3", "unknown key 'stps'; did you mean 'steps'?"),
        ("[model]\nwdth = 3", "unknown key 'model.wdth'; did you mean 'width'?"),
        ("steps = 'ten'", "steps = 'ten': input should be a valid integer"),
        ("model = 3", "model = 3: input should be a valid dictionary"),
        ("method = 'tresh'", "unknown method 'tresh'; did you mean 'threshold'?"),
        ("steps = ", "bad.toml is not TOML"),
    ],
)
def test_a_file_that_cannot_be(content: str, message: str, decone: Decone) -> None:
    Path("bad.toml").write_text(content)
    refused(decone, ("train", "bad.toml", "--out", "out"), message)
    refused(decone, ("compare", "--config", "bad.toml", "--out", "out"), message)


def test_a_file_that_is_not_there(decone: Decone) -> None:
    refused(decone, ("train", "nowhere.toml", "--out", "out"), "no file nowhere.toml; name a TOML configuration")
    refused(decone, ("train", "tiny.toml"), "name the folder of the run with --out DIR")


class Place(NamedTuple):
    """Where --out leads: how it is spoiled, the path given, what is said."""

    spoil: Callable[[], object]
    path: str
    message: str


PLACES = {
    "file": Place(lambda: Path("out").write_text("mine"), "out", "--out out is a file; name a folder"),
    "below a file": Place(lambda: Path("file").touch(), "file/out", "--out file/out lies below"),
    "other things": Place(
        lambda: shutil.copytree(Path(__file__).parent, "out", ignore=shutil.ignore_patterns("__pycache__")),
        "out",
        "--out out is not empty and holds no decone run; choose another folder",
    ),
    "proc": Place(lambda: None, "/proc/decone", "cannot write to /proc/decone"),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("command", [TRAIN, COMPARE, REPRODUCE], ids=["train", "compare", "reproduce"])
def test_a_place_that_cannot_be(
    command: tuple[str, ...], name: str, decone: Decone, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, path, message = PLACES[name]
    if name == "proc" and not Path("/proc/self").is_dir():
        pytest.skip("no /proc here")
    spoil()
    if command is REPRODUCE:
        if name == "other things":
            pytest.skip("results lie beside other things")
        message = message.replace("out is a file", "out/stop-jostling lies below").replace("/proc/decone", "/proc/")
        message = message.replace("; name a folder", "").replace("file/out lies", "file/out/stop-jostling lies")
        monkeypatch.setattr("decone.studies.reproduce.check", lambda configs: None)  # needs no corpus
        refused(decone, (*command, "--out", path), message)
    else:
        refused(decone, (*command[:-1], path), message)


def test_a_place_of_another_run(decone: Decone) -> None:
    assert decone(*TRAIN, "--set", "steps=2", "--quiet").code == 0
    refused(decone, (*TRAIN, "--set", "steps=3"), "out holds a run of another configuration; choose another --out")
    refused(decone, COMPARE, "--out out is not empty and holds no decone run")


RESUME = ("train", "--resume", "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "model.width=32"), "run holds a run of another configuration; start a new one with --out"),
        (("--seed", "5"), "run holds a run of another configuration"),
        (("--set", "modle.width=32"), "unknown key 'modle'; did you mean 'model'?"),
        (("--out", "elsewhere"), "--resume goes on in its own folder; leave out --out"),
        (("--device", "cuda:99"), "device 'cuda:99' is not available here"),
    ],
)
def test_a_resumption_that_cannot_be(arguments: tuple[str, ...], message: str, decone: Decone) -> None:
    stopped()
    refused(decone, (*RESUME, *arguments), message)
    other = Path("other.toml")
    other.write_text(Path("tiny.toml").read_text().replace("width = 16", "width = 8"))
    refused(decone, ("train", "other.toml", "--resume", "run"), "run holds a run of another configuration")


def stopped() -> Path:
    """A run that stopped after five of its steps, and its checkpoint."""
    from decone.training.checkpoint import latest
    from decone.training.config import RunConfig
    from decone.training.loop import Interrupted, Trainer
    from decone.training.run import Run

    config = RunConfig.read(Path("tiny.toml"))
    steps = iter(range(1, 99))
    with pytest.raises(Interrupted):
        Trainer(config, Run.create(Path("run"), config)).train(stop=lambda: next(steps) == 5)
    folder = latest(Path("run"))
    assert folder is not None
    return folder


def test_a_run_that_is_not_there(decone: Decone) -> None:
    refused(decone, ("train", "--resume", "nowhere"), "no run at nowhere; name the folder given as --out")
    Path("empty").mkdir()
    refused(decone, ("train", "--resume", "empty"), "empty holds no decone run (config.toml is missing)")
    refused(decone, ("report", "nowhere"), "nowhere holds no comparison (compare.json is missing)")


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json"])
@pytest.mark.parametrize(
    "content",
    [None, 0, 0.5, 0.99, os.urandom(3000), b'{"weight": 3}', b"[]", b'\x08\0\0\0\0\0\0\0{"a":{}}'],
    ids=["missing", "empty", "half", "nearly whole", "random", "json", "list", "header"],
)
def test_a_damaged_or_foreign_checkpoint(name: str, content: bytes | float | None, decone: Decone) -> None:
    path = stopped() / name
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * content)])
    refused(decone, RESUME, "the checkpoint run/checkpoints/step-00000005 is damaged or foreign")
    shutil.rmtree(path.parent)  # the mend in the message
    assert decone(*RESUME, "--quiet").code == 0


def test_a_checkpoint_of_another_model(decone: Decone) -> None:
    from safetensors.torch import save_file
    from torch import zeros

    save_file({"wte.weight": zeros(4, 4)}, stopped() / "model.safetensors")
    refused(decone, RESUME, "the checkpoint run/checkpoints/step-00000005 does not fit this run")


@pytest.mark.parametrize("content", ["", '{"measured": {', "[]", "{}", '{"measured": {"best": 3}}', "null"])
def test_a_damaged_result(content: str, decone: Decone) -> None:
    assert decone(*TRAIN, "--set", "steps=1", "--quiet").code == 0
    Path("out/result.json").write_text(content)
    for arguments in (("train", "--resume", "out"), (*TRAIN, "--set", "steps=1")):
        refused(decone, arguments, "out/result.json is damaged")


def test_a_damaged_tokenizer_or_configuration(decone: Decone) -> None:
    stopped()
    whole = Path("run/tokenizer.json").read_text()
    Path("run/tokenizer.json").write_text(whole[:100])
    refused(decone, RESUME, "cannot read the tokenizer run/tokenizer.json")
    Path("run/config.toml").write_text("steps = ")
    refused(decone, RESUME, "run/config.toml is not TOML")


def test_a_damaged_run_of_a_comparison(decone: Decone) -> None:
    arguments = (*COMPARE, "--methods", "mle")
    plan = {"config": {}, "methods": ["mle"], "seeds": [1]}
    Path("out/runs/mle/seed-1").mkdir(parents=True)
    Path("out/runs/mle/seed-1/result.json").write_text('{"measured": 3}')
    Path("out/compare.json").write_text(json.dumps(plan))
    refused(decone, ("report", "out"), "out/runs/mle/seed-1/result.json is damaged")
    refused(decone, arguments, "out holds a comparison with other settings; choose another --out")
    Path("out/compare.json").write_text("{")
    refused(decone, ("report", "out"), "out/compare.json is damaged")
    refused(decone, arguments, "out/compare.json is damaged")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("stop-jostling:table9",),
            "nothing to reproduce under 'stop-jostling:table9'; choose one of stop-jostling:table1",
        ),
        ((), "nothing to reproduce under ''; choose one of stop-jostling:table1"),
        (
            ("stop-jostling:table1", "--rows", "margn-1"),
            "stop-jostling:table1 has no row 'margn-1'; its rows: baseline",
        ),
        (("stop-jostling:table1", "--rows", ""), "--rows is empty"),
        (("stop-jostling:table1", "--select", "first"), "unknown --select 'first'; choose best or last"),
        (("stop-jostling:table1", "--device", "gpu"), "unknown device 'gpu'"),
    ],
)
def test_a_table_that_is_not_there(arguments: tuple[str, ...], message: str, decone: Decone) -> None:
    refused(decone, ("reproduce", *arguments), message)


def test_a_result_of_another_configuration(decone: Decone) -> None:
    assert decone(*TRAIN, "--set", "steps=1", "--quiet").code == 0
    path = Path("results/stop-jostling/baseline-seed-1337.json")
    path.parent.mkdir(parents=True)
    path.write_bytes(Path("out/result.json").read_bytes())
    for show in ((), ("--show",), ("--show", "--json")):
        refused(decone, (*REPRODUCE, *show), f"{path} was made with another configuration than 'Baseline' asks for")
    path.write_text("{}")
    refused(decone, (*REPRODUCE, "--show"), f"{path} is damaged")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "--text", "tiny.txt"), "cannot load nowhere as a causal model from safetensors"),
        (("empty", "--text", "tiny.txt"), "empty holds neither a decone run (config.toml) nor a Hugging Face model"),
        (("tiny.txt", "--text", "tiny.txt"), "tiny.txt is a file; name the folder of a model"),
        (("pickled", "--text", "tiny.txt"), "cannot load pickled as a causal model from safetensors"),
        (("run", "--text", "tiny.txt"), "the run run is not done; finish it with: decone train --resume run"),
        (("run", "--text", "nowhere.txt"), "no file nowhere.txt"),
        (("run", "--text", "tiny.txt", "--device", "cuda:99"), "device 'cuda:99' is not available here"),
    ],
)
def test_what_cannot_be_measured(arguments: tuple[str, ...], message: str, decone: Decone) -> None:
    pytest.importorskip("transformers")
    stopped()
    Path("empty").mkdir()
    Path("pickled").mkdir()
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = {"model_type": "gpt2", "vocab_size": 9, "n_embd": 4, "n_head": 1, **ends}
    Path("pickled/config.json").write_text(json.dumps(config))
    Path("pickled/pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch unpickled'\ntR.")
    refused(decone, ("eval", *arguments), message)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("command", [TRAIN, COMPARE], ids=["train", "compare"])
def test_a_corpus_without_network(
    command: tuple[str, ...], decone: Decone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("DECONE_DATA", str(tmp_path / "nothing"))
    monkeypatch.delenv("DECONE_CACHE")
    refused(decone, (*command, "--set", "corpus.name=shakespeare"), "cannot download shakespeare from https://")
    refused(
        decone, REPRODUCE, "put it at DIR/tinyshakespeare/input.txt and set DECONE_DATA=DIR, or use --corpus default"
    )


def test_no_cuda_is_said_at_once(decone: Decone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    message = "device 'cuda' is not available here; choose auto or cpu"
    for command in (TRAIN, COMPARE):
        refused(decone, (*command, "--device", "cuda"), message)
    monkeypatch.setattr("decone.data.corpora.find", lambda name: Path("tiny.txt"))
    refused(decone, (*REPRODUCE, "--device", "cuda"), message)


def test_a_method_that_is_not_there(decone: Decone) -> None:
    refused(decone, ("methods", "tresh"), "unknown method 'tresh'; did you mean 'threshold'?")


@pytest.mark.parametrize(
    "arguments", [("train", "--otu", "x"), ("tarin",), ("eval",), ("eval", "x"), ("compare", "--jobs", "-1")]
)
def test_wrong_usage_is_explained(arguments: tuple[str, ...], decone: Decone) -> None:
    before = tree()
    code, out, err = decone(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: " in err
    assert "Error: " in err
    assert "Traceback" not in err
    assert tree() == before
