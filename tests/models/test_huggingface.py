"""Models of transformers: safetensors only, no code from the model's folder, refused in one sentence."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402  # only where transformers is

from decone.models.huggingface import CONTEXT, HuggingFaceModel  # noqa: E402

CPU = torch.device("cpu")
WORDS = [*"abcdefgh", " ", "\n", "<unk>"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers with a tokenizer of one id per character, saved as safetensors."""
    folder = tmp_path_factory.mktemp("gpt2")
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=len(WORDS), n_positions=16, n_embd=12, n_layer=2, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_logits_are_those_of_the_model(saved: Path) -> None:
    model = HuggingFaceModel(str(saved), CPU)
    assert (model.context, model.vocabulary, model.device) == (16, len(WORDS), CPU)
    ids = model.encode("abc\ndef")
    assert ids.tolist() == [0, 1, 2, 9, 3, 4, 5]
    plain = transformers.GPT2LMHeadModel.from_pretrained(saved, use_safetensors=True).eval()
    hidden = plain.transformer(input_ids=ids[None]).last_hidden_state
    torch.testing.assert_close(model.logits(ids[None]), F.linear(hidden, plain.lm_head.weight))
    torch.testing.assert_close(model.head, plain.lm_head.weight.detach())
    assert not model.logits(ids[None]).requires_grad and not model.head.requires_grad
    assert not model.model.training


def test_a_long_context_is_cut(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    model = HuggingFaceModel(str(copied), CPU)
    model.model.config.n_positions = 10 * CONTEXT
    assert config["n_positions"] == 16 and model.context == CONTEXT


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("unpickled"),)  # type: ignore[return-value]


def test_a_pickle_is_refused_and_not_opened(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps({"transformer.wte.weight": Bomb()}))
    with pytest.raises(ValueError, match=r"cannot load .*model as a causal model from safetensors"):
        HuggingFaceModel(str(copied), CPU)
    assert not Path("unpickled").exists()


def test_code_in_the_folder_is_not_run(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["model_type"] = "strange"
    config["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": "own.Own"}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "own.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    with pytest.raises(ValueError, match="cannot load"):
        HuggingFaceModel(str(copied), CPU)
    assert not Path("executed").exists()


def test_what_is_asked_of_transformers(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def listening(real: Callable[..., Any]) -> Callable[..., Any]:
        def load(name: str, **options: Any) -> Any:
            asked.append(options)
            return real(name, **options)

        return load

    for kind in (transformers.AutoTokenizer, transformers.AutoModelForCausalLM):
        monkeypatch.setattr(kind, "from_pretrained", listening(kind.from_pretrained))
    HuggingFaceModel(str(saved), CPU)
    tokenizer, model = asked
    assert tokenizer["trust_remote_code"] is False and model["trust_remote_code"] is False
    assert model["use_safetensors"] is True


def test_a_model_with_holes_is_refused(copied: Path) -> None:
    """Transformers would fill them with random numbers, and the numbers measured would mean nothing."""
    weights = load_file(copied / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"lacks weights of a causal model, e\.g\. transformer\.h\.1\.mlp\.c_fc\.weight"
    ):
        HuggingFaceModel(str(copied), CPU)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_truncated_file_is_refused(name: str, copied: Path) -> None:
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot load") as error:
        HuggingFaceModel(str(copied), CPU)
    assert "\n" not in str(error.value)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"neither a decone run \(config.toml\) nor a Hugging Face model"):
        HuggingFaceModel("empty", CPU)
    with pytest.raises(ValueError, match="file is a file; name the folder of a model"):
        HuggingFaceModel("file", CPU)
    for name in ("nobody/nothing", "no/such/path", "white space"):
        with pytest.raises(ValueError, match=f"cannot load {name} as a causal model") as error:
            HuggingFaceModel(name, CPU)
        assert "\n" not in str(error.value)
