"""Models of transformers are loaded safely, for one use, and refused in one sentence that names it."""

import logging
import sys
from pathlib import Path

import pytest
import torch

from decone.models.load import Loader, first_line, is_run

LOADER = Loader(
    needs="drawing needs",
    refusal="cannot load {name} to be drawn: {reason}",
    incomplete="{name} cannot be drawn without {weight}",
    may_lack=("pooler",),
)


def test_a_run_is_a_folder_with_its_configuration() -> None:
    for name, files in [("run", ["config.toml"]), ("model", ["config.json"]), ("both", ["config.toml", "config.json"])]:
        Path(name).mkdir()
        for file in files:
            (Path(name) / file).touch()
    assert [is_run(name) for name in ("run", "model", "both", "owner/name")] == [True, False, False, False]


def test_the_library_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for load in (LOADER.library, lambda: LOADER.config("a"), lambda: LOADER.model("AutoModel", "a")):
        with pytest.raises(ValueError, match=r'^drawing needs transformers: pip install "decone\[hf\]"$'):
            load()


@pytest.mark.parametrize(
    ("error", "line"), [(OSError("a\nb"), "a"), (KeyError(), "KeyError"), (ValueError(" "), "ValueError")]
)
def test_the_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.fixture
def bert() -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained("bert")
    return Path("bert")


def test_only_what_may_be_new_is_missing(bert: Path) -> None:
    model, missing = LOADER.model("AutoModel", "a name", bert)
    assert model.config.vocab_size == 9
    assert missing == {"pooler.dense.weight", "pooler.dense.bias"}
    with pytest.raises(ValueError, match=r"^bert cannot be drawn without cls\.predictions"):
        LOADER.model("AutoModelForMaskedLM", str(bert))


def test_a_refusal_names_the_use(bert: Path) -> None:
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"^cannot load a name to be drawn: .*") as error:
        LOADER.model("AutoModel", "a name", bert)
    assert "\n" not in str(error.value)
    for load in (LOADER.config, LOADER.tokenizer):
        with pytest.raises(ValueError, match=r"^cannot load nowhere to be drawn: "):
            load("nowhere")


def test_loading_says_nothing_and_leaves_the_logger_as_it_was(bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(caplog.handler)  # records of transformers do not reach the root
    try:
        with caplog.at_level(logging.WARNING, logger=logger.name):
            LOADER.model("AutoModel", "a name", bert)
            assert not [record for record in caplog.records if "LOAD REPORT" in record.getMessage()]
            logger.warning("LOAD REPORT of another program")
    finally:
        logger.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"LOAD REPORT of another program"}
