"""A model and a text as they are read: windows, the mark at the beginning, places of tokens."""

import shutil
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402

from decone.diagnosis import evaluated_text as module  # noqa: E402
from decone.diagnosis.evaluated_text import load_evaluated_text  # noqa: E402
from decone.models.generation import DECODINGS  # noqa: E402

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
    monkeypatch.setattr(module, "CACHE_BYTES", 290 * 4 * 7 + 3)
    assert load_evaluated_text(str(llama), Path("text.txt"), "cpu").context == 7
    monkeypatch.setattr(module, "CACHE_BYTES", 1)
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
